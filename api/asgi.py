"""The API as an ASGI application: the event loop reads requests and writes answers, threads only compute.

A request is gathered before a thread works on it, and an answer is complete before it is sent, so no slow client holds
a thread. What waits in the loop is bounded in bytes, number and time. Only streams (exports, events) keep their thread
for as long as their client takes them; of these few may run at once. Why: docs/adr/0016.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from api.connections import Connections
from crochet_tasks.errors import CrochetError, MalformedRequest, RequestTimedOut, RequestTooLarge, TooBusy

THREADS = 8
"""of one process, that compute answers"""
BODY_SECONDS = 30.0
"""in which a body must arrive, counted from the end of the head"""
IN_MEMORY_BYTES = 64 * 1024
"""of a body; a larger one is written to a temporary file"""
ANONYMOUS_BYTES = 4 * 1024
"""of a body without credentials: enough for every route that needs none"""
ROOM_BYTES, LARGEST_AT_ONCE = 64 * 1024 * 1024, 4
"""for all bodies of a process; more if so many of the largest need it"""
TINY_BYTES, TINY_PIECES = 16, 1000
"""a body that arrives in more pieces than these, smaller than these on average, is refused: each piece costs a step"""
ADDRESS_BYTES = 8190
PIECE_BYTES = 64 * 1024
"""of an answer, sent at once"""
TAKE_SECONDS, TAKE_BYTES = 30.0, 64 * 1024
"""in which a client must take an answer, and one second more for each so many bytes"""
STREAM_SECONDS = 10.0
"""for which a stream waits for a client that takes nothing"""
LINGER_SECONDS, LINGER_BYTES = 2.0, 1024 * 1024
"""for which a client that was answered early may go on sending; cut off at once it might not see the answer"""

RECEIVED_AT = "crochet.received_at"
SESSION_COOKIE = "crochet_session"
"""what pages send instead of a key"""

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def received_at(environ: Mapping[str, Any]) -> float:
    """When the request was complete (time.monotonic), so that the wait for a thread counts."""
    return float(environ.get(RECEIVED_AT) or time.monotonic())


class Limits(NamedTuple):
    """What one process holds for its clients."""

    body_bytes: int
    """the largest body"""
    bodies: int
    """requests whose bodies are awaited at the same time"""


class Body:
    """The body of one request as far as it has arrived, and then what WSGI reads it from.

    Where it did not arrive whole, reading raises `problem`.
    """

    def __init__(self, limit: int) -> None:
        self.size = 0
        self.problem: CrochetError | None = None
        self._limit, self._pieces = limit, 0
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115 - close() closes it
        self._deadline: asyncio.Timeout | None = None

    async def gather(self, receive: Receive, seconds: float, arrived: Callable[[int], None]) -> None:
        """Read until the end, a limit or the deadline; `arrived` is called with the size of each piece."""
        try:
            async with asyncio.timeout(seconds) as self._deadline:
                while self._take(await receive(), arrived):
                    pass
        except TimeoutError:
            self.problem = self.problem or RequestTimedOut(seconds=seconds)
        except OSError as error:
            self.problem = TooBusy(what=f"there is no room for the request's body: {error.strerror}", seconds=1)
        finally:
            self._deadline = None
            self._file.seek(0)

    def give_up(self) -> None:
        """Stop gathering: others need the room."""
        self.problem = TooBusy(what="too many large or slow requests arrive", seconds=1)
        if self._deadline is not None:
            self._deadline.reschedule(0.0)

    def read(self, size: int = -1) -> bytes:
        self._check()
        return self._file.read(size)

    def readline(self, size: int = -1) -> bytes:
        self._check()
        return self._file.readline(size)

    def close(self) -> None:
        self._file.close()

    def _take(self, message: dict[str, Any], arrived: Callable[[int], None]) -> bool:
        """Whether more is to come."""
        if message["type"] == "http.disconnect":
            self.problem = MalformedRequest(reason="its body broke off, or is not sent as HTTP has it")
            return False
        piece: bytes = message.get("body", b"")
        self.size += len(piece)
        self._pieces += 1
        arrived(len(piece))
        if self.size > self._limit:
            self.problem = RequestTooLarge(limit=self._limit)
        elif self._pieces > TINY_PIECES and self.size < TINY_BYTES * self._pieces:
            self.problem = MalformedRequest(
                reason=f"its body comes in pieces of less than {TINY_BYTES} bytes; send larger ones"
            )
        else:
            self._file.write(piece)
            return bool(message.get("more_body"))
        return False

    def _check(self) -> None:
        if self.problem is not None:
            raise self.problem


class Buffered:
    """A WSGI application behind ASGI: whole requests in, whole answers out, streams as they come."""

    def __init__(self, wsgi: Wsgi, limits: Limits, connections: Connections, threads: int = THREADS) -> None:
        self._wsgi, self._limits, self._connections = wsgi, limits, connections
        self._room = max(ROOM_BYTES, LARGEST_AT_ONCE * limits.body_bytes)
        self._threads = ThreadPoolExecutor(threads, "request")
        self._gathering: dict[Body, None] = {}  # the oldest first
        self._bytes = 0
        self._refusing = asyncio.Lock()  # thousands of bodies may time out in the same second: one thread is enough

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if len(scope["raw_path"]) + len(scope["query_string"]) > ADDRESS_BYTES:
            await _refuse(send, HTTPStatus.REQUEST_URI_TOO_LONG)
            return
        headers = _headers(scope)
        announced = int(headers.get("CONTENT_LENGTH", 0))
        known = "HTTP_AUTHORIZATION" in headers or f"{SESSION_COOKIE}=" in headers.get("HTTP_COOKIE", "")
        limit = self._limits.body_bytes if known else ANONYMOUS_BYTES
        client = _Client(scope, receive, send, self._connections)
        body = Body(limit)
        try:
            if announced > limit:
                body.problem = RequestTooLarge(limit=limit)
            elif announced or "HTTP_TRANSFER_ENCODING" in headers:
                with self._connections.in_use(client.address):
                    await self._gather(body, receive)
            environ = _environ(scope, headers, body)
            if body.problem is None:
                await self._answer(environ, client)
                return
            if isinstance(body.problem, TooBusy):  # cheaply: others wait, too
                await _refuse(send, HTTPStatus.SERVICE_UNAVAILABLE)
            else:
                async with self._refusing:
                    await self._answer(environ, client)
            await client.end()
        finally:
            self._bytes -= body.size
            body.close()

    def close(self) -> None:
        self._threads.shutdown()

    # ── requests ────────────────────────────────────────────────────────────────────────────────

    async def _gather(self, body: Body, receive: Receive) -> None:
        """Gather a body. Without room the oldest unfinished one is given up, so a few slow clients block no others."""
        self._gathering[body] = None
        try:
            if len(self._gathering) > self._limits.bodies:
                self._give_up_oldest()
            await body.gather(receive, BODY_SECONDS, self._arrived)
        finally:
            self._gathering.pop(body, None)

    def _arrived(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._room:
            self._give_up_oldest()

    def _give_up_oldest(self) -> None:
        for body in self._gathering:
            del self._gathering[body]
            body.give_up()
            return

    # ── answers ─────────────────────────────────────────────────────────────────────────────────

    async def _answer(self, environ: dict[str, Any], client: _Client) -> None:
        loop = asyncio.get_running_loop()
        environ[RECEIVED_AT] = time.monotonic()
        try:
            with self._connections.in_use(client.address):
                answer = await loop.run_in_executor(self._threads, self._respond, environ, client, loop)
            if answer is not None:
                await client.send_whole(*answer)
        except BaseException as error:
            client.cut()  # a normal end would look like a complete answer
            if not isinstance(error, OSError | TimeoutError):
                raise

    def _respond(
        self, environ: dict[str, Any], client: _Client, loop: asyncio.AbstractEventLoop
    ) -> tuple[int, list[tuple[str, str]], bytes] | None:
        """Run the application, in a thread. Return a complete answer; send a stream from here."""
        status, headers = 0, list[tuple[str, str]]()

        def start(line: str, response_headers: list[tuple[str, str]], _: object = None) -> None:
            nonlocal status, headers
            status, headers = int(line[:3]), response_headers

        def wait_for(step: Awaitable[None]) -> None:
            asyncio.run_coroutine_threadsafe(_awaited(step), loop).result()

        parts = self._wsgi(environ, start)
        try:
            known = any(name.lower() == "content-length" for name, _ in headers)
            if known or environ["REQUEST_METHOD"] == "HEAD" or status in (204, 304):
                return status, headers, b"".join(parts)
            wait_for(client.begin(status, headers))
            for part in parts:
                wait_for(client.send_part(part))
            wait_for(client.send_part(b"", more=False))
            return None
        finally:
            getattr(parts, "close", lambda: None)()


async def _awaited(step: Awaitable[None]) -> None:
    await step


class _Client:
    """Sends the answer to one request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, connections: Connections) -> None:
        host, port = scope["client"]
        self.address = str(host), int(port)  # Granian writes ports as texts
        self._receive, self._send, self._connections = receive, send, connections
        self._gone: asyncio.Task[None] | None = None

    async def send_whole(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Raises TimeoutError where the client does not take it in time."""
        async with asyncio.timeout(TAKE_SECONDS + len(body) / TAKE_BYTES):
            await self._start(status, headers)
            for at in range(0, max(1, len(body)), PIECE_BYTES):
                piece, more = body[at : at + PIECE_BYTES], at + PIECE_BYTES < len(body)
                await self._send({"type": "http.response.body", "body": piece, "more_body": more})

    async def begin(self, status: int, headers: list[tuple[str, str]]) -> None:
        self._gone = asyncio.ensure_future(self._watch())
        async with asyncio.timeout(STREAM_SECONDS):
            await self._start(status, headers)

    async def send_part(self, part: bytes, *, more: bool = True) -> None:
        """Raises ConnectionError or TimeoutError where the client is gone, or takes nothing."""
        if self._gone is not None and self._gone.done():
            raise ConnectionResetError("the client is gone")
        async with asyncio.timeout(STREAM_SECONDS):
            if part or not more:
                await self._send({"type": "http.response.body", "body": part, "more_body": more})
        if not more and self._gone is not None:
            self._gone.cancel()

    def cut(self) -> None:
        """End the connection at once, whatever is still to be sent.

        ASGI has no way to say that; and Granian ends a stream that breaks off as if it were complete.
        """
        if self._gone is not None:
            self._gone.cancel()
        self._connections.end(self.address)

    async def end(self) -> None:
        """End a connection whose request was answered before it was read: the server would wait for the rest of it,
        without a limit. The client may take the answer first; what it still sends is dropped.
        """
        dropped = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while dropped < LINGER_BYTES:
                    message = await self._receive()
                    dropped += len(message.get("body", b""))
                    if not message.get("more_body"):
                        return
        self._connections.end(self.address)

    async def _start(self, status: int, headers: list[tuple[str, str]]) -> None:
        encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _refuse(send: Send, status: HTTPStatus) -> None:
    headers = [(b"content-length", b"0"), (b"retry-after", b"1")][
        : 2 if status >= HTTPStatus.INTERNAL_SERVER_ERROR else 1
    ]
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


# ── the WSGI environment ────────────────────────────────────────────────────────────────────────


def _headers(scope: Scope) -> dict[str, str]:
    """By their WSGI names. One with an underscore is dropped: it would pass for another one with a hyphen."""
    found: dict[str, str] = {}
    for raw, value in scope["headers"]:
        if b"_" in raw:
            continue
        name = raw.decode("latin-1").upper().replace("-", "_")
        key = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
        text = value.decode("latin-1")
        found[key] = f"{found[key]},{text}" if key in found else text
    return found


def _environ(scope: Scope, headers: dict[str, str], body: Body) -> dict[str, Any]:
    host, port = scope["server"] or ("", 0)
    environ: dict[str, Any] = {
        **headers,
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "REQUEST_URI": b"?".join(filter(None, (scope["raw_path"], scope["query_string"]))).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "REMOTE_ADDR": scope["client"][0],
        "REMOTE_PORT": str(scope["client"][1]),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": body,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if body.problem is not None:
        environ["wsgi.input_terminated"] = True  # read it, whatever its length: that raises the problem
    elif environ.pop("HTTP_TRANSFER_ENCODING", None) is not None:
        environ["CONTENT_LENGTH"] = str(body.size)
    return environ
