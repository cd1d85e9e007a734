"""Origins of work: the request or command that caused it, and the span that wrote its row.

The origin is copied from the request into the row, from the row into the message, from the message into the task, its
log lines and the rows that it writes. So a chain of tasks has the request's id and is one trace.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars, get_contextvars

from crochet_tasks import telemetry

HEADER = "crochet"
"""header of a message: what log lines of its task name, beside what the task finds in its payload"""
CARRIED = ("corpus", "request", "requests", "kind", "text", "version", "batch", "shape", "attempt")
MOST_REQUESTS = 8
"""at most so many requests are named where one message has the work of several"""

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_parent: ContextVar[str | None] = ContextVar("crochet_parent", default=None)
"""the traceparent that was received; where this process is traced the current span is used instead"""


class Origin(NamedTuple):
    """The id of a request and a W3C traceparent, as far as they are known."""

    request: str | None = None
    traceparent: str | None = None

    def row(self) -> dict[str, str]:
        """As it is stored with texts and work."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    @classmethod
    def read(cls, row: object) -> Origin | None:
        """Parse the origin of a row or message; None where there is no valid one."""
        if not isinstance(row, Mapping):
            return None
        request, traceparent = row.get("request"), _valid(row.get("traceparent"))
        return _known(request if isinstance(request, str) else None, traceparent)


def current() -> Origin | None:
    """Return the origin of work that is written now; None where it is unknown."""
    request = bound("request")
    return _known(None if request is None else str(request), _traceparent())


def bound(name: str) -> Any:
    """Return the value of a field of the log context; None without one."""
    return get_contextvars().get(name)


def row() -> dict[str, str] | None:
    """Return the current origin as it is stored."""
    found = current()
    return None if found is None else found.row()


def _known(request: str | None, traceparent: str | None) -> Origin | None:
    return None if request is None and traceparent is None else Origin(request, traceparent)


def _traceparent() -> str | None:
    return telemetry.traceparent() or _parent.get()


def decided(traceparent: str, *, kept: bool) -> str | None:
    """Return a traceparent with its sampled flag set; None where it is invalid."""
    return None if _valid(traceparent) is None else f"{traceparent[:-2]}{kept:02x}"


def _valid(traceparent: object) -> str | None:
    return traceparent if isinstance(traceparent, str) and _TRACEPARENT.fullmatch(traceparent) else None


# ── a request or command ────────────────────────────────────────────────────────────────────────


def begin(request: str, traceparent: str | None) -> None:
    """Begin a request in this thread: it is the origin of all that is logged and written from now on."""
    clear_contextvars()
    _parent.set(_valid(traceparent))
    bind_contextvars(request=request, **_trace())


def end() -> None:
    _parent.set(None)
    clear_contextvars()


@contextlib.contextmanager
def command(name: str) -> Iterator[None]:
    """Make a command the origin of what is written within, with a new request id."""
    with telemetry.span(name):
        begin(uuid.uuid4().hex, None)
        try:
            yield
        finally:
            end()


def _trace() -> dict[str, str]:
    """The id of the trace, as log lines have it."""
    traceparent = _traceparent()
    return {} if traceparent is None else {"trace": traceparent.split("-")[1]}


# ── messages ─────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def published(name: str, origins: Sequence[Origin | None], **about: object) -> Iterator[None]:
    """Send a message of work with these origins within; the sender's own context does not apply.

    The first origin is the parent span, the others are linked. `about`: log fields of the task that gets the message.
    """
    first = next((origin for origin in origins if origin is not None), Origin())
    links = [each.traceparent for each in dict.fromkeys(origins) if each is not None and each.traceparent]
    links = [link for link in links if link != first.traceparent]
    requests = list(dict.fromkeys(each.request for each in origins if each is not None and each.request))
    several = " ".join(requests[:MOST_REQUESTS]) if len(requests) > 1 else None
    lines = {"request": first.request, "requests": several, **about}
    with _replaced_context(lines, first.traceparent), telemetry.publishing(name, first.traceparent, links):
        bind_contextvars(**_trace())
        yield


def headers() -> dict[str, Any]:
    """Return the headers of a message that is sent now."""
    lines = get_contextvars()
    traceparent = _traceparent()
    return {
        HEADER: {name: lines[name] for name in CARRIED if name in lines},
        **({} if traceparent is None else {"traceparent": traceparent}),
    }


@contextlib.contextmanager
def received(headers: Mapping[str, Any]) -> Iterator[None]:
    """Apply the context of a received message with these headers."""
    carried = headers.get(HEADER)
    carried = carried if isinstance(carried, Mapping) else {}
    lines = {name: carried[name] for name in CARRIED if isinstance(carried.get(name), str | int)}
    with _replaced_context(lines, _valid(headers.get("traceparent"))):
        bind_contextvars(**_trace())
        yield


@contextlib.contextmanager
def _replaced_context(lines: Mapping[str, object], traceparent: str | None) -> Iterator[None]:
    """Replace the log context and the traceparent within."""
    before = get_contextvars()
    token = _parent.set(traceparent)
    clear_contextvars()
    try:
        with bound_contextvars(**{name: value for name, value in lines.items() if value is not None}):
            yield
    finally:
        clear_contextvars()
        bind_contextvars(**before)
        _parent.reset(token)
