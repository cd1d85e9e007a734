"""Metrics to an OTLP address: the exporter's numbers, cumulative, in OpenTelemetry's data model.

Nothing is recorded for it, so its collector sees what Prometheus sees, also of processes that were killed. (An
instrument of the SDK takes about 9 µs a record where one of metrics.py takes 1 to 4; and what a process had not
exported when it was killed would be lost.)
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import export
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.core import Metric

from crochet_tasks.telemetry.metrics import every
from crochet_tasks.telemetry.metrics_reading import Reading

log = logging.getLogger(__name__)


class Push:
    """Sends all metrics of a service. Where that fails it is said once, and nothing else comes of it.

    `began`: since when all is counted, as a Unix time in ns; now, where it is not given.
    """

    def __init__(self, url: str, kind: str, reading: Reading, seconds: float, began: int | None = None) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # we say it ourselves, once
        self._exporter = OTLPMetricExporter(endpoint=f"{url.rstrip('/')}/v1/metrics", timeout=seconds)
        self._reading, self._seconds = reading, seconds
        # As traces have it (tracing.py), but for the process: these are the metrics of all of a service's.
        self._resource = Resource(
            {
                "service.namespace": "crochet",
                "service.name": f"crochet-{kind}",
                "service.version": reading.version,
                "service.instance.id": f"{socket.gethostname()}:{reading.parent}",
            }
        )
        self._scope = InstrumentationScope("crochet_tasks")
        self._units = {declared.name: declared.unit for declared in every()}
        self._began = began or time.time_ns()
        self._away = False

    def send(self, *, ended: bool = False) -> None:
        try:
            sent = self._exporter.export(export.MetricsData([self._data(ended=ended)]), 1000 * self._seconds)
        except Exception as error:  # noqa: BLE001 - whatever the libraries raise, metrics go on
            log.debug("metrics_not_sent", extra={"error": str(error)})
            sent = export.MetricExportResult.FAILURE
        away = sent is not export.MetricExportResult.SUCCESS
        if away and not self._away:
            log.warning("metrics_not_taken")  # once: it goes on trying without a word
        self._away = away

    def _data(self, *, ended: bool) -> export.ResourceMetrics:
        translated = list(self._translated(self._reading.families(ended=ended)))
        return export.ResourceMetrics(self._resource, [export.ScopeMetrics(self._scope, translated, "")], "")

    def _translated(self, families: Iterable[Metric]) -> Iterator[export.Metric]:
        now = time.time_ns()
        for family in families:
            unit = self._units.get(family.name, self._units.get(f"{family.name}_total", ""))
            data: Any
            if family.type == "histogram":
                data = export.Histogram(list(_histograms(family, self._began, now)), _CUMULATIVE)
            elif family.type == "counter":
                points = [_point(sample, self._began, now) for sample in family.samples]
                data = export.Sum(points, _CUMULATIVE, is_monotonic=True)
            else:
                data = export.Gauge([_point(sample, self._began, now) for sample in family.samples])
            yield export.Metric(family.name, family.documentation, _UNITS.get(unit, f"{{{unit}}}"), data)


_CUMULATIVE = export.AggregationTemporality.CUMULATIVE
_UNITS = {"seconds": "s", "bytes": "By", "1": "1"}
"""in UCUM, which OpenTelemetry wants; others are annotations"""


def _point(sample: Any, began: int, now: int) -> export.NumberDataPoint:
    return export.NumberDataPoint(sample.labels, began, now, sample.value)


def _histograms(family: Metric, began: int, now: int) -> Iterator[export.HistogramDataPoint]:
    """One point for each set of labels, of its buckets, which in Prometheus' form each hold those below it."""
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, int]]] = {}
    for sample in family.samples:
        labels = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
        if sample.name.endswith("_sum"):
            sums[labels] = sample.value
        elif sample.name.endswith("_bucket"):
            buckets.setdefault(labels, []).append((float(sample.labels["le"]), int(sample.value)))
    for labels, cumulative in buckets.items():
        cumulative.sort()
        counts = [count for _, count in cumulative]
        each = [count - before for count, before in zip(counts, [0, *counts], strict=False)]
        bounds = [bound for bound, _ in cumulative[:-1]]
        unknown: Any = None  # the least and the greatest value
        yield export.HistogramDataPoint(
            dict(labels), began, now, counts[-1], sums.get(labels, 0.0), each, bounds, unknown, unknown
        )
