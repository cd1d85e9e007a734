"""Declare metrics, and record them with prometheus_client's multiprocess mode. The table of them is metrics.py.

Each process of a service writes its own files into one folder; the service's HTTP endpoint adds them up
(metrics_endpoint.py). Before `begin` a metric does nothing and the library is not imported. Recording never raises:
where it fails, the process goes on without metrics.
"""

from __future__ import annotations

import logging
import struct
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from crochet_tasks.settings import inherited, remember

log = logging.getLogger(__name__)

Kind = Literal["counter", "gauge", "histogram"]
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""where prometheus_client finds the folder, also in processes that a service spawns"""

FAILURES = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    RuntimeError,
    MemoryError,
    BufferError,
    struct.error,
)
"""errors of recording; not every Exception: a task's soft time limit may be raised here"""


class _Recording:
    """Whether this process records."""

    on = False
    creating = threading.Lock()
    """two threads that create the same metric would each count for itself"""


class Metric:
    """One metric. `services`: the kinds of service that have it. `says`: its meaning, in one line.

    `across`: how a gauge of several processes of one service is added up, livesum or livemax.
    """

    def __init__(
        self,
        kind: Kind,
        name: str,
        unit: str,
        labels: str,
        services: tuple[str, ...],
        says: str,
        buckets: tuple[float, ...] = (),
        across: Literal["livesum", "livemax"] = "livesum",
    ) -> None:
        self.kind, self.name, self.unit, self.labels = kind, name, unit, tuple(labels.split())
        self.services, self.says, self.buckets, self.across = services, says, buckets, across
        self._metric: Any = None
        self._children: dict[tuple[object, ...], Any] = {}
        """by the values of the labels: the library's own look-up takes twice as long as a record"""
        METRICS.append(self)

    def add(self, number: float = 1, **labels: object) -> None:
        """Increase a counter or gauge."""
        if number:
            self._record("inc", number, labels)

    def set(self, value: float, **labels: object) -> None:
        """Set a gauge."""
        self._record("set", value, labels)

    def observe(self, value: float, **labels: object) -> None:
        """Add a value to a histogram."""
        self._record("observe", value, labels)

    def begin_at_zero(self) -> None:
        """Show the metric before anything is counted, so that its first rate is right."""
        if not self.labels and self.kind != "gauge":
            self._child(())

    def forget(self) -> None:
        self._metric, self._children = None, {}

    def _record(self, method: str, value: float, labels: Mapping[str, object]) -> None:
        if not _Recording.on:
            return
        try:
            key = tuple([labels[name] for name in self.labels])
            child = self._children.get(key)
            getattr(self._child(key) if child is None else child, method)(value)
        except FAILURES as error:
            _stop(error)

    def _child(self, key: tuple[object, ...]) -> Any:
        with _Recording.creating:
            if self._metric is None:
                self._metric = self.create()
            if key not in self._children:
                self._children[key] = self._metric.labels(*key) if key else self._metric
            return self._children[key]

    def create(self) -> Any:
        """Return the library's metric of this name, which is in no registry."""
        import prometheus_client as library

        about = (self.name, self.says, self.labels)
        if self.kind == "counter":
            return library.Counter(*about, registry=None)
        if self.kind == "gauge":
            return library.Gauge(*about, registry=None, multiprocess_mode=self.across)
        return library.Histogram(*about, registry=None, buckets=self.buckets)


METRICS: list[Metric] = []
"""all of them, in the order of their declaration"""


def begin(folder: Path, service: str) -> None:
    """Record from now on, in this process and those that it forks, into files of this folder."""
    from prometheus_client import values

    remember(FOLDER_VARIABLE, str(folder))
    values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]  # it may have been imported before
    _Recording.on = True
    for metric in METRICS:
        metric.forget()
    try:
        for metric in METRICS:
            if service in metric.services:
                metric.begin_at_zero()
    except FAILURES as error:
        _stop(error)


def join(service: str) -> None:
    """Record in a process that a service spawned instead of forking it, where the service records."""
    folder = inherited(FOLDER_VARIABLE)
    if folder is not None and not _Recording.on:
        begin(Path(folder), service)


def end() -> None:
    """Record nothing more, and close the files."""
    _Recording.on = False
    for metric in METRICS:
        metric.forget()
    if "prometheus_client.values" in sys.modules:
        sys.modules["prometheus_client.values"].close_all_multiprocess_files()


def recorded() -> bool:
    """Whether this process records: ask before computing what costs more than a record."""
    return _Recording.on


def _stop(error: Exception) -> None:
    """Stop recording in this process: its files are missing or damaged, or there is no memory for them."""
    if _Recording.on:
        _Recording.on = False
        log.warning("metrics_not_recorded", extra={"error": f"{type(error).__name__}: {error}"})
