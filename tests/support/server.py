"""What the servers that tests start have in common: a program, a folder, a port, a keeper, an end.

The servers themselves are in tests/support/services.py, what ends them whatever happens in tests/support/keeper.py.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NoReturn

import psutil
import pytest

from crochet_tasks.embedded import privileges
from tests.support import keeper
from tests.support.waiting import SECONDS, eventually

HOST = "127.0.0.1"
PORTS = range(20_000, 30_000)  # below those that the kernel gives to outgoing connections
ANSWER_SECONDS = 30.0
LOG_LINES = 40


class Missing(Exception):
    """A server's program is not installed."""


class Broken(Exception):
    """A server did not do what it should; the message ends with the end of its log."""


def fail_or_skip(missing: Missing, environment: Mapping[str, str]) -> NoReturn:
    """Skip the test, but in CI fail it: there everything must be tested."""
    if environment.get("CI") == "true":
        pytest.fail(str(missing), pytrace=False)
    pytest.skip(str(missing))


def find_program(package: str, *patterns: str) -> Path:
    """The newest program that fits one of the patterns; raises Missing where there is none."""
    found = [path for pattern in patterns for path in Path("/").glob(pattern) if os.access(path, os.X_OK)]
    if not found:
        raise Missing(f"{package} is not installed: run `make services` or `sudo apt-get install {package}`")
    return max(found, key=lambda path: [int(number) for number in re.findall(r"\d+", str(path))])


def take_port() -> int:
    """A port that nothing listens on, and that no other test process takes as long as this one lives."""
    while True:
        port = PORTS[secrets.randbelow(len(PORTS))]
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0crochet-tests-{port}")  # an abstract name: one owner, and gone with its process
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((HOST, port))
        except OSError:
            claim.close()
        else:
            claim.detach()  # stays open: the port is kept while its server is down, too
            return port


class Server(ABC):
    """One server and its data in `folder`. Not for use by several threads at once."""

    gentle: ClassVar[signal.Signals] = signal.SIGTERM  # what makes it stop
    last: ClassVar[signal.Signals] = signal.SIGKILL  # what it gets when the test process is gone

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log = self.folder / "server.log"
        self.port = take_port()
        self._password = secrets.token_hex(12)  # other users of the machine reach the port, too
        self._keeper: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str: ...

    @abstractmethod
    def _launch(self) -> subprocess.Popen[bytes]:
        """Start the server's keeper."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server completes a handshake. May raise OSError."""

    @property
    def running(self) -> bool:
        return self._keeper is not None and self._keeper.poll() is None

    def processes(self) -> list[psutil.Process]:
        """All processes of the server, and first the one that keeps them together."""
        if self._keeper is None or not self.running:
            return []
        parent = psutil.Process(self._keeper.pid)
        return [parent, *parent.children(recursive=True)]

    def start(self) -> None:
        """Return when the server answers; do nothing if it runs. Raises Broken."""
        if self.running:
            return
        launched = self._keeper = self._launch()

        def answers() -> bool:
            if launched.poll() is not None:
                raise self.broken(f"ended with status {launched.returncode} instead of starting")
            return self._ready()

        try:
            eventually(answers, report=self.tail)
        except AssertionError:
            self.kill()
            raise

    def stop(self) -> None:
        """Shut the server down in good order, so that it keeps what it has; do nothing if it does not run."""
        self._end(self.gentle)

    def kill(self) -> None:
        """End all processes of the server at once, as a power cut would; do nothing if there are none."""
        if self._keeper is not None:
            self._keeper.send_signal(keeper.KILL_ALL)
            self._keeper.wait(SECONDS)

    def tail(self) -> str:
        """The last lines of the log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-LOG_LINES:])

    def broken(self, what: str) -> Broken:
        return Broken(f"{type(self).__name__} {what}; {self.log} ends:\n{self.tail()}")

    def _end(self, number: signal.Signals) -> None:
        if self._keeper is None or not self.running:
            return
        self._keeper.send_signal(number)
        try:
            self._keeper.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self.broken(f"did not stop within {SECONDS:g} s and was killed") from None

    def _ready(self) -> bool:
        try:
            return self._answers()
        except OSError:
            return False

    def _command(self, program: Path, arguments: Sequence[str], account: privileges.Account) -> list[str]:
        numbers = [os.getpid(), account.uid, account.gid, int(self.last)]
        script = [sys.executable, "-I", "-S", keeper.__file__]
        return [*script, *map(str, numbers), str(program), *arguments]

    def _spawn(
        self,
        program: Path,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        stdin: int = subprocess.DEVNULL,
        handles: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._command(program, arguments, self._account()),
                cwd="/",
                env=environment,  # and nothing of ours
                pass_fds=handles,
                stdin=stdin,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for us alone
            )

    def _account(self) -> privileges.Account:
        return privileges.Account(os.geteuid(), os.getegid())
