"""The status file: how far everything is, for whoever reads files (CROCHET_STATUS_FILE), as StatusFile has it.

A relay writes it every few seconds, all of it or nothing. What is wrong with its folder or disk is said once and harms
nothing else: the file gets old, as its `at` shows. Of several relays with one file the last one to write wins.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import socket
import threading
import time
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from crochet_tasks.db.process import Process
from crochet_tasks.errors import CrochetError
from crochet_tasks.reporting import statistics
from crochet_tasks.schemas.statistics import StatusFile

log = logging.getLogger(__name__)

SHARE = 0.05
"""of the time that may go into it: where one look takes long the next one comes later"""
END_SECONDS = 5.0


def keep(process: Process) -> None:
    """Have it written for as long as the process lives, in a thread of its own; nothing where no file is set."""
    path, every, stopped = process.settings.status_file, process.settings.status_file_every, threading.Event()
    if path is None:
        return
    file = Writing(process, path)

    def run() -> None:
        while not stopped.is_set():
            began = time.monotonic()
            file.write()
            took = time.monotonic() - began
            stopped.wait(max(every - took, took / SHARE))

    def end() -> None:
        stopped.set()
        thread.join(END_SECONDS)

    thread = threading.Thread(target=run, name="status_file", daemon=True)
    process.at_end(end)
    thread.start()


class Writing:
    """Writes one status file."""

    def __init__(self, process: Process, path: Path) -> None:
        self._process, self._path = process, path
        self._new = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.new")
        self._said: set[str] = set()
        """what has been complained of since it last went well"""

    def write(self) -> None:
        """Look, and write it; what goes wrong is logged, once."""
        problem = "database_away"
        try:
            seen = statistics.everything(self._process, statistics.for_operators)
            every = self._process.settings.status_file_every
            content = StatusFile(at=dt.datetime.now(dt.UTC), every=every, statistics=seen).model_dump_json()
            problem = "not_written"
            self._replace(f"{content}\n".encode())
        except (CrochetError, SQLAlchemyError, OSError) as error:
            self._complain(problem, error)
        except Exception as error:  # noqa: BLE001 - a bug: this thread is the only one that writes it
            self._complain("internal", error)
        else:
            self._said.clear()

    def _complain(self, problem: str, error: Exception) -> None:
        if problem not in self._said:
            about = {"file": str(self._path), "why": problem, "error": str(error)}
            log.warning("status_file_failed", extra=about, exc_info=error if problem == "internal" else None)
        self._said.add(problem)

    def _replace(self, content: bytes) -> None:
        """Whoever reads it has the old one or this one. Not safe from a power cut: it is soon written again."""
        try:
            self._new.unlink(missing_ok=True)
            # A new file, and no link that somebody else has laid there.
            number = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            with os.fdopen(number, "wb") as file:
                os.fchmod(number, 0o644)  # whatever the umask: it holds no secrets, and others are to read it
                file.write(content)
            self._new.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                self._new.unlink(missing_ok=True)
            raise
