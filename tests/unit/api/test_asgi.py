"""The API's ASGI side, without a server: which requests a thread gets, and what becomes of the others."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, request

from api import asgi
from api.asgi import Buffered, Limits, received_at
from api.connections import Client
from tests.support import asgi as support
from tests.support.asgi import CLIENT, GENEROUS, Exchange, Message

LARGEST = 100_000
LIMITS = Limits(LARGEST, 10)
KEY = (b"authorization", b"Bearer a-key")


def application() -> Flask:
    app = support.digesting(LARGEST)

    @app.get("/environ")
    def environ() -> dict[str, str]:
        return {name: str(value) for name, value in request.environ.items() if name.isupper()}

    @app.get("/stream")
    def stream() -> Response:
        return Response(iter([b"one", b"", b"two"]))

    @app.get("/broken")
    def broken() -> Response:
        return Response(breaks_off())

    @app.get("/large")
    def large() -> bytes:
        return b"x" * (3 * asgi.PIECE_BYTES)

    return app


def breaks_off() -> Iterator[bytes]:
    yield b"one"
    raise ConnectionResetError("its key was revoked")


def post(body: Iterable[bytes | None], *headers: tuple[bytes, bytes], announced: int | None = None) -> Exchange:
    return support.post(b"/digest", body, *headers, announced=announced)


@pytest.fixture(autouse=True)
def _no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "LINGER_BYTES", 0)


def answered(*exchanges: Exchange) -> list[Client]:
    return support.answered(application().wsgi_app, LIMITS, *exchanges)


def run(step: Callable[[Buffered], Awaitable[None]], limits: Limits | None = None) -> list[Client]:
    return support.run(application().wsgi_app, limits or LIMITS, step)


def digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


# ── requests ────────────────────────────────────────────────────────────────────────────────────


def test_the_application_reads_what_was_sent() -> None:
    """In one piece or many, with a length or without, in memory or in a file, up to the largest allowed."""
    largest = b"x" * LARGEST
    exchanges = [
        post([b"abc"], announced=3),
        post([b"a", b"b", b"c"]),
        post([b""]),
        post([largest[:70_000], largest[70_000:]], KEY, announced=LARGEST),
        post([largest], KEY),
    ]
    answered(*exchanges)
    expected = [b"abc", b"abc", b"", largest, largest]
    assert [(each.status, each.body) for each in exchanges] == [(200, digest(body)) for body in expected]


def test_a_body_too_large_is_refused_and_not_read() -> None:
    """Announced: at once; in chunks: at the limit. Without a key or a session the limit is small."""
    announced = post([b"x"], KEY, announced=LARGEST + 1)
    chunked = post([b"x" * 40_000] * 10, KEY)
    anonymous = post([b"x"], announced=asgi.ANONYMOUS_BYTES + 1)
    anonymous_chunked = post([b"x" * 3_000] * 10)
    fits = post([b"x" * asgi.ANONYMOUS_BYTES], announced=asgi.ANONYMOUS_BYTES)
    session = post([b"x" * 40_000], (b"cookie", b"theme=dark; crochet_session=signed"))
    answered(announced, chunked, anonymous, anonymous_chunked, fits, session)
    assert [each.status for each in (announced, chunked, anonymous, anonymous_chunked)] == [413] * 4
    assert (fits.status, session.status) == (200, 200)


def test_a_body_that_breaks_off_is_refused() -> None:
    """Its beginning is not taken for the whole."""
    exchanges = [post([b"ab", None], announced=3), post([b"ab", None])]
    for each in exchanges:
        each.ends = False
    answered(*exchanges)
    assert [(each.status, each.body) for each in exchanges] == [(400, b"malformed_request")] * 2


def test_a_body_that_comes_too_slowly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.0)
    late = post([], announced=3)
    assert answered(late) == [CLIENT]
    assert (late.status, late.body) == (408, b"request_timed_out")


def test_a_connection_ends_whose_request_was_answered_before_it_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server would wait for the rest without a limit. One that sends the rest soon goes on."""
    rest = post([b"x"], KEY, announced=LARGEST + 1)
    silent = post([], KEY, announced=LARGEST + 1)
    monkeypatch.setattr(asgi, "LINGER_BYTES", 1)
    monkeypatch.setattr(asgi, "LINGER_SECONDS", GENEROUS)
    assert answered(rest) == []
    monkeypatch.setattr(asgi, "LINGER_SECONDS", 0.0)
    assert answered(silent) == [CLIENT]
    assert [rest.status, silent.status] == [413, 413]


def test_a_body_in_tiny_pieces_is_refused() -> None:
    """Each piece costs a step of the loop that all clients share; a body in small but sensible pieces is taken."""
    tiny = post([b"x"] * (asgi.TINY_PIECES + 2), KEY)
    tiny.ends = False
    small = post([b"x" * asgi.TINY_BYTES] * (asgi.TINY_PIECES + 2), KEY)
    few = post([b"x"] * asgi.TINY_PIECES, KEY)
    answered(tiny, small, few)
    assert [tiny.status, small.status, few.status] == [400, 200, 200]
    assert tiny.received == asgi.TINY_PIECES + 1


def test_the_oldest_body_gives_way_when_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """In number or in bytes: it is answered 503, and the others go on."""

    async def step(buffered: Buffered) -> None:
        slow = [post([b"x" * LARGEST], KEY, announced=LARGEST + 1) for _ in range(3)]
        tasks = []
        for each in slow:
            each.scope["headers"] = [KEY, (b"host", b"here"), (b"transfer-encoding", b"chunked")]
            each.ends = False
            tasks.append(asyncio.create_task(buffered(each.scope, each.receive, each.send)))
            while each.received < LARGEST:
                await asyncio.sleep(0)
        await tasks[0]
        assert (slow[0].status, slow[0].body) == (503, b"")
        assert (b"retry-after", b"1") in slow[0].sent[0]["headers"]
        for each in slow[1:]:
            each.ends = True
            each.more.put_nowait(b"")
        await asyncio.gather(*tasks)
        assert [each.body for each in slow[1:]] == [digest(b"x" * LARGEST)] * 2

    run(step, Limits(LARGEST, 2))
    monkeypatch.setattr(asgi, "ROOM_BYTES", 0)
    monkeypatch.setattr(asgi, "LARGEST_AT_ONCE", 2)
    run(step, Limits(LARGEST, 100))


def test_no_thread_waits_for_a_body() -> None:
    """There is one thread, and ten bodies are on their way."""

    async def step(buffered: Buffered) -> None:
        slow = [post([b"x"], announced=3) for _ in range(10)]
        for each in slow:
            each.ends = False
        tasks = [asyncio.create_task(buffered(each.scope, each.receive, each.send)) for each in slow]
        while not all(each.received for each in slow):
            await asyncio.sleep(0)
        quick = Exchange()
        await buffered(quick.scope, quick.receive, quick.send)
        assert quick.status == 200
        for each in slow:
            each.ends = True
            each.more.put_nowait(b"yz")
        await asyncio.gather(*tasks)
        assert {each.body for each in slow} == {digest(b"xyz")}

    run(step)


def test_the_wait_for_a_thread_counts() -> None:
    """A client waits since its request was whole, not since a thread had time for it."""
    free, asked = threading.Event(), list[float]()

    def wsgi(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        assert free.wait(GENEROUS)
        asked.append(received_at(environ))
        start("204 No Content", [])
        return []

    async def step(buffered: Buffered) -> None:
        exchanges = [Exchange(), Exchange()]
        tasks = [asyncio.create_task(buffered(each.scope, each.receive, each.send)) for each in exchanges]
        await asyncio.sleep(0)
        before = asyncio.get_running_loop().time()
        free.set()
        await asyncio.gather(*tasks)
        assert max(asked) <= before

    support.run(wsgi, LIMITS, step)


# ── the WSGI environment ─────────────────────────────────────────────────────────────────────────


def test_headers_cannot_pass_for_others() -> None:
    """Neither route, nor scheme, nor address comes from a header; names with underscores are dropped."""
    forged = [
        (b"script_name", b"/v1"),
        (b"script-name", b"/v1"),
        (b"x_forwarded_for", b"6.6.6.6"),
        (b"remote-addr", b"6.6.6.6"),
        (b"x-forwarded-proto", b"https"),
    ]
    asked = Exchange(headers=forged)
    answered(asked)
    found = json.loads(asked.body)
    assert (found["SCRIPT_NAME"], found["PATH_INFO"], found["REMOTE_ADDR"]) == ("", "/environ", "127.0.0.1")
    assert "HTTP_X_FORWARDED_FOR" not in found


def test_the_address_is_passed_on_as_it_was_sent_too() -> None:
    """Signatures are of it, and what is refused depends on it."""
    asked = Exchange(path=b"/en%76iron?a=%2f")
    answered(asked)
    assert json.loads(asked.body)["REQUEST_URI"] == "/en%76iron?a=%2f"


def test_a_long_address_is_refused() -> None:
    asked = Exchange(path=b"/" + b"x" * asgi.ADDRESS_BYTES)
    answered(asked)
    assert asked.status == 414


# ── answers ─────────────────────────────────────────────────────────────────────────────────────


def test_answers_are_sent_in_pieces_and_streams_as_they_come() -> None:
    large, stream, head = Exchange(path=b"/large"), Exchange(path=b"/stream"), Exchange("HEAD", b"/large")
    stream.ends = False
    answered(large, stream, head)
    assert [len(message.get("body", b"")) for message in large.sent] == [0, *[asgi.PIECE_BYTES] * 3]
    assert [message["more_body"] for message in large.sent[1:]] == [True, True, False]
    parts = [(message["body"], message["more_body"]) for message in stream.sent[1:]]
    assert parts == [(b"one", True), (b"two", True), (b"", False)]
    assert (head.status, head.body) == (200, b"")


def test_a_stream_that_breaks_off_ends_its_connection() -> None:
    """Else its client would take the beginning for the whole."""
    asked = Exchange(path=b"/broken")
    asked.ends = False
    assert answered(asked) == [CLIENT]
    assert (asked.body, asked.sent[-1]["more_body"]) == (b"one", True)


def test_a_client_that_takes_nothing_loses_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a whole answer as with a stream; and the thread is free."""
    monkeypatch.setattr(asgi, "TAKE_SECONDS", -3 * asgi.PIECE_BYTES / asgi.TAKE_BYTES)
    monkeypatch.setattr(asgi, "STREAM_SECONDS", 0.0)
    stuck = [Exchange(path=b"/large"), Exchange(path=b"/stream")]

    async def blocked(_: Message) -> None:
        await asyncio.Event().wait()

    async def step(buffered: Buffered) -> None:
        for each in stuck:
            await buffered(each.scope, each.receive, blocked)
        quick = Exchange()
        await buffered(quick.scope, quick.receive, quick.send)
        assert quick.status == 200

    assert run(step) == [CLIENT] * 2


def test_a_stream_ends_with_its_client() -> None:
    """What makes it is closed."""
    closed, gone = threading.Event(), threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"more"
                gone.wait(0.001)
        finally:
            closed.set()

    def wsgi(_: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes]:
        start("200 OK", [("Content-Type", "text/event-stream")])
        return endless()

    async def step(buffered: Buffered) -> None:
        asked = Exchange()
        task = asyncio.create_task(buffered(asked.scope, asked.receive, asked.send))
        while len(asked.sent) < 3:
            await asyncio.sleep(0)
        asked.more.put_nowait(None)
        await task

    support.run(wsgi, LIMITS, step)
    assert closed.is_set()
