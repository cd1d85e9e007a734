"""Instruments: what records a metric in a process. The metrics themselves are in metrics.py.

Each process writes into its own files of a folder in memory; the service's exporter reads them (metrics_reading.py).
Until `begin` was called an instrument does nothing, and the library behind it is not imported. To record never raises:
where it fails, the process goes on without.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
from bisect import bisect_left
from collections import Counter as Counted
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

log = logging.getLogger(__name__)

Kind = Literal["counter", "gauge", "histogram"]
Across = Literal["livesum", "livemax"]


class Declared(NamedTuple):
    """A metric; `services` are the kinds of service that have it, `says` its meaning in one line."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    services: tuple[str, ...]
    says: str
    buckets: tuple[float, ...] = ()
    across: Across = "livesum"
    """what a gauge of a service is where several of its processes have one"""


class _Recording:
    """Where this process records; `folder` is None while nothing is recorded."""

    folder: Path | None = None
    first = threading.Lock()
    """held while a series is made: two threads that make the same one would each count for itself"""
    forks = False
    """whether a forked process is seen to"""


# Not all exceptions: a task's time limit is raised wherever its process happens to be, and has to get through.
_FAILURES = (
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


def begin(folder: Path, service: str) -> None:
    """Record from now on, in this process and those that it forks, into files of this folder.

    Each process has its own files there. What has no labels begins at 0.
    """
    from prometheus_client import values

    from crochet_tasks.settings import remember
    from crochet_tasks.telemetry.metrics_files import Reserved

    if not _Recording.forks:
        _Recording.forks = True
        os.register_at_fork(after_in_child=_first_in_child)
    remember("PROMETHEUS_MULTIPROC_DIR", str(folder))  # where the library looks
    values.MmapedDict = Reserved  # type: ignore[attr-defined]
    values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]  # it may have been imported before
    for instrument in INSTRUMENTS:
        instrument.forget()
    _Recording.folder = folder
    for instrument in INSTRUMENTS:
        if not instrument.declared.labels and instrument.declared.kind != "gauge" and service in instrument.services:
            instrument.begin()


def end() -> None:
    """Record nothing more."""
    _Recording.folder = None
    for instrument in INSTRUMENTS:
        instrument.forget()


def _first_in_child() -> None:
    _Recording.first = threading.Lock()  # whichever thread held it is not here


def _stop(error: Exception) -> None:
    """Record nothing more in this process: its files are gone, there is no memory for them, or they are spoilt."""
    if _Recording.folder is not None:
        _Recording.folder = None
        log.warning("metrics_not_recorded", extra={"error": f"{type(error).__name__}: {error}"})


def recorded() -> bool:
    """Whether anything is recorded: what costs more than a record asks first."""
    return _Recording.folder is not None


class Instrument:
    """Records one metric; what is declared of it is for all to read."""

    def __init__(self, declared: Declared) -> None:
        self.declared = declared
        self.services = declared.services
        self._metric: Any = None
        self._children: dict[tuple[object, ...], Any] = {}

    def begin(self) -> None:
        if _Recording.folder is not None:
            try:
                self._child({})
            except _FAILURES as error:
                _stop(error)

    def forget(self) -> None:
        self._metric, self._children = None, {}

    def _child(self, labels: Mapping[str, object]) -> Any:
        key = tuple([labels[name] for name in self.declared.labels])
        child = self._children.get(key)
        return self._first(key) if child is None else child

    def _first(self, key: tuple[object, ...]) -> Any:
        with _Recording.first:
            child = self._children.get(key)
            if child is None:
                if self._metric is None:
                    self._metric = self._made()
                child = self._metric.labels(*map(str, key)) if key else self._metric
                self._children[key] = child
            return child

    def _made(self) -> Any:
        import prometheus_client

        declared = self.declared
        about = (declared.name, declared.says, declared.labels)
        if declared.kind == "counter":
            return prometheus_client.Counter(*about, registry=None)
        if declared.kind == "gauge":
            return prometheus_client.Gauge(*about, registry=None, multiprocess_mode=declared.across)
        return prometheus_client.Histogram(*about, registry=None, buckets=declared.buckets)


class Counter(Instrument):
    def add(self, number: float = 1, **labels: object) -> None:
        if _Recording.folder is not None and number:
            try:
                self._child(labels).inc(number)
            except _FAILURES as error:
                _stop(error)


class Gauge(Instrument):
    def set(self, value: float, **labels: object) -> None:
        if _Recording.folder is not None:
            try:
                self._child(labels).set(value)
            except _FAILURES as error:
                _stop(error)

    def add(self, number: float, **labels: object) -> None:
        if _Recording.folder is not None:
            try:
                self._child(labels).inc(number)
            except _FAILURES as error:
                _stop(error)


class Histogram(Instrument):
    def observe_all(self, values: Sequence[float], **labels: object) -> None:
        """As `observe` of each, at the price of one or two: the library has no such thing."""
        if _Recording.folder is not None:
            try:
                child = self._child(labels)
                bounds, buckets = child._upper_bounds, child._buckets  # noqa: SLF001 - as it does itself, one by one
                child._sum.inc(sum(values))  # noqa: SLF001
                for place, number in Counted(bisect_left(bounds, value) for value in values).items():
                    buckets[place].inc(number)
            except _FAILURES as error:
                _stop(error)

    def observe(self, value: float, **labels: object) -> None:
        if _Recording.folder is not None:
            try:
                self._child(labels).observe(value)
            except _FAILURES as error:
                _stop(error)


INSTRUMENTS: list[Instrument] = []
"""all of them, in the order of the table"""


def counter(name: str, unit: str, labels: str, services: tuple[str, ...], says: str) -> Counter:
    made = Counter(Declared(name, "counter", unit, tuple(labels.split()), services, says))
    INSTRUMENTS.append(made)
    return made


def gauge(name: str, unit: str, labels: str, services: tuple[str, ...], says: str, across: Across = "livesum") -> Gauge:
    made = Gauge(Declared(name, "gauge", unit, tuple(labels.split()), services, says, across=across))
    INSTRUMENTS.append(made)
    return made


def histogram(
    name: str, unit: str, labels: str, services: tuple[str, ...], says: str, buckets: tuple[float, ...]
) -> Histogram:
    made = Histogram(Declared(name, "histogram", unit, tuple(labels.split()), services, says, buckets))
    INSTRUMENTS.append(made)
    return made
