"""Traces, by OpenTelemetry: set up in the process that does the work, sent to a collector by OTLP over HTTP.

Loaded only where CROCHET_OTLP_URL is set. The process that begins a trace decides by its id whether it is recorded; the
others follow. A collector that gets all traces can keep those that failed or were slow
(deploy/observability/collector.yml).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.celery import utils as celery_utils
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from crochet_tasks.settings import Settings, version
from crochet_tasks.telemetry.masking import masked

EXPORT_SECONDS = 3.0
"""how long one request to the collector may take"""
SCHEDULE_SECONDS, BATCH_SPANS, QUEUE_SPANS = 5.0, 512, 4096
"""how often spans are sent, how many in one request, and how many wait at most: then the oldest are dropped"""
LONGEST_ATTRIBUTE = 4096
QUIET_SECONDS = 60.0
"""at most this often a failed export is logged"""
UNTRACED = "^https?://[^/]+/health/,^https?://[^/]+/metrics"
"""paths of the API that are polled every few seconds"""
UNTRACED_STATEMENTS = ("", ";")
"""pings of the pool"""

_W3C = TraceContextTextMapPropagator()


class Tracing:
    """The traces of this process, which must not fork afterwards."""

    def __init__(self, service: str, settings: Settings, queues: Sequence[str] = ()) -> None:
        assert settings.otlp_url is not None
        resource = resource_of(service, queues)
        self._provider = TracerProvider(
            sampler=ParentBased(_NoLoneClients(TraceIdRatioBased(settings.trace_ratio))),
            resource=Resource.create(resource),
            shutdown_on_exit=False,  # it would wait for longer than we do
            span_limits=SpanLimits(max_span_attribute_length=LONGEST_ATTRIBUTE),
        )
        exporter = OTLPSpanExporter(
            endpoint=settings.otlp_url.get_secret_value().rstrip("/") + "/v1/traces",
            timeout=EXPORT_SECONDS,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                _Masking(exporter),
                max_queue_size=QUEUE_SPANS,
                schedule_delay_millis=1000 * SCHEDULE_SECONDS,
                max_export_batch_size=BATCH_SPANS,
            )
        )
        self._tracer = self._provider.get_tracer("crochet_tasks", resource["service.version"])
        propagate.set_global_textmap(_W3C)  # no baggage: input of clients does not go into our messages
        for name in _EXPORT_LOGGERS:
            logger = logging.getLogger(name)
            logger.setLevel(logging.WARNING)
            logger.addFilter(_RateLimited())
        self._instrumentors: list[Any] = [CeleryInstrumentor(), RedisInstrumentor()]  # type: ignore[no-untyped-call]
        try:
            for each in self._instrumentors:
                each.instrument(tracer_provider=self._provider, meter_provider=NoOpMeterProvider())
        except BaseException:
            self.stop()  # or the libraries would stay instrumented
            raise

    def instrument(self, app: Any) -> None:
        FlaskInstrumentor().instrument_app(  # type: ignore[no-untyped-call]
            app,
            tracer_provider=self._provider,
            meter_provider=NoOpMeterProvider(),
            excluded_urls=UNTRACED,
            enable_commenter=False,
        )

    def stop(self) -> None:
        """Send what is left. Where the collector hangs, this takes longer than a process may wait."""
        for each in self._instrumentors:
            each.uninstrument()
        self._provider.shutdown()

    def span(self, name: str, attributes: Mapping[str, Any]) -> contextlib.AbstractContextManager[object]:
        return self._tracer.start_as_current_span(name, attributes=_named(attributes))

    def annotate(self, attributes: Mapping[str, Any]) -> None:
        trace.get_current_span().set_attributes(_named(attributes))

    @contextlib.contextmanager
    def statement(self, query: object) -> Iterator[None]:
        words = (query.decode(errors="replace") if isinstance(query, bytes) else str(query)).strip()
        if words in UNTRACED_STATEMENTS or not trace.get_current_span().is_recording():
            yield
            return
        # Not the current span: a caller that reads rows one by one does other things in between. It holds no values.
        about = {"db.system": "postgresql", "db.statement": words}
        span = self._tracer.start_span(words.split(maxsplit=1)[0], kind=SpanKind.CLIENT, attributes=about)
        try:
            yield
        finally:
            span.end()

    @contextlib.contextmanager
    def publishing(self, name: str, parent: str | None, links: Sequence[str]) -> Iterator[None]:
        linked = [Link(trace.get_current_span(_context(each)).get_span_context()) for each in links]
        with self._tracer.start_as_current_span(f"publish {name}", _context(parent), links=linked):
            yield

    def traceparent(self) -> str | None:
        carrier: dict[str, str] = {}
        _W3C.inject(carrier)
        return carrier.get("traceparent")

    def failed(self, error: BaseException) -> None:
        span = trace.get_current_span()
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, str(error)))

    def not_sent(self, task: Any, message: str) -> None:
        """End the span that the instrumentation began; it would wait for ever for the message to be sent."""
        begun = celery_utils.retrieve_context(task, message, is_publish=True)
        if begun is not None:
            begun[0].set_status(Status(StatusCode.ERROR))
            begun[0].end()
            celery_utils.detach_context(task, message, is_publish=True)


class _NoLoneClients(Sampler):
    """Drops traces that would begin with a client span, such as Redis' health check or a poll that finds nothing."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: trace.TraceState | None = None,
    ) -> SamplingResult:
        if kind is SpanKind.CLIENT:
            return SamplingResult(Decision.DROP)
        return self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"NoLoneClients{{{self._sampler.get_description()}}}"


class _Masking(SpanExporter):
    """Exports spans whose errors have no secrets and no values."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export(
            [_masked(span) if span.events or span.status.description else span for span in spans]
        )

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _masked(span: ReadableSpan) -> ReadableSpan:
    description = span.status.description
    status = span.status if description is None else Status(span.status.status_code, _first_line(description))
    return ReadableSpan(
        name=span.name,
        context=span.get_span_context(),
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
    """Of an exception its first line and where it was raised: what the database server adds holds values."""
    clean = {name: str(value) for name, value in (attributes or {}).items()}
    if "exception.message" in clean:
        clean["exception.message"] = _first_line(clean["exception.message"])
    if "exception.stacktrace" in clean:
        lines = clean["exception.stacktrace"].splitlines()
        clean["exception.stacktrace"] = "\n".join(line for line in lines if line.startswith(("  ", "Traceback")))
    return clean


def _first_line(words: str) -> str:
    return str(masked((words.strip().splitlines() or [""])[0]))


def _named(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {f"crochet.{name}": value for name, value in attributes.items()}


def _context(traceparent: str | None) -> Context:
    """What a traceparent says, or the beginning of a new trace; never what is current."""
    return _W3C.extract({} if traceparent is None else {"traceparent": traceparent}, context=Context())


def resource_of(service: str, queues: Sequence[str]) -> dict[str, Any]:
    """What traces and log lines say of the process that they come from."""
    described = {
        "service.namespace": "crochet",
        "service.name": f"crochet-{service}",
        "service.version": version(),
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
    }
    return described | ({"crochet.queues": list(queues)} if queues else {})


_EXPORT_LOGGERS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")


class _RateLimited(logging.Filter):
    """Lets one line through in QUIET_SECONDS: the exporter logs each batch that a collector does not take."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, _record: logging.LogRecord) -> bool:
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + QUIET_SECONDS
        return True
