"""The worker behind the API's socket, with a small application: what becomes of clients that are slow, or wrong."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import select
import selectors
import socket
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from flask import Flask, Response, request
from gunicorn.config import Config  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from api.form import BoundedInput
from crochet_tasks.errors import CrochetError
from crochet_tasks.services import gateway_flow, gateway_worker
from crochet_tasks.services.gateway_shares import NONE_MORE, Share, Shares
from crochet_tasks.services.gateway_worker import Worker
from tests.support.server import HOST

LARGEST = 1_000_000
HUGE = 20_000_000
"""bytes of an answer: more than any socket takes by itself"""
THREADS = 2
HUNG = 30.0


class Application(NamedTuple):
    """What Gunicorn's worker wants to know of it."""

    flask: Flask

    def wsgi(self) -> Flask:
        return self.flask


def application() -> Flask:
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST
    app.register_error_handler(CrochetError, lambda error: (error.code, error.status))

    @app.before_request
    def bound() -> None:
        request.environ["wsgi.input"] = BoundedInput(request.environ["wsgi.input"], HUNG, lambda: LARGEST, None)

    @app.post("/digest")
    def digest() -> str:
        return hashlib.sha256(request.get_data()).hexdigest()

    @app.get("/huge")
    def huge() -> Response:
        return Response(b"x" * HUGE)

    return app


class Gate(NamedTuple):
    """A worker that runs in a thread, and a way to it."""

    worker: Worker
    port: int
    opened: contextlib.ExitStack

    def client(self, said: bytes) -> socket.socket:
        """A connection on which this was said."""
        client = self.opened.enter_context(socket.create_connection((HOST, self.port), HUNG))
        client.sendall(said)
        return client

    def serves(self, client: socket.socket) -> bool:
        """Whether the worker has the other end of this connection, and a request or answer on it."""
        busy = [*self.worker._handed, *self.worker._taking]
        return any(conn.client == client.getsockname() for conn in busy)

    def works(self) -> bool:
        return answer(self.client(post(b"x")))[1] == digest(b"x")


@contextlib.contextmanager
def running(listener: socket.socket, shares: Shares) -> Iterator[Worker]:
    """A worker that runs in a thread until the end."""
    cfg = Config()
    for name, value in (("threads", THREADS), ("sendfile", False), ("graceful_timeout", int(HUNG))):
        cfg.set(name, value)
    flask = application()
    worker = Worker(1, os.getppid(), [listener.dup()], Application(flask), 30, cfg, Logger(cfg))
    shares.seat(worker)
    worker.wsgi = flask
    with contextlib.ExitStack() as opened:
        worker.tpool = opened.enter_context(worker.get_thread_pool())
        worker.poller = selectors.DefaultSelector()
        worker.method_queue.init()
        thread = threading.Thread(target=worker.run)
        others = list(shares.counts).count(NONE_MORE) - 1
        thread.start()
        while list(shares.counts).count(NONE_MORE) > others:
            thread.join(0.01)
            assert thread.is_alive()
        try:
            yield worker
        finally:
            worker.handle_exit(None, None)
            thread.join(HUNG)
            worker.tmp.close()
        assert not thread.is_alive()


@pytest.fixture
def gate() -> Iterator[Gate]:
    with (
        socket.create_server((HOST, 0)) as listener,
        running(listener, Shares(1)) as worker,
        contextlib.ExitStack() as clients,
    ):
        yield Gate(worker, listener.getsockname()[1], clients)


def post(body: bytes, *headers: str, length: int | None = None) -> bytes:
    announced = len(body) if length is None else length
    named = "".join(f"{each}\r\n" for each in (*headers, f"Content-Length: {announced}"))
    return f"POST /digest HTTP/1.1\r\nHost: x\r\n{named}\r\n".encode() + body


CHUNKED = b"POST /digest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def answer(client: socket.socket) -> tuple[int, bytes, bool]:
    """Of one answer the status, the body, and whether the connection goes on."""
    with client.makefile("rb", buffering=0) as said:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = said.read(1)
            assert byte, head
            head += byte
        [length] = re.findall(rb"(?i)content-length: (\d+)", head)
        body = b""
        while len(body) < int(length):
            body += said.read(int(length) - len(body)) or b""
        return int(head[9:12]), body, b"connection: close" not in head.lower()


def ended(client: socket.socket) -> bool:
    """Whether nothing more is said."""
    with contextlib.suppress(ConnectionResetError):
        return client.recv(1) == b""
    return True


def test_slow_requests_hold_no_thread_and_end(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many times as many as there are threads: others are answered meanwhile, and in the end each learns why not."""
    clients = [gate.client(post(b"12", length=3)) for _ in range(10 * THREADS)]
    assert gate.works()
    clients[0].sendall(b"3")
    assert answer(clients[0]) == (200, digest(b"123"), True)
    monkeypatch.setattr(gateway_flow, "BODY_SECONDS", 0.0)
    monkeypatch.setattr(gateway_flow, "HEAD_SECONDS", 0.3)
    late = [gate.client(post(b"12", length=3)), gate.client(CHUNKED + b"1\r\nx\r\n"), gate.client(b"POST /digest ")]
    assert [answer(client)[::2] for client in late] == [(408, False)] * 3
    assert all(map(ended, late))


def test_slowly_taken_answers_hold_no_thread_and_end(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer waits for its client outside of any thread, for so long, and if they are not too large together."""
    ask = b"GET /huge HTTP/1.1\r\nHost: x\r\n\r\n"
    patient = [gate.client(ask) for _ in range(2 * THREADS)]
    assert gate.works()
    assert len(answer(patient[0])[1]) == HUGE
    monkeypatch.setattr(gateway_worker, "OWED_BYTES", 2 * HUGE)
    more = [gate.client(ask) for _ in range(2)]
    assert gate.works()
    assert ended_early(patient[1])
    assert len(answer(more[1])[1]) == HUGE
    monkeypatch.setattr(gateway_flow, "TAKE_SECONDS", -HUGE / gateway_flow.TAKE_BYTES)
    late = gate.client(ask)
    select.select([late], [], [])  # it is being answered
    while gate.serves(late):
        assert gate.works()
    assert ended_early(late)
    assert gate.works()


def ended_early(client: socket.socket) -> bool:
    taken = 0
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(1 << 20):
            taken += len(part)
    return taken < HUGE


def test_what_is_sent_is_what_arrives(gate: Gate) -> None:
    """Small and large, whole and in chunks, one behind another, after `100 Continue`: on one connection."""
    small, large = b"small", os.urandom(LARGEST)
    client = gate.client(post(small) + post(large) + CHUNKED + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: x\r\n\r\n")
    assert [answer(client) for _ in range(3)] == [(200, digest(each), True) for each in (small, large, b"abcde")]
    client.sendall(CHUNKED + b"%x\r\n" % len(large) + large + b"\r\n0\r\n\r\n" + post(small))
    assert [answer(client) for _ in range(2)] == [(200, digest(each), True) for each in (large, small)]
    client.sendall(post(b"", "Expect: 100-continue", length=len(small)))
    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(small)
    assert answer(client) == (200, digest(small), True)
    for byte in CHUNKED + b"1\r\nx\r\n0\r\n\r\n":
        client.sendall(bytes([byte]))
    assert answer(client) == (200, digest(b"x"), True)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (post(b"", length=LARGEST + 1), 413),
        (post(b"x", "Content-Length: 1"), 400),
        (post(b"x", "Transfer-Encoding: chunked"), 400),
        (CHUNKED + b"-1\r\n", 400),
        (CHUNKED + b"1 \n", 400),
        (CHUNKED + b"x" * 10_000, 400),
        (CHUNKED + b"1\r\nab\r\n0\r\n\r\n", 400),
        (CHUNKED + b"0\r\n" + b"x: y\r\n" * 5_000, 400),
        (b"GET /digest HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000, 431),
    ],
)
def test_wrong_requests_end_their_connection(gate: Gate, sent: bytes, status: int) -> None:
    """What comes behind one is never taken for another request."""
    client = gate.client(sent + post(b"smuggled"))
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(4096):
            said += part
    assert re.findall(rb"HTTP/1.1 (\d+)", said) == [str(status).encode()]
    assert gate.works()


def test_large_requests_find_room(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who never ends makes room for others, the first first; afterwards nothing is left of any of them."""
    monkeypatch.setattr(gateway_worker, "ROOM_BYTES", 0)
    stalled = [gate.client(post(b"x" * (LARGEST - 1), length=LARGEST)) for _ in range(gateway_worker.LARGEST_AT_ONCE)]
    large = os.urandom(LARGEST)
    assert answer(gate.client(post(large))) == (200, digest(large), True)
    assert answer(stalled[0]) == (503, b"too_busy", False)
    stalled[-1].sendall(b"x")
    assert answer(stalled[-1]) == (200, digest(b"x" * LARGEST), True)
    gate.opened.close()
    worker: Any = gate.worker
    reached = threading.Event()
    while worker._room or worker.nr_conns:  # what it holds is not seen from outside
        assert not reached.wait(0.01)


CLIENTS = 40


def test_connections_are_shared_out_evenly() -> None:
    """Among all processes that accept them, however many come at once: the kernel gives most of them to one."""
    shares = Shares(2)
    with (
        socket.create_server((HOST, 0), backlog=CLIENTS) as listener,
        running(listener, shares) as first,
        running(listener, shares) as second,
        contextlib.ExitStack() as opened,
    ):
        gate = Gate(first, listener.getsockname()[1], opened)
        for each in [gate.client(post(b"x")) for _ in range(CLIENTS)]:
            assert answer(each)[0] == 200
        assert first.nr_conns + second.nr_conns == CLIENTS
        assert min(first.nr_conns, second.nr_conns) >= CLIENTS // 3


def test_a_place_is_free_again_when_its_process_has_ended() -> None:
    """And there is one for everybody, also where there are more than it was made for."""
    shares, workers = Shares(2), [Seated() for _ in range(4)]
    for worker in workers[:3]:
        shares.seat(worker)
    for number, worker in enumerate(workers[:3], start=1):
        worker.share.tell(number)
    assert list(shares.counts) == [1, 3]
    shares.left(workers[0])
    assert list(shares.counts) == [NONE_MORE, 3]
    shares.seat(workers[3])
    workers[3].share.tell(7)
    assert list(shares.counts) == [7, 3]


class Seated:
    """A worker, as far as its place goes."""

    share: Share


def test_nobody_waits_for_a_process_that_takes_no_connections() -> None:
    """One that does not move has the fewest; what it leaves is taken by others."""
    shares = Shares(2)
    shares.counts[1] = 0
    with (
        socket.create_server((HOST, 0), backlog=CLIENTS) as listener,
        running(listener, shares) as worker,
        contextlib.ExitStack() as opened,
    ):
        gate = Gate(worker, listener.getsockname()[1], opened)
        for each in [gate.client(post(b"x")) for _ in range(CLIENTS)]:
            assert answer(each)[0] == 200
        assert worker.nr_conns == CLIENTS
