"""Traces, by OpenTelemetry: set up in the process that does the work, sent to a collector by OTLP over HTTP.

Loaded only where there is an address (telemetry.begin). Statements are seen at the driver and not at SQLAlchemy: bulk
values go straight to the driver, and what goes through both would be told twice. None tells its values.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.celery import utils as celery_utils
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from crochet_tasks.settings import Settings, version
from crochet_tasks.telemetry import Noted
from crochet_tasks.telemetry.sampling import IDLE, Kept, Ratio

EXPORT_SECONDS = 3.0
"""that the collector may take for what is sent at once"""
EVERY_SECONDS, AT_ONCE, MOST_WAITING = 5.0, 512, 4096
"""how often spans are sent, how many together, and how many wait at the most: later ones take the place of the first"""
LONGEST_ATTRIBUTE = 4096
QUIET_SECONDS = 60.0
"""for which a collector's troubles are not told again"""
UNTRACED = "^https?://[^/]+/health/,^https?://[^/]+/metrics"
"""paths of the API that are asked every few seconds"""

_W3C = TraceContextTextMapPropagator()


class Tracing:
    """The traces of this process, which is not to fork afterwards."""

    def __init__(self, service: str, settings: Settings, queues: Sequence[str] = ()) -> None:
        assert settings.otlp_url is not None
        resource = _resource(service, queues)
        self._ratio = ratio = Ratio(settings.trace_ratio)
        self._provider = TracerProvider(
            sampler=ratio,
            resource=Resource.create(resource),
            shutdown_on_exit=False,  # it would wait for longer than we do
            span_limits=SpanLimits(max_span_attribute_length=LONGEST_ATTRIBUTE),
        )
        exporter = OTLPSpanExporter(
            endpoint=settings.otlp_url.get_secret_value().rstrip("/") + "/v1/traces",
            timeout=EXPORT_SECONDS,
        )
        batches = BatchSpanProcessor(
            exporter,
            max_queue_size=MOST_WAITING,
            schedule_delay_millis=1000 * EVERY_SECONDS,
            max_export_batch_size=AT_ONCE,
        )
        self._provider.add_span_processor(Kept(batches, ratio, settings.trace_slow))
        self._tracer = self._provider.get_tracer("crochet_tasks", resource["service.version"])
        propagate.set_global_textmap(_W3C)  # no baggage: what strangers send does not go into our messages
        for name in _TROUBLES:
            logger = logging.getLogger(name)
            logger.setLevel(logging.WARNING)  # whatever the parent process wants to hear of the libraries
            logger.addFilter(_Seldom())
        self._connect = vars(psycopg.Connection)["connect"]
        self._instrumentors: list[Any] = [
            CeleryInstrumentor(),  # type: ignore[no-untyped-call]
            PsycopgInstrumentor(),
            RedisInstrumentor(),
        ]
        try:
            for each in self._instrumentors:
                each.instrument(tracer_provider=self._provider, meter_provider=NoOpMeterProvider())
        except BaseException:
            self.stop()  # or what is instrumented by now would go on
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
        """Send what is left. It may take longer than anybody wants to wait, where the collector hangs."""
        for each in self._instrumentors:
            each.uninstrument()
        # The instrumentation leaves one that is bound to this very class, and makes no connections of others.
        setattr(psycopg.Connection, "connect", self._connect)  # noqa: B010 - mypy does not let a method be set
        self._provider.shutdown()

    @contextlib.contextmanager
    def span(self, name: str, attributes: Mapping[str, Any]) -> Iterator[Noted]:
        with self._tracer.start_as_current_span(name, attributes=_named(attributes)) as span:
            yield _Span(span)

    @contextlib.contextmanager
    def statement(self, query: str) -> Iterator[None]:
        if not self.tells_statements():
            yield
            return
        # Not made the current one: who reads the rows one by one does other things in between.
        about = {"db.system": "postgresql", "db.statement": query.strip()}
        name = query.split(maxsplit=1)[0]
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=about)
        try:
            yield
        finally:
            span.end()

    def tells_statements(self) -> bool:
        return self._ratio.tells_statements(trace.get_current_span().get_span_context())

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


class _Span(Noted):
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def set(self, **attributes: object) -> None:
        self._span.set_attributes(_named(attributes))


def _named(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {IDLE if name == "idle" else f"crochet.{name}": value for name, value in attributes.items()}


def _context(traceparent: str | None) -> Context:
    """What a traceparent says, or the beginning of a new trace; never what is current."""
    return _W3C.extract({} if traceparent is None else {"traceparent": traceparent}, context=Context())


def _resource(service: str, queues: Sequence[str]) -> dict[str, Any]:
    described = {
        "service.namespace": "crochet",
        "service.name": f"crochet-{service}",
        "service.version": version(),
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
    }
    return described | ({"crochet.queues": list(queues)} if queues else {})


_TROUBLES = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")


class _Seldom(logging.Filter):
    """Lets one line through in a while: what a collector's absence has to say, it says with each batch."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, _record: logging.LogRecord) -> bool:
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + QUIET_SECONDS
        return True
