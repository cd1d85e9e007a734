"""Instruments: what records a metric in a process. The metrics themselves are in metrics.py.

Each process writes into its own files of a folder in memory; the service's exporter reads them (metrics_reading.py).
Until `begin` was called an instrument does nothing, and the library behind it is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

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


def begin(folder: Path, service: str) -> None:
    """Record from now on, in this process and those that it forks, into files of this folder.

    Each process has its own files there. What has no labels begins at 0.
    """
    from prometheus_client import values

    from crochet_tasks.settings import remember

    remember("PROMETHEUS_MULTIPROC_DIR", str(folder))  # where the library looks
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
        self._child({})

    def forget(self) -> None:
        self._metric, self._children = None, {}

    def _child(self, labels: Mapping[str, object]) -> Any:
        key = tuple([labels[name] for name in self.declared.labels])
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
            self._child(labels).inc(number)


class Gauge(Instrument):
    def set(self, value: float, **labels: object) -> None:
        if _Recording.folder is not None:
            self._child(labels).set(value)

    def add(self, number: float, **labels: object) -> None:
        if _Recording.folder is not None:
            self._child(labels).inc(number)


class Histogram(Instrument):
    def observe(self, value: float, **labels: object) -> None:
        if _Recording.folder is not None:
            self._child(labels).observe(value)


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
