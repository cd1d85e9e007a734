"""Gunicorn's worker with threads, but that no client can hold a thread, or the loop, by being slow.

Gunicorn's own gives a connection to a thread as soon as it is there, and the thread then waits for the request and for
the client to take the answer, however slowly: as many such clients as there are threads, and nobody else is answered.
Here the loop that accepts connections gathers the requests of all of them, in bounded time and room, and threads get
whole ones; and the loop hands out what a client has not taken when the answer is complete. Only what makes a stream
waits for its client in a thread; of streams there may be few (api). Where a connection ends, Gunicorn's loop stands
still until the client has closed its side, too; ours only looks for it. Why not a proxy in front: docs/adr/0014.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from http import HTTPStatus
from typing import Any, NamedTuple

from gunicorn import http  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from crochet_tasks.errors import TooBusy
from crochet_tasks.services.gateway_flow import HEAD_BYTES, Arriving, Leaving
from crochet_tasks.services.gateway_shares import NONE_MORE, Share
from crochet_tasks.telemetry import metrics

log = logging.getLogger(__name__)

LINGER_SECONDS, LINGER_BYTES = 2.0, 64 * 1024
"""that a client may go on sending after the last answer; cut off at once it would not see that"""
LARGEST_AT_ONCE = 4
ROOM_BYTES = 64 * 1024 * 1024
"""for all requests together that are not answered yet; more where so many of the largest need it"""
OWED_BYTES = 64 * 1024 * 1024
"""of answers that nobody has taken yet"""
CHUNK = 64 * 1024

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
REFUSAL = "HTTP/1.1 {0.value} {0.phrase}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Worker(ThreadWorker):  # type: ignore[misc]
    """All that it does beside Gunicorn's own happens in the loop, so in one thread; but for `handle_request`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._arriving: dict[TConn, Arriving] = {}
        self._handed: dict[TConn, Arriving] = {}
        self._taking: dict[TConn, _Taking] = {}
        self._lingering: dict[TConn, _Patience] = {}
        self._watched: dict[TConn, Callable[[TConn], None]] = {}
        """what to do with those of them whose sockets the loop looks at"""
        self._room = 0
        """what all requests take up that are arriving or in hand"""
        self.share: Share
        """of all connections; the arbiter gives it (Shares.seat)"""

    # ── connections ─────────────────────────────────────────────────────────────────────────────

    def accept(self, listener: socket.socket) -> None:
        if self.share.leaves():
            self.set_accept_enabled(enabled=False)
            return
        super().accept(listener)
        self.share.tell(self.nr_conns)

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001 - Gunicorn's own
        super().set_accept_enabled(enabled and not self.share.left())

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        self.share.tell(self.nr_conns if self.alive else NONE_MORE)
        left = self.share.left()
        super().wait_for_and_dispatch_events(timeout if left is None else left)
        if left == 0:
            self.share.looked()

    # ── requests ────────────────────────────────────────────────────────────────────────────────

    def enqueue_req(self, conn: TConn, surplus: bytes = b"") -> None:
        """A request may come on this connection: the first, the next, or one that came together with the last."""
        self._arriving[conn] = Arriving(self.cfg, conn.client, self._most())
        self._take(conn, surplus)
        if conn in self._arriving:
            self._watch(conn, selectors.EVENT_READ, self._gather)

    def _gather(self, conn: TConn) -> None:
        data = _received(conn)
        arriving = self._arriving[conn]
        if data is None:
            return
        if data:
            self._take(conn, data)
        elif arriving.in_head:
            self._let_go(conn, self._arriving)
        else:
            arriving.broken = True
            self._hand_over(conn)  # the client may still listen

    def _take(self, conn: TConn, data: bytes) -> None:
        arriving = self._arriving[conn]
        before, in_head = arriving.size, arriving.in_head
        try:
            whole = arriving.take(data)
        except OSError as error:
            log.warning("no_room", extra={"error": str(error)})
            self._room += arriving.size - before
            self._give_up(conn)
            return
        self._room += arriving.size - before
        if whole:
            self._hand_over(conn)
        elif arriving.in_head:
            if arriving.size > HEAD_BYTES:
                self._refuse(conn, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif in_head and arriving.expects:
            with contextlib.suppress(OSError):
                conn.sock.send(CONTINUE, socket.MSG_DONTWAIT)
        self._make_room()

    def _make_room(self) -> None:
        """Who has been sending for the longest goes first: so a few that never end keep nobody out."""
        most = max(ROOM_BYTES, LARGEST_AT_ONCE * self._most())
        for conn in list(self._arriving) if self._room > most else []:
            if not self._arriving[conn].in_head:
                self._give_up(conn)
            if self._room <= most:
                return

    def _give_up(self, conn: TConn) -> None:
        self._room -= self._arriving[conn].size
        self._arriving[conn].forget_body()
        self._room += self._arriving[conn].size
        self._hand_over(conn, TooBusy(what="too many large requests arrive", seconds=1))

    def _hand_over(self, conn: TConn, problem: Exception | None = None) -> None:
        """Give a thread its request; where that is not whole, the one that reads it finds the problem, or the end."""
        arriving = self._handed[conn] = self._arriving.pop(conn)
        arriving.whole_at = time.monotonic()
        self._unwatch(conn)
        if conn.parser is None:
            conn.parser = http.get_parser(self.cfg, conn.sock, conn.client)
        conn.parser.unreader = arriving.gathered(problem)
        conn.data_ready = True
        super().enqueue_req(conn)

    def handle_request(self, req: Any, conn: TConn) -> bool:
        """In a thread: the application makes its answer."""
        arriving = self._handed[conn]
        if arriving.broken:
            req.force_close()
        arriving.answer = Leaving(conn.sock, arriving.whole_at)
        return bool(super().handle_request(req, _Asking(arriving.answer, conn.client, conn.server)))

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:  # noqa: FBT001 - Gunicorn's own
        """In a thread; where Gunicorn has not read all that we took for the request, one of us is wrong."""
        return bool(super()._keepalive_after(conn, keepalive)) and not conn.parser.unreader.read()

    # ── answers ─────────────────────────────────────────────────────────────────────────────────

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        arriving = self._handed.pop(conn)
        self._room -= arriving.size
        arriving.close()
        done = _Taking(arriving.answer, fs, arriving.surplus)
        if done.answer is None or not done.answer.rest:
            self._answered(conn, done)
            return
        done.answer.begin_waiting()
        self._taking[conn] = done
        self._watch(conn, selectors.EVENT_WRITE, self._hand_out)
        while sum(len(each.answer.rest) for each in self._taking.values() if each.answer) > OWED_BYTES:
            self._let_go(next(iter(self._taking)), self._taking)

    def _hand_out(self, conn: TConn) -> None:
        done = self._taking[conn]
        assert done.answer is not None
        try:
            done.answer.push()
        except OSError:
            self._let_go(conn, self._taking)
            return
        if not done.answer.rest:
            del self._taking[conn]
            self._unwatch(conn)
            self._answered(conn, done)

    def _answered(self, conn: TConn, done: _Taking) -> None:
        if done.future.cancelled() or done.future.exception():
            super().finish_request(conn, done.future)
        elif not done.future.result():
            self._end(conn)
        elif done.surplus:
            self.enqueue_req(conn, done.surplus)
        else:
            super().finish_request(conn, done.future)

    # ── ends ────────────────────────────────────────────────────────────────────────────────────

    def _refuse(self, conn: TConn, status: HTTPStatus | None) -> None:
        """The head of a request will not be read; None: nothing of one has come, and nothing is said."""
        refused = self._arriving.pop(conn)
        self._room -= refused.size
        refused.close()
        self._unwatch(conn)
        if status is not None:
            metrics.REQUESTS.observe(
                0.0, http_request_method="_OTHER", http_route="none", http_response_status_code=status.value
            )
            with contextlib.suppress(OSError):
                conn.sock.send(REFUSAL.format(status).encode(), socket.MSG_DONTWAIT)
        self._end(conn)

    def _end(self, conn: TConn) -> None:
        """Say no more, and wait for the client to say no more."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:  # the client was faster
            self.nr_conns -= 1
            conn.close()
            return
        self._lingering[conn] = _Patience()
        self._watch(conn, selectors.EVENT_READ, self._linger)

    def _linger(self, conn: TConn) -> None:
        data = _received(conn)
        if data is None:
            return
        patience = self._lingering[conn]
        patience.taken += len(data)
        if not data or patience.taken > LINGER_BYTES:
            self._let_go(conn, self._lingering)

    # ── all of them ─────────────────────────────────────────────────────────────────────────────

    def murder_pending(self) -> None:
        """Let go whoever has had their time; the loop calls it every second at least."""
        super().murder_pending()
        now = time.monotonic()
        for conn, arriving in list(self._arriving.items()):
            if now < self._until(arriving):
                continue
            if arriving.in_head:
                self._refuse(conn, HTTPStatus.REQUEST_TIMEOUT if arriving.size else None)
            else:
                arriving.broken = True
                self._hand_over(conn, TimeoutError("the body came too slowly"))
        for conn, done in list(self._taking.items()):
            if done.answer is not None and now >= done.answer.until:
                self._let_go(conn, self._taking)
        for conn, patience in list(self._lingering.items()):
            if now >= patience.until:
                self._let_go(conn, self._lingering)

    def _until(self, arriving: Arriving) -> float:
        """Who is stopping does not wait for clients that have said nothing yet, and for others not long."""
        if self.alive:
            return arriving.until
        return min(arriving.until, arriving.began + LINGER_SECONDS) if arriving.size else arriving.began

    def _most(self) -> int:
        return int(self.wsgi.config["MAX_CONTENT_LENGTH"])

    def _watch(self, conn: TConn, what: int, step: Callable[[TConn], None]) -> None:
        conn.sock.settimeout(0)
        self._watched[conn] = step
        self.poller.register(conn.sock, what, lambda _: self._step(conn, step))

    def _step(self, conn: TConn, step: Callable[[TConn], None]) -> None:
        if self._watched.get(conn) == step:  # else another event, of the same moment, has ended that
            step(conn)

    def _unwatch(self, conn: TConn) -> None:
        if self._watched.pop(conn, None) is not None:
            self.poller.unregister(conn.sock)

    def _let_go(self, conn: TConn, waiting: dict[TConn, Any]) -> None:
        held = waiting.pop(conn)
        if isinstance(held, Arriving):
            self._room -= held.size
            held.close()
        self._unwatch(conn)
        self.nr_conns -= 1
        conn.close()


class _Asking(NamedTuple):
    """The client of one request, as Gunicorn wants it."""

    sock: Leaving
    client: Any
    server: Any


class _Taking(NamedTuple):
    """What was done for a request: the answer, what Gunicorn has to say, and what came after the request."""

    answer: Leaving | None
    future: Future[Any]
    surplus: bytes


class _Patience:
    """How long a client is waited for that was answered, and how much it has sent since."""

    def __init__(self) -> None:
        self.until = time.monotonic() + LINGER_SECONDS
        self.taken = 0


def _received(conn: TConn) -> bytes | None:
    """What has come; nothing at the end, None where it was a false alarm."""
    try:
        data: bytes = conn.sock.recv(CHUNK)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return b""
    return data
