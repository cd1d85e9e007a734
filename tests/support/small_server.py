"""The API's HTTP server with a small application: `python -m tests.support.small_server PORT FOLDER [SECONDS]`.

It writes READY to standard output. Routes that wait do so until a file named after them is in FOLDER. A head may take
SECONDS.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from flask import Flask, Response

from crochet_tasks.services import http_server
from crochet_tasks.settings import Settings
from tests.support.asgi import digesting
from tests.support.waiting import eventually

LARGEST = 1_000_000
HUGE = 20_000_000
"""bytes of an answer: more than any socket takes by itself"""
HEAD_SECONDS = 2
READY = "serves"


def application(folder: Path) -> Flask:
    app = digesting(LARGEST)

    @app.get("/huge")
    def huge() -> bytes:
        return b"x" * HUGE

    @app.get("/broken")
    def broken() -> Response:
        return Response(breaks_off())

    @app.get("/wait/<name>")
    def wait(name: str) -> str:
        (folder / f"{name}-begun").touch()
        eventually((folder / name).exists)
        return name

    return app


def breaks_off() -> Iterator[bytes]:
    yield b"the beginning"
    raise ConnectionResetError("the rest is missing")


def say_ready() -> None:
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()


def main() -> None:
    http_server.HEAD_SECONDS = int(sys.argv[3]) if sys.argv[3:] else HEAD_SECONDS
    folder = Path(sys.argv[2])
    address = ("127.0.0.1", int(sys.argv[1]))
    http_server.serve(Settings(), address, lambda: application(folder), say_ready)


if __name__ == "__main__":
    main()
