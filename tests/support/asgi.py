"""Requests to the API's ASGI side without a server: what arrives is given, what is sent is kept."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from flask import Flask, request

from api.asgi import Buffered, Limits, Wsgi
from api.connections import Client, Connections
from crochet_tasks.errors import CrochetError

CLIENT = ("127.0.0.1", 50000)
GENEROUS = 60.0
"""seconds for what takes none, so that a fault does not hang"""
Message = dict[str, Any]


def digesting(largest: int) -> Flask:
    """An application that reads bodies of up to so many bytes; tests add what else it does."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = largest
    app.register_error_handler(CrochetError, lambda error: (error.code, error.status))

    @app.post("/digest")
    def digest() -> str:
        return hashlib.sha256(request.get_data()).hexdigest()

    return app


class NoConnections(Connections):
    """Of a server that there is not: which ones were ended."""

    def __init__(self) -> None:
        super().__init__(0, 1)
        self.ended: list[Client] = []

    def end(self, client: Client) -> None:
        self.ended.append(client)


class Exchange:
    """One request as a server hands it on: `arriving` are the pieces of its body, None where the client goes."""

    def __init__(
        self,
        method: str = "GET",
        path: bytes = b"/environ",
        headers: Iterable[tuple[bytes, bytes]] = (),
        arriving: Iterable[bytes | None] = (),
        *,
        host: bytes | None = b"here",
    ) -> None:
        named = [*([] if host is None else [(b"host", host)]), *headers]
        self.scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "raw_path": path.partition(b"?")[0],
            "query_string": path.partition(b"?")[2],
            "headers": named,
            "client": (CLIENT[0], str(CLIENT[1])),  # as Granian writes it
            "server": ("127.0.0.1", 8080),
        }
        self.received = 0
        self.sent: list[Message] = []
        self.more: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.ends = True
        for piece in arriving:
            self.more.put_nowait(piece)

    async def receive(self) -> Message:
        piece = await self.more.get()
        if piece is None:
            return {"type": "http.disconnect"}
        self.received += len(piece)
        return {"type": "http.request", "body": piece, "more_body": not (self.ends and self.more.empty())}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def post(
    path: bytes, body: Iterable[bytes | None], *headers: tuple[bytes, bytes], announced: int | None = None
) -> Exchange:
    """A body in chunks, or one whose length is announced."""
    framed = (b"transfer-encoding", b"chunked") if announced is None else (b"content-length", b"%d" % announced)
    return Exchange("POST", path, [framed, *headers], body)


def run(wsgi: Wsgi, limits: Limits, step: Callable[[Buffered], Awaitable[None]]) -> list[Client]:
    """Do something with an application that has one thread, which ends with it; whose connections were ended."""
    connections = NoConnections()

    async def within() -> None:
        buffered = Buffered(wsgi, limits, connections, threads=1)
        try:
            async with asyncio.timeout(GENEROUS):
                await step(buffered)
        finally:
            buffered.close()

    asyncio.run(within())
    return connections.ended


def answered(wsgi: Wsgi, limits: Limits, *exchanges: Exchange) -> list[Client]:
    """Answer all of them, one after the other; whose connections were ended."""

    async def step(buffered: Buffered) -> None:
        for each in exchanges:
            await buffered(each.scope, each.receive, each.send)

    return run(wsgi, limits, step)
