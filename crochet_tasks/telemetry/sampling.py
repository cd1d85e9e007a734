"""Which traces are kept: a share of all, and of the others what failed or was slow.

Who begins a trace decides by its id, everybody else goes along; for strangers the API does (security.sample). Of a
trace that is not kept each process remembers its own part until that is done, and keeps it if something in it failed
or the whole part took long. So such a trace may lack the parts of processes in which all was well, and it lacks
statements.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    get_current_span,
)
from opentelemetry.util.types import Attributes

from crochet_tasks.telemetry.masking import masked

IDLE = "crochet.idle"
"""attribute of a beginning that is worth nothing unless it is set to False before the end"""
PING = ";"
"""what the pool sends over a connection before each use"""
MOST_OPEN, MOST_SPANS, MOST_HELD = 10_000, 1000, 20_000
"""spans that are open, ended spans of one part, and ended ones of all parts together, that are remembered"""


class Ratio(Sampler):
    """Keeps this share of the traces that begin here; of others what whoever began them keeps."""

    def __init__(self, ratio: float) -> None:
        self._bound = round(ratio * 2**64)

    def chosen(self, trace_id: int) -> bool:
        return trace_id % 2**64 < self._bound

    def tells_statements(self, parent: SpanContext) -> bool:
        """Whether a statement, or another question to a server, that is made within `parent` gets a span.

        Most spans are statements, and making them is most of what tracing costs. So there are none of a trace that is
        not chosen, nor any that nobody has asked for, such as a look at the server's health.
        """
        return parent.is_valid and (parent.trace_flags.sampled or self.chosen(parent.trace_id))

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,  # noqa: ARG002 - as the SDK calls it
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if name == PING:
            return SamplingResult(Decision.DROP)
        parent = get_current_span(parent_context).get_span_context()
        if parent.is_valid:
            keep = parent.trace_flags.sampled
        else:
            keep = self.chosen(trace_id) and IDLE not in (attributes or {})
        if kind is SpanKind.CLIENT and not self.tells_statements(parent):
            return SamplingResult(Decision.DROP)
        return SamplingResult(Decision.RECORD_AND_SAMPLE if keep else Decision.RECORD_ONLY, attributes, trace_state)

    def get_description(self) -> str:
        return f"Ratio{{{self._bound / 2**64:g}}}"


class _Part:
    """What this process does of a trace, from the span that begins it on."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.spans: list[ReadableSpan] = []
        self.failed = False
        self.kept: bool | None = None
        """None until it is known"""


class Kept(SpanProcessor):
    """Hands on the spans that are kept: those of chosen traces at once, others when their part is known to be."""

    def __init__(self, onward: SpanProcessor, ratio: Ratio, slow: float) -> None:
        self._onward, self._ratio, self._slow = onward, ratio, slow
        self._open: dict[int, _Part] = {}
        self._held = 0
        """ended spans of which it is not known yet whether they are kept"""
        self._lock = threading.Lock()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        own = span.get_span_context()
        if own.trace_flags.sampled:
            return
        parent = get_current_span(parent_context).get_span_context()
        with self._lock:
            part = self._open.get(parent.span_id) if parent.is_valid and not parent.is_remote else None
            if len(self._open) < MOST_OPEN:
                self._open[own.span_id] = part or _Part(own.span_id)

    def on_end(self, span: ReadableSpan) -> None:
        own = span.get_span_context()
        if own is None:
            return
        if own.trace_flags.sampled:
            self._onward.on_end(_told(span) if span.events else span)
            return
        for kept in self._ended(span, own):
            self._onward.on_end(_told(kept))

    def _ended(self, span: ReadableSpan, own: SpanContext) -> list[ReadableSpan]:
        """What is known to be kept now."""
        with self._lock:
            part = self._open.pop(own.span_id, None)
            if part is None:
                return []
            part.failed |= span.status.status_code is StatusCode.ERROR
            if part.kept is None and len(part.spans) < MOST_SPANS and self._held < MOST_HELD:
                part.spans.append(span)
                self._held += 1
            if own.span_id == part.first:
                part.kept = part.failed or self._is_slow(span) or self._was_not_idle(span, own)
                spans, part.spans = part.spans, []
                self._held -= len(spans)
                return [*spans, *([] if span in spans[-1:] else [span])] if part.kept else []
            return [span] if part.kept else []

    def _is_slow(self, span: ReadableSpan) -> bool:
        return ((span.end_time or 0) - (span.start_time or 0)) / 1e9 >= self._slow

    def _was_not_idle(self, span: ReadableSpan, own: SpanContext) -> bool:
        return (span.attributes or {}).get(IDLE) is False and self._ratio.chosen(own.trace_id)

    def shutdown(self) -> None:
        self._onward.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._onward.force_flush(timeout_millis)


def _told(span: ReadableSpan) -> ReadableSpan:
    """The span as it goes out: kept, and with errors that name no secrets and no values."""
    own = span.get_span_context()
    assert own is not None
    sampled = SpanContext(own.trace_id, own.span_id, own.is_remote, TraceFlags(TraceFlags.SAMPLED), own.trace_state)
    status = span.status
    if status.description is not None:
        status = Status(status.status_code, _first_line(status.description))
    return ReadableSpan(
        name=span.name,
        context=sampled,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=[Event(event.name, _clean(event.attributes), event.timestamp) for event in span.events],
        links=span.links,
        kind=span.kind,
        status=status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _clean(attributes: Attributes) -> dict[str, str]:
    """Of an exception where it was raised and what it says first; what the server adds holds values."""
    clean = {name: str(value) for name, value in (attributes or {}).items()}
    if "exception.message" in clean:
        clean["exception.message"] = _first_line(clean["exception.message"])
    if "exception.stacktrace" in clean:
        lines = clean["exception.stacktrace"].splitlines()
        clean["exception.stacktrace"] = "\n".join(line for line in lines if line.startswith(("  ", "Traceback")))
    return clean


def _first_line(words: str) -> str:
    return str(masked((words.strip().splitlines() or [""])[0]))
