"""What comes from a client and what goes to it, kept here for as long as the client is slow.

A request is gathered whole, and only then read by a thread; an answer is written in no time, and taken from here.
"""

from __future__ import annotations

import errno
import re
import select
import socket
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from gunicorn import http  # type: ignore[import-untyped]
from gunicorn.http.body import ChunkedReader, LengthReader  # type: ignore[import-untyped]
from gunicorn.http.unreader import Unreader  # type: ignore[import-untyped]

HEAD_SECONDS = 5.0
"""that the head of a request may take to arrive"""
BODY_SECONDS = 30.0
"""that its body may take then"""
HEAD_BYTES = 64 * 1024
IN_MEMORY_BYTES = 64 * 1024
"""of a request; a larger one is written to a temporary file"""
LINE_BYTES = 8190
"""of a line between the chunks of a body, and of all that may follow the last of them"""
END = b"\r\n\r\n"
TAKE_SECONDS, TAKE_BYTES = 30.0, 64 * 1024
"""that a client has to take an answer, and one more for each so many bytes"""
AHEAD_BYTES = 2 * 1024 * 1024
"""of a stream that nobody has taken yet, before what makes it is kept waiting"""
SILENT_SECONDS = 10.0
"""that it is kept waiting by a client that takes nothing"""

_WITH_BODY = re.compile(rb"(?i)\r\n(?:content-length|transfer-encoding):")
_HEX = re.compile(rb"[0-9a-fA-F]{1,16}")


class Arriving:
    """One request, as far as it has come. `most` is what a body may have; of a larger one nothing is waited for."""

    def __init__(self, cfg: Any, client: Any, most: int) -> None:
        self.began = time.monotonic()
        self.until = self.began + HEAD_SECONDS
        self.whole_at = 0.0
        """when a thread could have had it, as time.monotonic() has it"""
        self.size = 0
        self.in_head = True
        self.broken = False
        """it will not be whole: nothing can come after it"""
        self.expects = False
        """the client waits to be told that it may send the body"""
        self.surplus = b""
        """what has come of the next one"""
        self.answer: Leaving | None = None
        self._cfg, self._client, self._most = cfg, client, most
        self._head = bytearray()
        self._looked = 0
        self._left: int | Chunks = 0
        self._kept: Any = None

    def take(self, data: bytes) -> bool:
        """Whether it is there, or all of it that is waited for. Raises OSError where there is no room for it."""
        if self.in_head:
            self._head += data
            while self._head.startswith(b"\r\n"):  # before it there may be empty lines
                del self._head[:2]
            found = self._head.find(END, max(0, self._looked - len(END)))
            self._looked = self.size = len(self._head)
            if found < 0:
                return False
            head, data = bytes(self._head[: found + len(END)]), bytes(self._head[found + len(END) :])
            self._begin(head)
        return self._continue(data)

    def gathered(self, problem: Exception | None = None) -> Gathered:
        """All of it, for Gunicorn's parser. Where it is not whole, reading on raises `problem`, or finds its end."""
        self._kept.seek(0)
        return Gathered(self._kept, problem)

    def forget_body(self) -> None:
        """Make room: keep only its head."""
        self.broken = True
        self.close()
        self._keep_head()

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()

    def _keep_head(self) -> None:
        self._kept = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115 - close() closes it
        self._kept.write(self._head)
        self.size = len(self._head)

    def _begin(self, head: bytes) -> None:
        """The head is whole; Gunicorn says what comes after it."""
        self.in_head, self._head = False, bytearray(head)
        self._keep_head()
        self.until = time.monotonic() + BODY_SECONDS
        if not _WITH_BODY.search(head):
            return
        try:
            request = next(http.get_parser(self._cfg, iter([head]), self._client))
        except Exception:  # noqa: BLE001 - it raises the same in the thread, which answers that
            self.broken = True
            return
        reader = request.body.reader
        if isinstance(reader, LengthReader):
            self._left = reader.length
            self.broken = reader.length > self._most
        elif isinstance(reader, ChunkedReader):
            self._left = Chunks(self._most)
        self.expects = bool(request._expected_100_continue)  # noqa: SLF001 - there is no other way to learn it

    def _continue(self, data: bytes) -> bool:
        if self.broken:
            return True
        if isinstance(self._left, Chunks):
            of_it = self._left.feed(data)
            self.broken = self._left.broken
            whole = self._left.ended or self.broken
        else:
            of_it = min(len(data), self._left)
            self._left -= of_it
            whole = self._left == 0
        self._kept.write(data[:of_it])
        self.size += of_it
        self.surplus = data[of_it:]
        return whole


class Chunks:
    """Finds where a body in chunks ends. What is in them Gunicorn reads, and is stricter."""

    def __init__(self, most: int) -> None:
        self.ended = self.broken = False
        self._most = most
        self._line = bytearray()
        self._left = 0
        """of a chunk and the end of line behind it"""
        self._last = False

    def feed(self, data: bytes) -> int:
        """How many of these bytes belong to the body."""
        at = 0
        while at < len(data) and not (self.ended or self.broken):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            end = data.find(b"\n", at) + 1
            part = data[at : end or None]
            self._line += part
            at += len(part)
            if end:
                self._read(bytes(self._line))
            elif len(self._line) > LINE_BYTES:
                self.broken = True
        return at

    def _read(self, line: bytes) -> None:
        if self._last:  # in what may follow the chunks: an empty line ends it
            self.ended = line.endswith(b"\n\r\n") or line == b"\r\n"
            self.broken = len(line) > LINE_BYTES
            return
        self._line.clear()
        size = line.split(b";")[0].strip()
        if not _HEX.fullmatch(size):
            self.broken = True
            return
        self._left = int(size, 16)
        self._most -= self._left
        self._last = self._left == 0
        if self._most < 0:
            self.broken = True  # too large: what there is of it is enough to say so
        elif self._left:
            self._left += 2


class Gathered(Unreader):  # type: ignore[misc]
    """Where Gunicorn's parser reads a request: never from the client, so it never waits."""

    def __init__(self, kept: Any, problem: Exception | None) -> None:
        super().__init__()
        self._kept, self._problem = kept, problem

    def chunk(self, size_hint: int | None = None) -> bytes:
        data: bytes = self._kept.read(max(size_hint or 0, 8192))
        if not data and self._problem is not None:
            raise self._problem
        return data


class Leaving:
    """The socket that Gunicorn writes an answer to. What the client does not take at once is kept in `rest`.

    What makes a stream is kept waiting where there is too much of that; a client that takes nothing then is gone.
    """

    def __init__(self, sock: socket.socket, asked_at: float) -> None:
        """`asked_at`: since when the client has waited for it."""
        self._sock = sock
        self.asked_at = asked_at
        self.rest = bytearray()
        self.until = 0.0

    def sendall(self, data: bytes) -> None:
        while len(self.rest) > AHEAD_BYTES:
            self._wait()
            self.push()
        taken = 0 if self.rest else self._sent(data)
        self.rest += memoryview(data)[taken:]

    def push(self) -> None:
        """Send what the client takes now."""
        with memoryview(self.rest) as view:
            taken = self._sent(view)
        del self.rest[:taken]

    def begin_waiting(self) -> None:
        """The answer is complete: from now on its time runs."""
        self.until = time.monotonic() + TAKE_SECONDS + len(self.rest) / TAKE_BYTES

    def send(self, data: bytes) -> int:
        """Only `100 Continue` goes this way; that was said when it was time."""
        return len(data)

    def shutdown(self, _: int) -> None:
        raise OSError(errno.ENOTCONN, "the loop ends connections")

    def close(self) -> None:
        pass

    def _sent(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return 0

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        if not poll.poll(1000 * SILENT_SECONDS):
            self.rest.clear()
            raise BrokenPipeError(errno.EPIPE, "the client takes nothing")


def asked_at(environ: Mapping[str, Any]) -> float:
    """Since when a client has waited for its answer, as time.monotonic() has it: also for a thread, where it is ours
    that made the request whole. With other servers: from now on.
    """
    leaving = environ.get("gunicorn.socket")
    return leaving.asked_at if isinstance(leaving, Leaving) else time.monotonic()
