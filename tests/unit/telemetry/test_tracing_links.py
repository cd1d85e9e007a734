"""Whose part of a trace a message or request is: parents and links, with a live exporter in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask, request
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from api import create_app
from crochet_tasks import telemetry
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import correlation, tracing


class Exported(InMemorySpanExporter):
    """What a collector would get."""

    def ended(self) -> dict[str, ReadableSpan]:
        """The spans by name, when tracing has ended."""
        telemetry.end()
        return {span.name: span for span in self.get_finished_spans()}


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exported]:
    exporter = Exported()
    monkeypatch.setattr(tracing, "OTLPSpanExporter", lambda **_: exporter)
    telemetry.begin("test", Settings.load(otlp_url="http://127.0.0.1:4318", trace_ratio=1.0))
    yield exporter
    telemetry.end()


def ids(context: SpanContext | None) -> tuple[int, int]:
    assert context is not None
    return context.trace_id, context.span_id


def traceparent(span: ReadableSpan) -> str:
    own = span.get_span_context()
    assert own is not None
    return f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"


def test_a_message_for_work_of_several_is_linked_to_all(exported: Exported) -> None:
    """It is the child of the first one's origin; the others are links, each once; the message carries its own span."""
    causes: list[correlation.Origin | None] = [None]
    for name in ("first", "second", "third"):
        with telemetry.span(name):
            causes += [correlation.current(), correlation.current()]
    with telemetry.span("relay"), correlation.published("search.part", causes):
        carried = correlation.headers()["traceparent"]
    spans = exported.ended()
    published = spans["publish search.part"]
    assert carried == traceparent(published)
    assert ids(published.parent) == ids(spans["first"].get_span_context())
    linked = [ids(link.context) for link in published.links]
    assert linked == [ids(spans[name].get_span_context()) for name in ("second", "third")]


def test_a_request_goes_on_with_the_trace_of_its_client(exported: Exported) -> None:
    """Its span is a child of the client's, and what it writes is of its own span and not of the client's."""
    app = Flask("test")
    telemetry.instrument(app)
    app.before_request(lambda: correlation.begin("request-1", request.headers.get("traceparent")))
    app.add_url_rule("/", "written", lambda: correlation.row() or {})
    clients = f"00-{0xA:032x}-{0xB:016x}-01"
    written = app.test_client().get("/", headers={"traceparent": clients}).get_json()
    correlation.end()
    span = exported.ended()["GET /"]
    assert ids(span.parent) == (0xA, 0xB)
    assert written == {"request": "request-1", "traceparent": traceparent(span)}


@pytest.mark.parametrize(("ratio", "flags", "kept"), [(0.0, "01", []), (1.0, "00", [0xA])])
def test_a_stranger_does_not_say_whether_a_trace_is_kept(
    exported: Exported, ratio: float, flags: str, kept: list[int]
) -> None:
    """The API's ratio does, before the request's span begins."""
    client = create_app(Settings(trace_ratio=ratio)).test_client()
    assert client.get("/nothing", headers={"traceparent": f"00-{0xA:032x}-{0xB:016x}-{flags}"}).status_code == 404
    assert [ids(span.get_span_context())[0] for span in exported.ended().values()] == kept
