"""Postgres' own programs on a database of ours: pg_dump, pg_restore, vacuumdb. No process list shows a password."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO

from crochet_tasks.db import dump
from crochet_tasks.embedded.server import find_binaries
from crochet_tasks.errors import BackupFailed, EmbeddedServerMissing
from crochet_tasks.settings import environment

NEW_SETTING = 17
"""from this version on pg_restore sets transaction_timeout, which older servers refuse"""
LAST_WORDS = 2000
"""bytes of a failed program's messages that are looked at"""


@contextlib.contextmanager
def running(
    program: str, server: int, address: Mapping[str, str], *arguments: str
) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """A program at work on a database: (what it reads, what it writes). Leaving waits for it; an error ends it.

    `server`: Postgres' major version there.

    Raises BackupFailed with its own last words.
    """
    if "sslpassword" in address:
        raise BackupFailed(program=program, reason="sslpassword cannot be passed on: use a key without a password")
    variables = environment(PGAPPNAME="crochet", LC_ALL="C")
    if "password" in address:
        variables["PGPASSWORD"] = address["password"]
    command = [_path(program, server), "--no-password", f"--dbname={dump.place(address)}", *arguments]
    with tempfile.TemporaryFile() as messages:
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=messages, env=variables)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended, and its status says how
                yield process.stdin, process.stdout
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        if status != 0:
            raise BackupFailed(program=program, reason=_last_words(messages) or f"it ended with status {status}")


def run(program: str, server: int, address: Mapping[str, str], *arguments: str) -> None:
    """As `running`, for a program that reads and writes nothing."""
    with running(program, server, address, *arguments):
        pass


def _path(program: str, server: int) -> str:
    """The oldest one that is as new as the server: of this machine, or of the embedded server."""
    found: dict[int, str] = {}
    with contextlib.suppress(EmbeddedServerMissing):
        path = str(find_binaries() / program)
        found[_major(path)] = path
    if installed := shutil.which(program):
        found[_major(installed)] = installed
    fitting = [major for major in sorted(found) if major >= server]
    if program == "pg_restore" and server < NEW_SETTING:
        fitting = [major for major in fitting if major < NEW_SETTING]
    if not fitting:
        there = f"; here is version {', '.join(map(str, sorted(found)))}" if found else ""
        advice = f"one for Postgres {server} is needed{there}: install the package postgresql-client-{server}"
        raise BackupFailed(program=program, reason=advice)
    return found[fitting[0]]


def _major(path: str) -> int:
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.findall(r"\d+", answer)[0])


def _last_words(messages: IO[bytes]) -> str:
    messages.seek(max(0, messages.seek(0, 2) - LAST_WORDS))
    lines = [line for line in messages.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line or "ERROR:" in line]
    words = " ".join((errors or lines)[-1:]).strip()
    return words + "".join(f"; {advice}" for part, advice in _ADVICE.items() if part in words)


_ADVICE = {
    "unsupported version": (
        "a newer pg_dump made it: restore it into that version of Postgres (it is in backup.json) or newer"
    ),
    "due to statement timeout": "another transaction keeps a table locked, such as a migration: try again after it",
}
"""by a part of the last words; pg_dump bounds its wait for locks by that time-out, and by nothing else"""
