"""Clients that try to keep others from being answered: `python -m tests.support.attacks PORT NAME KEY`, or `attack`.

A process of its own, so that it takes no time of the honest clients'. It writes OPEN when all its connections were
opened and WHOLE when it has sent what belongs to the attack, goes on until its standard input ends, and then writes
what it did as JSON. Nothing of the project is imported.
"""

from __future__ import annotations

import contextlib
import json
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

HEAD = b"POST /v1/tokens/refresh HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
WITH_BODY = HEAD + b"Content-Length: 100\r\n\r\n"
WITH_KEY = HEAD + b"Authorization: Bearer KEY\r\nContent-Length: 100\r\n\r\n"
HALF_HEAD = b"GET /v1"
ROOT = Path(__file__).parents[2]
OPEN, WHOLE = b"open\n", b"whole\n"


class Attack(NamedTuple):
    """So many connections. `first` is sent on each once it is open, and then `data`, up to `rate` bytes a second on all
    of them together; one that the server answers or ends is opened again. `at_once`: data is sent once on each, when
    all are open. KEY in `first` becomes a valid API key.
    """

    connections: int
    first: bytes
    data: bytes = b""
    rate: float = 0.0
    at_once: bool = False


ATTACKS = {
    "one-byte chunks, 4 connections": Attack(4, CHUNKED, b"1\r\nx\r\n" * 10_000, 4e6),
    "one-byte chunks, 32 connections": Attack(32, CHUNKED, b"1\r\nx\r\n" * 10_000, 32e6),
    "empty lines, 4 connections": Attack(4, b"", b"\r\n" * 30_000, 2e6),
    "empty lines, 32 connections": Attack(32, b"", b"\r\n" * 30_000, 16e6),
    "a burst of empty lines, 1800 connections": Attack(1800, b"", b"\r\n" * 30_000, at_once=True),
    "nothing sent, 2150 connections": Attack(2150, b""),
    "half heads, 2150 connections": Attack(2150, HALF_HEAD),
    "heads without bodies, 2150 connections": Attack(2150, WITH_BODY),
    "heads without bodies with a key, 2150 connections": Attack(2150, WITH_KEY),
    "slow bodies, 1300 connections": Attack(1300, WITH_BODY, b"x", 1300.0),
    "slow bodies with a key, 1300 connections": Attack(1300, WITH_KEY, b"x", 1300.0),
}


class _Attackers:
    def __init__(self, port: int, attack: Attack, key: str) -> None:
        self._port, self._attack = port, attack
        self._first = attack.first.replace(b"KEY", key.encode())
        self._open: dict[int, socket.socket] = {}
        self._poll = select.epoll()
        self.done = {"opened": 0, "sent": 0, "ended": 0}

    def run(self, ended: Callable[[float], bool], report: Callable[[bytes], None]) -> None:
        attack, done, whole = self._attack, self.done, False
        while done["opened"] < attack.connections and not ended(0.0):
            self._connect()
        report(OPEN)
        if attack.at_once:
            for client in list(self._open.values()):
                self._send(client, attack.data)
        began = time.monotonic()
        while not ended(0.002):
            if not whole and done["sent"] >= len(attack.data):
                report(WHOLE)
                whole = True
            for number, _ in self._poll.poll(0):
                self._close(self._open[number])
            while len(self._open) < attack.connections and self._connect():
                pass
            for client in list(self._open.values()) if attack.rate else []:
                if done["sent"] > attack.rate * (time.monotonic() - began) + len(attack.data):
                    break
                self._send(client, attack.data)

    def _connect(self) -> bool:
        client = socket.socket()
        client.settimeout(1.0)
        try:
            client.connect(("127.0.0.1", self._port))
            client.setblocking(False)
            client.send(self._first)
        except OSError:
            client.close()
            return False
        self._open[client.fileno()] = client
        self._poll.register(client, select.EPOLLIN)
        self.done["opened"] += 1
        return True

    def _send(self, client: socket.socket, data: bytes) -> None:
        try:
            self.done["sent"] += client.send(data)
        except BlockingIOError:
            pass
        except OSError:
            self._close(client)

    def _close(self, client: socket.socket) -> None:
        self.done["ended"] += 1
        del self._open[client.fileno()]
        client.close()


class Attacking:
    """An attack that goes on. `done`, when it has ended: how many connections and bytes."""

    def __init__(self, output: IO[bytes]) -> None:
        self._output, self._whole = output, False
        self.done: dict[str, Any] = {}

    def is_whole(self) -> bool:
        """Whether all connections were opened and the data was sent, or the server has ended connections."""
        if not self._whole and select.select([self._output], [], [], 0)[0]:
            assert self._output.readline() == WHOLE
            self._whole = True
        return self._whole


@contextlib.contextmanager
def attack(port: int, name: str, key: str = "none") -> Iterator[Attacking]:
    """While this attack goes on: all of its connections were opened, and the data follows."""
    command = [sys.executable, "-S", "-m", "tests.support.attacks", str(port), name, key]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == OPEN
            attacking = Attacking(process.stdout)
            yield attacking
            process.stdin.close()
            attacking.done.update(json.loads(process.stdout.readlines()[-1]))
        finally:
            process.kill()


def main() -> None:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    attackers = _Attackers(int(sys.argv[1]), ATTACKS[sys.argv[2]], sys.argv[3])

    def report(line: bytes) -> None:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()

    attackers.run(lambda seconds: bool(select.select([sys.stdin], [], [], seconds)[0]), report)
    report(json.dumps(attackers.done).encode() + b"\n")


if __name__ == "__main__":
    main()
