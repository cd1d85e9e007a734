"""Which spans are recorded, and that they hold no secrets, with a live exporter in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from crochet_tasks import telemetry
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import correlation, tracing

TRACES = [f"00-{trace:032x}-{0xB:016x}-{{}}" for trace in (1, 2**64 // 4 - 1, 2**64 // 4, 2**127 + 2**63)]


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(tracing, "OTLPSpanExporter", lambda **_: exporter)
    yield exporter
    telemetry.end()


def begin(ratio: float) -> None:
    telemetry.begin("test", Settings.load(otlp_url="http://127.0.0.1:4318", trace_ratio=ratio))


def names(exporter: InMemorySpanExporter) -> list[str]:
    """When tracing has ended."""
    telemetry.end()
    return [span.name for span in exporter.get_finished_spans()]


@pytest.mark.parametrize(("ratio", "recorded"), [(0.0, 0), (1.0, 20)])
def test_a_ratio_decides_where_a_trace_begins(exported: InMemorySpanExporter, ratio: float, recorded: int) -> None:
    """All of its parts, or none of them."""
    begin(ratio)
    for _ in range(10):
        with telemetry.span("root"), telemetry.span("child"):
            assert telemetry.traceparent() is not None
    assert len(names(exported)) == recorded


@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize("flag", ["00", "01"])
def test_who_begins_a_trace_decides(exported: InMemorySpanExporter, ratio: float, flag: str) -> None:
    """A part of one that began elsewhere is recorded where that is, whatever the ratio here."""
    begin(ratio)
    for parent in TRACES:
        with correlation.published("search.part", [correlation.Origin(None, parent.format(flag))]):
            assert str(telemetry.traceparent())[-2:] == flag
    assert names(exported) == (["publish search.part"] * len(TRACES) if flag == "01" else [])


def test_statements_are_spans_of_a_recorded_trace_only(
    exported: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None begins a trace, nor does a question to another server; the pool's own question is none."""
    providers: list[TracerProvider] = []

    def provider(**how: Any) -> TracerProvider:
        providers.append(TracerProvider(**how))
        return providers[0]

    monkeypatch.setattr(tracing, "TracerProvider", provider)
    begin(1.0)
    with telemetry.statement("SELECT 1"):
        pass
    tracer = providers[0].get_tracer("a library")
    tracer.start_span("GET", kind=SpanKind.CLIENT).end()
    with telemetry.span("task"):
        for statement in (" INSERT INTO x\nVALUES (%s)", ";", "", b"SELECT 2"):
            with telemetry.statement(statement):
                assert trace.get_current_span().is_recording()
        tracer.start_span("SET", kind=SpanKind.CLIENT).end()
    assert names(exported) == ["INSERT", "SELECT", "SET", "task"]


def test_statements_of_other_traces_are_none(exported: InMemorySpanExporter) -> None:
    begin(0.0)
    with telemetry.span("task"), telemetry.statement("SELECT 1"):
        pass
    assert names(exported) == []


def test_results_are_attributes(exported: InMemorySpanExporter) -> None:
    begin(1.0)
    with telemetry.span("search.engine", kind="search"):
        telemetry.result(found=3)
    telemetry.end()
    (span,) = exported.get_finished_spans()
    assert dict(span.attributes or {}) == {"crochet.kind": "search", "crochet.found": 3}


def test_errors_hold_neither_secrets_nor_values(exported: InMemorySpanExporter) -> None:
    """Of an exception there is its first line without passwords, and where it was raised."""
    begin(1.0)
    words = "no way to postgresql://crochet:hunter2@db/crochet\nDETAIL:  Key (word)=(hunter2) exists"
    with pytest.raises(ValueError, match="no way"), telemetry.span("raises"):
        raise ValueError(words)
    with telemetry.span("fails"):
        telemetry.failed(ValueError(words))
    telemetry.end()
    for span in exported.get_finished_spans():
        recorded = f"{span.status.description} {[dict(event.attributes or {}) for event in span.events]}"
        assert "hunter2" not in recorded
        assert "no way to postgresql://crochet:***@db/crochet" in recorded
    assert "test_tracing.py" in str([dict(event.attributes or {}) for event in exported.get_finished_spans()[0].events])


def test_an_exporter_that_fails_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(InMemorySpanExporter):
        def export(self, *_: object) -> object:  # type: ignore[override]
            raise RuntimeError("as a library may")

    monkeypatch.setattr(tracing, "OTLPSpanExporter", lambda **_: Failing())
    begin(1.0)
    done = []
    for number in range(2 * tracing.QUEUE_SPANS):
        with telemetry.span("work"):
            done.append(number)
    telemetry.end()
    assert len(done) == 2 * tracing.QUEUE_SPANS
    assert not telemetry.traced()
