"""Which spans are kept: by the trace's id, and whatever failed or was slow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from crochet_tasks.telemetry import sampling
from crochet_tasks.telemetry.sampling import IDLE, Kept, Ratio

SECOND = 10**9


class Ids(RandomIdGenerator):
    """Gives traces the ids that a test wants."""

    wanted = 1

    def generate_trace_id(self) -> int:
        return self.wanted


class Traced:
    def __init__(self, ratio: float, slow: float = 5.0) -> None:
        self.exporter, self.ids = InMemorySpanExporter(), Ids()
        share = Ratio(ratio)
        provider = TracerProvider(sampler=share, id_generator=self.ids, shutdown_on_exit=False)
        provider.add_span_processor(Kept(SimpleSpanProcessor(self.exporter), share, slow))
        self.tracer: Tracer = provider.get_tracer("test")

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.exporter.get_finished_spans()]

    def remote(self, *, sampled: bool) -> Context:
        traceparent = f"00-{7:032x}-{7:016x}-{'01' if sampled else '00'}"
        return TraceContextTextMapPropagator().extract({"traceparent": traceparent})


def family(traced: Traced, *, inner: Callable[[Tracer], None] = lambda _: None, context: Context | None = None) -> None:
    with traced.tracer.start_as_current_span("root", context=context), traced.tracer.start_as_current_span("child"):
        inner(traced.tracer)


@pytest.mark.parametrize(("trace", "kept"), [(2**64 // 4 - 1, True), (2**64 // 4, False), (2**127 + 5, True)])
def test_a_ratio_keeps_by_the_id_of_the_trace(trace: int, kept: bool) -> None:
    """So every process comes to the same answer."""
    traced = Traced(0.25)
    traced.ids.wanted = trace
    family(traced)
    assert traced.names == (["child", "root"] if kept else [])


@pytest.mark.parametrize("sampled", [True, False])
def test_who_begins_a_trace_decides(sampled: bool) -> None:
    """A trace from outside is kept where it is kept outside, whatever the ratio here."""
    traced = Traced(0.0 if sampled else 1.0)
    family(traced, context=traced.remote(sampled=sampled))
    assert traced.names == (["child", "root"] if sampled else [])


def test_what_failed_is_kept_whole() -> None:
    """With one failure in it, all that this process did of a trace is kept, and marked as kept."""
    traced = Traced(0.0)

    def fails(tracer: Tracer) -> None:
        tracer.start_span("grandchild").end()
        with tracer.start_as_current_span("failed") as span:
            span.set_status(Status(StatusCode.ERROR))

    family(traced, inner=fails, context=traced.remote(sampled=False))
    assert sorted(traced.names) == ["child", "failed", "grandchild", "root"]
    assert all(span.context.trace_flags.sampled for span in traced.exporter.get_finished_spans())
    family(traced)  # the next one is judged by itself
    assert len(traced.names) == 4


@pytest.mark.parametrize(("seconds", "kept"), [(5, True), (4, False)])
def test_what_was_slow_is_kept(seconds: int, kept: bool) -> None:
    """It is the whole part that has to be slow."""
    traced = Traced(0.0, slow=5.0)
    root = traced.tracer.start_span("root", start_time=0)
    root.end(seconds * SECOND)
    assert traced.names == (["root"] if kept else [])


def test_what_ends_after_its_part_goes_along() -> None:
    """A child that outlives its root is kept if that was."""
    traced = Traced(0.0, slow=5.0)
    for seconds in (9, 1):
        with traced.tracer.start_as_current_span("root", start_time=0, end_on_exit=False) as root:
            late = traced.tracer.start_span("late")
        root.end(seconds * SECOND)
        late.end()
    assert traced.names == ["root", "late"]


def test_nothing_is_told_of_idle_looks() -> None:
    """A look that found nothing is no trace, one that did is kept by the ratio; nor are statements by themselves."""
    traced = Traced(1.0)
    traced.tracer.start_span("SELECT", kind=SpanKind.CLIENT).end()
    traced.tracer.start_span("look", attributes={IDLE: True}).end()
    with traced.tracer.start_as_current_span("found", attributes={IDLE: True}) as span:
        traced.tracer.start_span("SELECT", kind=SpanKind.CLIENT).end()
        traced.tracer.start_span(sampling.PING, kind=SpanKind.CLIENT).end()
        span.set_attribute(IDLE, False)
    assert traced.names == ["SELECT", "found"]


def test_statements_are_told_of_chosen_traces_only() -> None:
    """They are what costs; the task that a statement failed in says so without it."""
    traced = Traced(0.25)
    for trace in (1, 2**64 - 1):
        traced.ids.wanted = trace
        with traced.tracer.start_as_current_span("task") as task:
            with traced.tracer.start_as_current_span("SELECT", kind=SpanKind.CLIENT) as statement:
                assert statement.is_recording() is (trace == 1)
            task.set_status(Status(StatusCode.ERROR))
    assert traced.names == ["SELECT", "task", "task"]


def test_spans_that_never_end_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than so many are remembered."""
    monkeypatch.setattr(sampling, "MOST_OPEN", 10)
    monkeypatch.setattr(sampling, "MOST_SPANS", 3)
    traced = Traced(0.0, slow=0.0)
    with traced.tracer.start_as_current_span("root"):
        for _ in range(20):
            traced.tracer.start_span("child").end()
    assert traced.names == ["child", "child", "child", "root"]
    endless = [traced.tracer.start_span("endless") for _ in range(20)]
    traced.tracer.start_span("forgotten").end()
    assert len(endless) == 20
    assert "forgotten" not in traced.names


def test_many_parts_together_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all of them no more than so many spans are held; there is room again when they are done."""
    monkeypatch.setattr(sampling, "MOST_HELD", 5)
    traced = Traced(0.0, slow=0.0)
    for _ in range(2):
        roots = [traced.tracer.start_span("root") for _ in range(4)]
        for root in roots:
            for _ in range(3):
                traced.tracer.start_span("child", context=set_span_in_context(root)).end()
        assert traced.names == []
        for root in roots:
            root.end()
        assert Counter(traced.names) == {"root": 4, "child": 5}
        traced.exporter.clear()


def test_errors_tell_neither_secrets_nor_values() -> None:
    """Of an exception there is its first line without passwords, and where it was raised."""
    traced = Traced(1.0)
    words = "no way to postgresql://crochet:hunter2@db/crochet\nDETAIL:  Key (word)=(hunter2) exists"
    with pytest.raises(ValueError, match="no way"), traced.tracer.start_as_current_span("root"):
        raise ValueError(words)
    span = traced.exporter.get_finished_spans()[0]
    told = f"{span.status.description} {[dict(event.attributes or {}) for event in span.events]}"
    assert "hunter2" not in told
    assert "no way to postgresql://crochet:***@db/crochet" in told
    assert "test_sampling.py" in told
