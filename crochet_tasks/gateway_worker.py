"""Gunicorn's worker with threads, but that no client can hold a thread, or the loop, by being slow.

Gunicorn's own gives a connection to a thread as soon as it is there, and the thread then waits for the head of the
request, however slowly it comes: as many such clients as there are threads, and nobody else is answered. Here the loop
that accepts connections gathers the heads of all of them, in bounded time, and threads get whole ones. Where a
connection ends, Gunicorn's loop stands still until the client has closed its side, too; ours only looks for it.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from gunicorn import http  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

HEAD_SECONDS = 5.0
"""that the head of a request may take to arrive"""
HEAD_BYTES = 64 * 1024
END = b"\r\n\r\n"
LINGER_SECONDS, LINGER_BYTES = 2.0, 64 * 1024
"""that a client may go on sending after the last answer; cut off at once it would not see that"""
DRAIN_SECONDS = 0.1
"""that the rest of a body may take to arrive which nobody wants: then the connection is of no more use"""
CHUNK = 16 * 1024

TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Worker(ThreadWorker):  # type: ignore[misc]
    """All that it does beside Gunicorn's own happens in the loop, so in one thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._heads: dict[TConn, _Patience] = {}
        self._lingering: dict[TConn, _Patience] = {}

    # ── heads ───────────────────────────────────────────────────────────────────────────────────

    def enqueue_req(self, conn: TConn) -> None:
        """A request may come on this connection: the first, the next, or one that came together with the last."""
        head = self._heads[conn] = _Patience(HEAD_SECONDS)
        if conn.parser is not None:
            head.bytes += conn.parser.unreader.take_buffered()
        if not self._hand_over(conn, head):
            self._when_readable(conn, self._gather)

    def _gather(self, conn: TConn) -> None:
        data = _received(conn)
        if data is None:
            return
        head = self._heads[conn]
        head.bytes += data
        if not data:
            self._let_go(conn, self._heads)
        elif not self._hand_over(conn, head, registered=True) and len(head.bytes) > HEAD_BYTES:
            self._refuse(conn, TOO_LARGE)

    def _hand_over(self, conn: TConn, head: _Patience, *, registered: bool = False) -> bool:
        """Give a thread its request, if the head is whole."""
        if not head.whole():
            return False
        del self._heads[conn]
        if registered:
            self.poller.unregister(conn.sock)
        if conn.parser is None:
            conn.parser = http.get_parser(self.cfg, conn.sock, conn.client)
        conn.parser.unreader.unread(bytes(head.bytes))
        conn.data_ready = True
        super().enqueue_req(conn)
        return True

    # ── ends ────────────────────────────────────────────────────────────────────────────────────

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        if fs.cancelled() or fs.exception() or fs.result():
            super().finish_request(conn, fs)
            return
        self._end(conn)

    def _refuse(self, conn: TConn, answer: bytes) -> None:
        del self._heads[conn]
        self.poller.unregister(conn.sock)
        with contextlib.suppress(OSError):
            conn.sock.send(answer)
        self._end(conn)

    def _end(self, conn: TConn) -> None:
        """Say no more, and wait for the client to say no more."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:  # the client was faster
            self.nr_conns -= 1
            conn.close()
            return
        self._lingering[conn] = _Patience(LINGER_SECONDS)
        self._when_readable(conn, self._linger)

    def _linger(self, conn: TConn) -> None:
        data = _received(conn)
        if data is None:
            return
        taken = self._lingering[conn]
        taken.bytes += data
        if not data or len(taken.bytes) > LINGER_BYTES:
            self._let_go(conn, self._lingering)

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:  # noqa: FBT001 - Gunicorn's own
        return keepalive and bool(conn.parser.finish_body(deadline=time.monotonic() + DRAIN_SECONDS))

    # ── both ────────────────────────────────────────────────────────────────────────────────────

    def murder_pending(self) -> None:
        """Let go whoever has had their time; the loop calls it every second at least."""
        super().murder_pending()
        now = time.monotonic()
        for conn, head in list(self._heads.items()):
            if now >= self._until(head):
                self._refuse(conn, TOO_SLOW if head.bytes else b"")
        for conn, taken in list(self._lingering.items()):
            if now >= taken.until:
                self._let_go(conn, self._lingering)

    def _until(self, head: _Patience) -> float:
        """Who is stopping does not wait for clients that have said nothing yet, and for others not long."""
        if self.alive:
            return head.until
        return min(head.until, head.began + LINGER_SECONDS) if head.bytes else head.began

    def _when_readable(self, conn: TConn, step: Callable[[TConn], None]) -> None:
        conn.sock.settimeout(0)
        self.poller.register(conn.sock, selectors.EVENT_READ, lambda _: step(conn))

    def _let_go(self, conn: TConn, waiting: dict[TConn, _Patience]) -> None:
        del waiting[conn]
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()


class _Patience:
    """How long a client is waited for, and what it has sent so far."""

    def __init__(self, seconds: float) -> None:
        self.began = time.monotonic()
        self.until = self.began + seconds
        self.bytes = bytearray()
        self._looked = 0

    def whole(self) -> bool:
        """Whether the head of a request is there."""
        while self.bytes.startswith(b"\r\n"):  # before it there may be empty lines
            del self.bytes[:2]
        found = self.bytes.find(END, max(0, self._looked - len(END)))
        self._looked = len(self.bytes)
        return found >= 0


def _received(conn: TConn) -> bytes | None:
    """What has come; nothing at the end, None where it was a false alarm."""
    try:
        data: bytes = conn.sock.recv(CHUNK)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return b""
    return data
