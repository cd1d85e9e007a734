"""A TCP proxy in front of a server, with which tests cut, stall and slow its connections, or leave them half open.

with proxied(rabbitmq.port) as proxy:
    url = proxy.before(rabbitmq.url)
    proxy.stall()
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit, urlunsplit

from tests.support.server import HOST, take_port

Answer = TypeVar("Answer")

CHUNK_BYTES = 16 * 1024
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with which a socket is closed by RST, as after a crash, instead of FIN"""


class Pair(NamedTuple):
    """One proxied connection: to the client and to the server, and what forwards between them."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    forwarding: asyncio.Future[tuple[None, None]]


class Proxy:
    """Forwards to a port of this machine, in a thread of its own. What it does to connections it does at once."""

    def __init__(self, to: int) -> None:
        self.port = take_port()
        self._to = to
        self._pairs: list[Pair] = []
        self._silent: list[asyncio.StreamWriter] = []
        self._bytes_per_second = 0
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._ready = threading.Event()
        self._thread.start()
        self._ready.wait()

    def before(self, url: str) -> str:
        """The URL of a server, by way of this proxy."""
        parts = urlsplit(url)
        login, _, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{login}@{HOST}:{self.port}" if login else f"{HOST}:{self.port}"))

    @property
    def connections(self) -> int:
        return self._call(lambda: len(self._pairs))

    def cut(self) -> int:
        """Reset all connections on both sides; how many. New ones are forwarded."""
        return self._call(lambda: self._end(self._pairs))

    def half_open(self) -> int:
        """The server loses all its clients, and they do not hear of it: their connections stay, and are silent."""

        def leave() -> int:
            number = len(self._pairs)
            for pair in self._pairs:
                pair.forwarding.cancel()
                _reset(pair.server)
                self._silent.append(pair.client)
            self._pairs.clear()
            return number

        return self._call(leave)

    def stall(self) -> None:
        """Forward nothing more, in no direction, until `heal`; new connections are taken and get no answer."""
        self._call(self._open.clear)

    def slow(self, bytes_per_second: int) -> None:
        """Forward no more than that in each direction of each connection, until `heal`."""

        def slower() -> None:
            self._bytes_per_second = bytes_per_second

        self._call(slower)

    def heal(self) -> None:
        """Forward all again. What is half open stays so."""

        def well() -> None:
            self._bytes_per_second = 0
            self._open.set()

        self._call(well)

    def close(self) -> None:
        def end() -> None:
            self._end(self._pairs)
            for writer in self._silent:
                _reset(writer)
            self._loop.stop()

        self._loop.call_soon_threadsafe(end)
        self._thread.join()

    def _call(self, act: Callable[[], Answer]) -> Answer:
        async def acting() -> Answer:
            return act()

        return asyncio.run_coroutine_threadsafe(acting(), self._loop).result()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._take, HOST, self.port, limit=CHUNK_BYTES))
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(task)
        self._loop.close()

    async def _take(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        await self._open.wait()
        try:
            answers, server = await asyncio.open_connection(HOST, self._to, limit=CHUNK_BYTES)
        except OSError:  # it does not listen: nor do we
            _reset(client)
            return
        forwarding = asyncio.gather(self._forward(reader, server), self._forward(answers, client))
        pair = Pair(client, server, forwarding)
        self._pairs.append(pair)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await forwarding
        if pair in self._pairs:
            self._pairs.remove(pair)
            client.close()
            server.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until one side ends; then the other does, too."""
        while data := await reader.read(CHUNK_BYTES):
            if self._bytes_per_second:
                await asyncio.sleep(len(data) / self._bytes_per_second)
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        await self._open.wait()
        raise EndOfFile

    def _end(self, pairs: list[Pair]) -> int:
        number = len(pairs)
        for pair in pairs:
            pair.forwarding.cancel()
            _reset(pair.client)
            _reset(pair.server)
        pairs.clear()
        return number


class EndOfFile(OSError):
    """One side has closed its connection."""


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


@contextlib.contextmanager
def proxied(to: int) -> Iterator[Proxy]:
    proxy = Proxy(to)
    try:
        yield proxy
    finally:
        proxy.close()
