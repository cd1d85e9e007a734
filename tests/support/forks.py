"""Processes of the program without the second that Python takes to import it: each is forked from one that has.

    process = forks.start([sys.executable, "-m", "crochet_tasks", "relay"], environment, stdin, stdout, stderr)

A process like any other, with a session, signals, files and an exit status of its own, that runs `main` of a module as
`python -m` would. Only what looks at imports, at its command line in `ps` or at the variables of Python itself needs
the real thing. The one that forks has imported modules and done nothing else; it ends with the test process.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import NoReturn

from tests.support.paths import ROOT

REQUEST_BYTES = 1 << 20
OTHERS = (
    "alembic.command",
    "api",
    "celery.apps.worker",
    "celery.concurrency.prefork",
    "celery.worker.consumer",
    "kombu.transport.pyamqp",
    "psycopg_binary",
    "rich.live",
    "rich.table",
    "sqlalchemy.dialects.postgresql.psycopg",
    "tests.support.faulty",
)
"""what the program imports only when it is needed, or by name"""
NOT_OURS = ("crochet_tasks.db.migrations.",)  # Alembic loads them


class Forked:
    """One that was started; as subprocess.Popen, as far as it goes."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._channel = channel

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._look(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._channel], [], [], seconds)[0]:
            self.returncode = _receive(self._channel)
            self._channel.close()
        return self.returncode


def start(command: Sequence[str], environment: Mapping[str, str], stdin: int, stdout: int, stderr: int) -> Forked:
    """Run `python -m MODULE ...` in the root of the project, with these files."""
    assert list(command[:2]) == [sys.executable, "-m"]
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        request = json.dumps([list(command[2:]), dict(environment)]).encode()
        socket.send_fds(_server(), [request], [stdin, stdout, stderr, its.fileno()])
    return Forked(_receive(ours), ours)


def _receive(channel: socket.socket) -> int:
    received = channel.recv(64)
    assert received, "the process that forks has died"
    return int(received)


def run(
    command: Sequence[str], environment: Mapping[str, str], seconds: float, stdin: bytes | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end; raises TimeoutExpired, and then it is killed."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        given.write(stdin or b"")
        given.seek(0)
        process = start(command, environment, given.fileno(), output.fileno(), errors.fileno())
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        for file in (output, errors):
            file.seek(0)
        return subprocess.CompletedProcess(command, status, output.read().decode(), errors.read().decode())


@functools.cache
def _server() -> socket.socket:
    """The connection to the process that forks, one per test process."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        command = [sys.executable, "-m", __name__, str(its.fileno())]
        server = subprocess.Popen(
            command, cwd=ROOT, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
        )
    atexit.register(server.wait)
    atexit.register(ours.close)  # comes first
    return ours


# ── the one that forks ──────────────────────────────────────────────────────────────────────────


def _serve(connection: socket.socket) -> None:
    """Fork whatever is asked for, and say how each ended."""
    running: dict[int, tuple[int, socket.socket]] = {}
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    while True:
        for handle, _ in poll.poll():
            if handle != connection.fileno():
                pid, channel = running.pop(handle)
                poll.unregister(handle)
                os.close(handle)
                _send(channel, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                channel.close()
                continue
            request, handles, _, _ = socket.recv_fds(connection, REQUEST_BYTES, 4)
            if not request:
                os._exit(0)
            pid = os.fork()
            if pid == 0:
                connection.detach()
                for _, channel in running.values():
                    channel.detach()
                _become(handles, *json.loads(request))
            channel = socket.socket(fileno=handles.pop())
            for copy in handles:
                os.close(copy)
            watched = os.pidfd_open(pid)
            running[watched] = (pid, channel)
            poll.register(watched, select.POLLIN)


def _send(channel: socket.socket, number: int) -> None:
    try:
        channel.send(str(number).encode())
    except BrokenPipeError:  # the reader has closed it
        return


def _become(handles: Sequence[int], command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Be that process, to its end. Nothing is left of the one that forked but modules."""
    os.setsid()
    for place, handle in enumerate(handles[:3]):
        os.dup2(handle, place)
    os.write(handles[3], str(os.getpid()).encode())  # not before: who knows the pid may end the session
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()  # noqa: TID251 - it is a process that begins
    os.environ.update(environment)  # noqa: TID251
    module = importlib.import_module(command[0])
    if hasattr(module, "__path__"):  # `python -m PACKAGE` runs its __main__
        module = importlib.import_module(f"{command[0]}.__main__")
    sys.argv = [str(module.__file__), *command[1:]]
    module.main()
    sys.exit()


def _import() -> None:
    import crochet_tasks

    found = pkgutil.walk_packages(crochet_tasks.__path__, "crochet_tasks.", onerror=lambda name: None)
    for name in [*(module.name for module in found), *OTHERS]:
        if not name.startswith(NOT_OURS):
            importlib.import_module(name)
    assert "celeryconfig" not in sys.modules  # it reads the environment
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    _import()
    _serve(socket.socket(fileno=int(sys.argv[1])))
