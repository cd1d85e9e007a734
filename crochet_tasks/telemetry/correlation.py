"""What caused a piece of work: the request or command, and the span that wrote its row.

It goes with the work: from the request into the row, from the row into the message, from the message into the task, its
log lines and the rows it writes. So a chain of tasks keeps the request's id and is one trace, whoever publishes.
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
"""requests that are named where the work of several is done together"""

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_parent: ContextVar[str | None] = ContextVar("crochet_parent", default=None)
"""what came from outside; where this process is traced, the current span counts"""


class Origin(NamedTuple):
    """The id of a request and a W3C traceparent, as far as they are known."""

    request: str | None = None
    traceparent: str | None = None

    def row(self) -> dict[str, str]:
        """As it is stored with texts and work."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    @classmethod
    def read(cls, row: object) -> Origin | None:
        """Of a row or message; None where there is nothing that we understand."""
        if not isinstance(row, Mapping):
            return None
        request, traceparent = row.get("request"), _valid(row.get("traceparent"))
        return _known(request if isinstance(request, str) else None, traceparent)


def current() -> Origin | None:
    """What causes the work that is written now; None where that is unknown."""
    request = bound("request")
    return _known(None if request is None else str(request), _traceparent())


def bound(name: str) -> Any:
    """The value that log lines have now by this name; None without one."""
    return get_contextvars().get(name)


def row() -> dict[str, str] | None:
    """The same, as it is stored."""
    found = current()
    return None if found is None else found.row()


def _known(request: str | None, traceparent: str | None) -> Origin | None:
    return None if request is None and traceparent is None else Origin(request, traceparent)


def _traceparent() -> str | None:
    return telemetry.traceparent() or _parent.get()


def decided(traceparent: str, *, kept: bool) -> str | None:
    """The same, with its flag set to whether its trace is recorded; None where it is nothing that we understand."""
    return None if _valid(traceparent) is None else f"{traceparent[:-2]}{kept:02x}"


def _valid(traceparent: object) -> str | None:
    return traceparent if isinstance(traceparent, str) and _TRACEPARENT.fullmatch(traceparent) else None


# ── a request or command ────────────────────────────────────────────────────────────────────────


def begin(request: str, traceparent: str | None) -> None:
    """A request begins, in a thread that may have had others: it causes what is logged and written from now on."""
    clear_contextvars()
    _parent.set(_valid(traceparent))
    bind_contextvars(request=request, **_trace())


def end() -> None:
    _parent.set(None)
    clear_contextvars()


@contextlib.contextmanager
def command(name: str) -> Iterator[None]:
    """Within, a command causes what is written; it makes up the id of a request."""
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


# ── publishing and doing ────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def published(name: str, origins: Sequence[Origin | None], **about: object) -> Iterator[None]:
    """Within, a message is sent that these origins caused, and nothing that its sender does otherwise.

    The first one is the parent, the others are linked. `about` is for the log lines of the task that gets the message.
    """
    first = next((origin for origin in origins if origin is not None), Origin())
    links = [each.traceparent for each in dict.fromkeys(origins) if each is not None and each.traceparent]
    links = [link for link in links if link != first.traceparent]
    requests = list(dict.fromkeys(each.request for each in origins if each is not None and each.request))
    several = " ".join(requests[:MOST_REQUESTS]) if len(requests) > 1 else None
    lines = {"request": first.request, "requests": several, **about}
    with _instead(lines, first.traceparent), telemetry.publishing(name, first.traceparent, links):
        bind_contextvars(**_trace())
        yield


def headers() -> dict[str, Any]:
    """Of a message that is sent now."""
    lines = get_contextvars()
    traceparent = _traceparent()
    return {
        HEADER: {name: lines[name] for name in CARRIED if name in lines},
        **({} if traceparent is None else {"traceparent": traceparent}),
    }


@contextlib.contextmanager
def received(headers: Mapping[str, Any]) -> Iterator[None]:
    """Within, the work of a message with these headers is done."""
    carried = headers.get(HEADER)
    carried = carried if isinstance(carried, Mapping) else {}
    lines = {name: carried[name] for name in CARRIED if isinstance(carried.get(name), str | int)}
    with _instead(lines, _valid(headers.get("traceparent"))):
        bind_contextvars(**_trace())
        yield


@contextlib.contextmanager
def _instead(lines: Mapping[str, object], traceparent: str | None) -> Iterator[None]:
    """Within, log lines have these keys and none of those they had before."""
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
