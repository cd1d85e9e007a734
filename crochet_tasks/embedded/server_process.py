"""Postgres' programs as processes: spawned so that they die with us, ended, and found again if they did not.

Used by server.py only, which knows what to run where.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from crochet_tasks.embedded import privileges

STOP_SECONDS = 30.0  # a fast shutdown writes all dirty buffers
KILL_SECONDS = 5.0
SPAWN_SECONDS = 60.0
LOG_BYTES = 1_000_000  # twice that is kept
LOG_CHECK_SECONDS = 60.0
POLL_SECONDS = 0.005


def spawn(
    program: Path,
    arguments: list[str],
    *,
    account: privileges.Account,
    folder: Path,
    log: Path,
    on_death: signal.Signals,
) -> subprocess.Popen[bytes]:
    """Run `program` as `account` in `folder`; it gets `on_death` when the calling *thread* ends."""
    needs = [str(program), str(program.with_name("postgres")), str(program.parent.with_name("share"))]
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600), "ab") as output:
        return subprocess.Popen(
            privileges.command([str(program), *arguments], account, on_death, needs),
            cwd=folder,
            env={"LC_ALL": "C"},  # and none of our PG* variables or secrets
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C in the terminal is for us alone
        )


class ServerProcess:
    """A running postgres. It ends when we do; while we live its log is kept bounded."""

    def __init__(self, spawn_server: Callable[[], subprocess.Popen[bytes]], log: Path) -> None:
        self._spawn = spawn_server
        self._log = log
        self._process: Future[subprocess.Popen[bytes]] = Future()
        self._ended = threading.Event()

    def start(self) -> None:
        # The kernel signals the server when the thread that spawned it ends, so that thread must stay.
        try:
            threading.Thread(target=self._keep, name="postgres-keeper", daemon=True).start()
        except RuntimeError:  # no more threads to be had
            self._ended.set()
            raise
        self._process.result(SPAWN_SECONDS)
        threading.Thread(target=self._bound_log, name="postgres-log", daemon=True).start()

    def _keep(self) -> None:
        try:
            process = self._spawn()
        except BaseException as error:  # noqa: BLE001 - start() raises it in the caller's thread
            self._ended.set()
            self._process.set_exception(error)
            return
        try:
            self._process.set_result(process)
            process.wait()
        finally:  # also when this thread dies, as without memory: the kernel ends the server then
            self._ended.set()

    def _bound_log(self) -> None:
        while not self._ended.wait(LOG_CHECK_SECONDS):
            roll(self._log)

    @property
    def pid(self) -> int:
        return self._process.result().pid

    @property
    def status(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.result().poll() if self._ended.is_set() else None

    def stop(self) -> bool:
        """Whether it has ended: shut down, or failing that killed."""
        for number, seconds in (
            (signal.SIGINT, STOP_SECONDS),  # fast shutdown
            (signal.SIGQUIT, KILL_SECONDS),  # immediate: the next start recovers
            (signal.SIGKILL, KILL_SECONDS),
        ):
            if self._gone():
                break
            process = self._process.result()
            process.send_signal(number)
            if self._ended.wait(seconds):
                with contextlib.suppress(subprocess.TimeoutExpired):  # the keeper died, and not the server
                    process.wait(seconds)
        return self._gone()

    def _gone(self) -> bool:
        """Whether no server runs: none was spawned, or it has ended."""
        if not self._ended.is_set():
            return False
        never = not self._process.done() or self._process.exception() is not None
        return never or self._process.result().poll() is not None


def cluster_name(data: Path) -> str:
    """Distinguishes the processes of this data folder from all others: Postgres shows it in their command lines.

    A pid may be reused, and the working directory of another
    user's process is hidden from root in a container.
    """
    status = data.stat()
    return f"crochet-{status.st_dev:x}-{status.st_ino:x}"


def find_processes(cluster: str, *, servers_only: bool = False) -> list[int]:
    server, child = f"cluster_name={cluster}".encode(), f"postgres: {cluster}: ".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                command = (entry / "cmdline").read_bytes()
                if server in command.split(b"\0") or (not servers_only and command.startswith(child)):
                    found.append(int(entry.name))
    return found


def end_left_over(cluster: str) -> list[int]:
    """End what runs on a data folder although its owner is dead; return what could not be ended."""
    for number, seconds, servers_only in (
        (signal.SIGINT, STOP_SECONDS, True),  # means something else to the lone children of a dead server
        (signal.SIGQUIT, KILL_SECONDS, False),
        (signal.SIGKILL, KILL_SECONDS, False),
    ):
        targets = find_processes(cluster, servers_only=servers_only)
        for pid in targets:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if targets and wait_until(lambda: not find_processes(cluster), seconds):
            return []
    return find_processes(cluster)


def roll(log: Path) -> None:
    """Keep the log bounded. Its writers append, so it can be emptied under them."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_BYTES:
            shutil.copyfile(log, log.with_name(f"{log.name}.1"))
            os.truncate(log, 0)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether `condition` became true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
