"""Clients that try to keep others from being answered: `python -m tests.support.attacks PORT NAME`, or `attack`.

A process of its own, so that it takes no time of the honest clients'. It writes a line when it is at full strength,
goes on until its standard input ends, and then writes what it did as JSON. Nothing of the project is imported.
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
from typing import Any, NamedTuple

HEAD = b"POST /v1/tokens/refresh HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
WITH_BODY = HEAD + b"Content-Length: 100\r\n\r\n"
ROOT = Path(__file__).parents[2]


class Attack(NamedTuple):
    """So many connections. `first` is sent on each once it is open, and then `data`, up to `rate` bytes a second on all
    of them together; one that the server ends is opened again. `at_once`: data is sent once, when all are open.
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
    "heads without bodies, 2150 connections": Attack(2150, WITH_BODY),
    "slow bodies, 1300 connections": Attack(1300, WITH_BODY, b"x", 1300.0),
}


class _Attackers:
    def __init__(self, port: int, attack: Attack) -> None:
        self._port, self._attack = port, attack
        self._open: list[socket.socket] = []
        self.done = {"opened": 0, "sent": 0, "ended": 0}

    def run(self, ended: Callable[[float], bool], begun: Callable[[], None]) -> None:
        attack = self._attack
        while len(self._open) < attack.connections and not ended(0.0):
            self._connect()
        begun()
        if attack.at_once:
            for client in list(self._open):
                self._send(client, attack.data)
        began = time.monotonic()
        while not ended(0.002):
            while attack.rate and len(self._open) < attack.connections and self._connect():
                pass
            for client in list(self._open) if attack.rate else []:
                if self.done["sent"] > attack.rate * (time.monotonic() - began) + len(attack.data):
                    break
                self._send(client, attack.data)

    def _connect(self) -> bool:
        client = socket.socket()
        client.settimeout(1.0)
        try:
            client.connect(("127.0.0.1", self._port))
            client.setblocking(False)
            client.send(self._attack.first)
        except OSError:
            client.close()
            return False
        self._open.append(client)
        self.done["opened"] += 1
        return True

    def _send(self, client: socket.socket, data: bytes) -> None:
        try:
            self.done["sent"] += client.send(data)
        except BlockingIOError:
            pass
        except OSError:
            self.done["ended"] += 1
            self._open.remove(client)
            client.close()


@contextlib.contextmanager
def attack(port: int, name: str) -> Iterator[dict[str, Any]]:
    """While this attack goes on; afterwards what it did."""
    command = [sys.executable, "-S", "-m", "tests.support.attacks", str(port), name]
    done: dict[str, Any] = {}
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "begun\n"
            yield done
            process.stdin.close()
            done.update(json.loads(process.stdout.read()))
        finally:
            process.kill()


def main() -> None:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    attackers = _Attackers(int(sys.argv[1]), ATTACKS[sys.argv[2]])

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    attackers.run(lambda seconds: bool(select.select([sys.stdin], [], [], seconds)[0]), lambda: say("begun"))
    say(json.dumps(attackers.done))


if __name__ == "__main__":
    main()
