"""The HTTP server of the API: Granian's processes, each with an application of its own (docs/adr/0016)."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import multiprocessing
import os
import resource
import signal
import socket
import time
from collections.abc import Callable

from flask import Flask
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import Server

from api import process
from api.asgi import Buffered, Limits, Receive, Scope, Send
from api.connections import Connections
from crochet_tasks import net, telemetry
from crochet_tasks.services.setup import imported
from crochet_tasks.settings import Settings

WORKERS = 2
HEAD_SECONDS = 5
"""in which the head of a request must arrive, and the next request on an open connection"""
HEAD_BYTES = 64 * 1024
CONNECTIONS, OTHER_FILES = 4096, 256
"""of one process at the same time; and what it opens for itself"""
UNACKNOWLEDGED_SECONDS = 30
"""after which a connection is ended whose client acknowledges no data"""
BACKLOG = 4096
"""connections that wait to be accepted; the kernel's net.core.somaxconn is the most"""
ROOM_SECONDS, BUSY_SECONDS = 0.1, 0.01
"""between checks of how many connections are open; and where some had to be ended"""
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def serve(settings: Settings, address: tuple[str, int], make: Callable[[], Flask], ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, then end within CROCHET_DRAIN. `address`: an IP address and a port.

    `make` is called in each process, `ready` once, in the first that listens.
    """
    imported()
    reader, writer = os.pipe()
    os.write(writer, b"1")
    os.close(writer)
    parent, connections = os.getpid(), _connections()

    def listens() -> None:
        if os.read(reader, 1):
            ready()

    def load() -> _Process:
        _begin(settings)
        return _Process(make(), connections, address[1], listens)

    multiprocessing.set_start_method("fork", force=True)
    os.register_at_fork(after_in_child=lambda: _follow_parent(parent))
    server = Server(
        "crochet_tasks.services.http_server",
        *address,
        interface=Interfaces.ASGI,
        loop=Loops.asyncio,
        workers=WORKERS,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=connections,
        http1_settings=HTTP1Settings(header_read_timeout=1000 * HEAD_SECONDS, max_buffer_size=HEAD_BYTES),
        respawn_failed_workers=True,
        workers_kill_timeout=max(1, int(settings.drain * 0.8)),
        log_level=LogLevels.warning,
        log_dictconfig={"incremental": True, "handlers": {}, "loggers": {"_granian": {"propagate": True}}},
    )
    server.serve(target_loader=load, wrap_loader=False)


def _connections() -> int:
    """How many a process may have: as many as there are file descriptors for, with a temporary file for each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 1 << 16 if hard == resource.RLIM_INFINITY else min(hard, 1 << 16)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(64, min(CONNECTIONS, (files - OTHER_FILES) // 2))


def _follow_parent(parent: int) -> None:
    """In a process just forked: end when the parent says so, at once until Granian serves, or when it is gone."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the parent's handler, which only sets a flag
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the parent gets it, too
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class _Process:
    """What one server process runs: the application, from its begin to its end (ASGI's lifespan)."""

    def __init__(self, flask: Flask, connections: int, port: int, listens: Callable[[], None]) -> None:
        self._flask, self._port, self._listens = flask, port, listens
        self._connections = Connections(port, connections)
        limits = Limits(int(flask.config["MAX_CONTENT_LENGTH"]), connections // 4)
        self._buffered = Buffered(self._flask.wsgi_app, limits, self._connections)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._buffered(scope, receive, send)
            return
        await receive()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        await send({"type": "lifespan.startup.complete"})
        while not _bound_listener(self._port):
            await asyncio.sleep(0.005)
        self._listens()
        room = asyncio.create_task(self._keep_room())
        await receive()
        room.cancel()
        self._buffered.close()
        await asyncio.to_thread(end_process, self._flask)
        await send({"type": "lifespan.shutdown.complete"})

    async def _keep_room(self) -> None:
        """Granian accepts no connection where as many are open as may be, so there must always be room for others."""
        while True:
            began = time.thread_time()
            pause = BUSY_SECONDS if self._connections.make_room() else ROOM_SECONDS
            await asyncio.sleep(max(pause, 4 * (time.thread_time() - began)))


def _begin(settings: Settings) -> None:
    """In each server process, before its application is made."""
    telemetry.begin("api", settings)


def end_process(flask: Flask) -> None:
    """In each server process, when its last request is answered."""
    try:
        process.close(flask)
    finally:
        telemetry.end()


def _bound_listener(port: int) -> bool:
    """Whether this process listens; its connections are then ended by the kernel where clients acknowledge no data."""
    for found in net.open_sockets():
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and found.getsockname()[1] == port:
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * UNACKNOWLEDGED_SECONDS)
            return True
    return False
