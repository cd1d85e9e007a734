"""The status file (CROCHET_STATUS_FILE): the statistics as JSON, a StatusFile, for programs that read files.

A relay replaces it atomically every few seconds. An error of its folder or disk is logged once; the file gets stale, as
its `at` shows. Where several relays have the same file the last one to write wins.
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

from crochet_tasks.db import SQLAlchemyError
from crochet_tasks.db.process import Process
from crochet_tasks.errors import CrochetError
from crochet_tasks.reporting import statistics
from crochet_tasks.schemas.statistics import StatusFile

log = logging.getLogger(__name__)

SHARE = 0.05
"""of the time that writing may take: after a slow write the next one is later"""
END_SECONDS = 5.0


def keep(process: Process) -> None:
    """Write it for as long as the process lives, in a thread of its own; without CROCHET_STATUS_FILE do nothing."""
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
        self._logged: set[str] = set()
        """problems that were logged since the last success"""

    def write(self) -> None:
        """Read the statistics and write them; a problem is logged once."""
        problem = "database_away"
        try:
            read = statistics.everything(self._process, statistics.for_operators)
            every = self._process.settings.status_file_every
            content = StatusFile(at=dt.datetime.now(dt.UTC), every=every, statistics=read).model_dump_json()
            problem = "not_written"
            self._replace(f"{content}\n".encode())
        except (CrochetError, SQLAlchemyError, OSError) as error:
            self._log_once(problem, error)
        except Exception as error:  # noqa: BLE001 - a bug: this thread is the only one that writes it
            self._log_once("internal", error)
        else:
            self._logged.clear()

    def _log_once(self, problem: str, error: Exception) -> None:
        if problem not in self._logged:
            about = {"file": str(self._path), "why": problem, "error": str(error)}
            log.warning("status_file_failed", extra=about, exc_info=error if problem == "internal" else None)
        self._logged.add(problem)

    def _replace(self, content: bytes) -> None:
        """Replace the file atomically. Not synced to disk: it is soon written again."""
        try:
            self._new.unlink(missing_ok=True)
            # A new file, and no link that another user has made there.
            number = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            with os.fdopen(number, "wb") as file:
                os.fchmod(number, 0o644)  # whatever the umask: it has no secrets, and other users read it
                file.write(content)
            self._new.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                self._new.unlink(missing_ok=True)
            raise
