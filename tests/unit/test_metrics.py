"""Metrics: what is declared, documented and recorded, how processes' numbers come together, and that off means off."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state

from crochet_tasks import health, instruments, metrics, metrics_endpoint, progress
from crochet_tasks.errors import InvalidSetting
from crochet_tasks.health import Beat
from crochet_tasks.metrics_otlp import Push
from crochet_tasks.metrics_reading import Reading
from crochet_tasks.progress import Progress
from crochet_tasks.settings import Settings
from crochet_tasks.up import Wanted, _services, _with_metrics
from tests.collectors import Otlp
from tests.server import take_port

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `((?:crochet|http)_\w+)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \| (.*) \|$", re.MULTILINE)

# ── the table ───────────────────────────────────────────────────────────────────────────────────


def test_the_document_lists_every_metric_as_it_is_declared() -> None:
    """And none that there is not."""
    documented = {row[0]: row[1:] for row in ROW.findall(DOCUMENT.read_text())}
    declared = {
        each.name: (
            each.kind + (", greatest" if each.kind == "gauge" and each.across == "livemax" else ""),
            each.unit,
            ", ".join(f"`{label}`" for label in each.labels),
            "all" if each.services == metrics.ALL else ", ".join(each.services),
            each.says,
        )
        for each in metrics.every()
    }
    assert documented == declared


@pytest.mark.parametrize("declared", metrics.every(), ids=lambda declared: str(declared.name))
def test_names_and_units_are_as_prometheus_wants_them(declared: instruments.Declared) -> None:
    """Base units as suffix, counters `_total`; no label without a bound."""
    assert re.fullmatch(r"(crochet|http_server)_[a-z_]+[a-z]", declared.name)
    assert declared.name.endswith("_total") == (declared.kind == "counter")
    for unit in ("seconds", "bytes"):
        assert (unit in declared.name) == (declared.unit == unit)
    assert (declared.kind == "histogram") == bool(declared.buckets)
    assert list(declared.buckets) == sorted(set(declared.buckets))
    assert not {"corpus", "text", "work", "key", "path", "id", "tenant"} & set(declared.labels)


def test_every_metric_is_recorded_somewhere() -> None:
    """None is only declared."""
    root = Path(metrics.__file__).parents[1]
    sources = [path for folder in ("crochet_tasks", "api") for path in (root / folder).rglob("*.py")]
    code = "\n".join(path.read_text() for path in sources)
    names = {name for name, value in vars(metrics).items() if isinstance(value, instruments.Instrument)}
    assert len(names) == len(instruments.INSTRUMENTS)
    assert {name for name in names if f"metrics.{name}" not in code} == set()


def test_there_are_few_shapes() -> None:
    """What nobody looks at goes by one name."""
    sides = range(2, 65)
    flat = {metrics.shape((a, b)) for a in sides for b in range(a, 65)}
    solid = {metrics.shape((a, b, c)) for a in sides for b in range(a, 20) for c in range(b, 20)}
    assert len(flat | solid) < 60
    assert (metrics.shape((2, 3)), metrics.shape((2, 2, 2, 2)), metrics.shape((8, 8))) == ("2x3", "other", "other")


# ── recording ───────────────────────────────────────────────────────────────────────────────────


def test_without_a_port_or_address_nothing_is_loaded_or_made() -> None:
    """Off costs nothing: no library, no file, no process."""
    program = (
        "import sys\n"
        "from crochet_tasks import metrics, metrics_endpoint, orthos\n"
        "from crochet_tasks.settings import Settings\n"
        "metrics_endpoint.start('worker', 'worker', Settings(metrics_port=None, otlp_url=None))\n"
        "metrics.TASKS.add(task='x', outcome='done')\n"
        "print(sorted(set(sys.modules) & {'prometheus_client', 'opentelemetry.exporter', 'requests'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Metrics are recorded here as long as the test runs."""
    instruments.begin(tmp_path, "worker")
    yield tmp_path
    instruments.end()


def in_child(step: Any, *, killed: bool = False) -> None:
    """Do something in a process that then ends or is killed."""
    pid = os.fork()
    if pid == 0:
        step()
        os.kill(os.getpid(), 9) if killed else os._exit(0)
    os.waitpid(pid, 0)


def values(reading: Reading) -> dict[str, float]:
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in reading.families(ended=True)
        for sample in family.samples
    }


@pytest.mark.parametrize("killed", [False, True])
def test_what_a_process_counted_is_kept_and_what_it_held_is_not(folder: Path, killed: bool) -> None:
    """However it ended; and its files are taken away."""
    reading = Reading(folder, os.getpid(), "worker", folder)

    def work() -> None:
        metrics.DONE.add(3, kind="grow")
        metrics.BATCH.observe(20)
        metrics.HELD.set(5, queue="search")

    metrics.DONE.add(1, kind="grow")
    metrics.HELD.set(2, queue="search")
    for _ in range(3):
        in_child(work, killed=killed)
        values(reading)
    found = values(reading)
    assert found["crochet_work_done_total kind=grow"] == 10
    assert found["crochet_batch_orthos_count"] == 3
    assert (found["crochet_batch_orthos_bucket le=16.0"], found["crochet_batch_orthos_bucket le=64.0"]) == (0, 3)
    assert found["crochet_worker_messages_held queue=search"] == 2
    pids = {path.stem.rpartition("_")[2] for path in folder.glob("*.db")}
    assert pids == {"0", str(os.getpid())}


def test_what_has_no_labels_begins_at_zero(folder: Path) -> None:
    """A rate is there from the first time on. What the service has nothing to do with is not shown."""
    found = values(Reading(folder, os.getpid(), "worker", folder))
    assert found["crochet_phrases_consulted_total"] == 0
    assert "crochet_census_failures_total" not in found


def test_a_port_that_is_taken_is_named() -> None:
    """Before anything is begun."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidSetting, match=rf"CROCHET_METRICS_PORT: cannot listen on 127.0.0.1:{port}"):
            metrics_endpoint.start("worker", "worker", Settings(metrics_port=port))
    assert not instruments.recorded()


def test_up_gives_each_service_a_port() -> None:
    """One after the other; Flower has metrics of its own."""
    services = _services(Wanted(search=1, api=True, flower=True))
    given = [service.variables for service in _with_metrics(services, Settings(metrics_port=9100))]
    assert given == [(("CROCHET_METRICS_PORT", str(port)),) for port in range(9100, 9105)] + [()]
    assert _with_metrics(services, Settings()) == services


# ── OTLP ────────────────────────────────────────────────────────────────────────────────────────


def test_a_collector_gets_what_prometheus_sees(folder: Path) -> None:
    """Counters as sums, buckets each by itself, with units; and a collector that is away is no error."""
    metrics.DONE.add(7, kind="grow")
    for seconds in (0.02, 0.02, 3.0):
        metrics.TASK_SECONDS.observe(seconds, task="search.grow")
    reading = Reading(folder, os.getpid(), "worker", folder)
    with Otlp() as collector:
        Push(collector.url, "worker", reading, 2).send()
    Push(f"http://127.0.0.1:{take_port()}", "worker", reading, 2).send()
    (sent,) = collector.metrics
    (resource,) = sent.resource_metrics
    assert {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"] == (
        "crochet-worker"
    )
    by_name = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    done, took = by_name["crochet_work_done"], by_name["crochet_task_duration_seconds"]
    assert (done.unit, done.sum.is_monotonic, done.sum.data_points[0].as_double) == ("{items}", True, 7.0)
    (point,) = took.histogram.data_points
    assert (took.unit, point.count, list(point.explicit_bounds)) == ("s", 3, list(metrics.MIDDLE))
    assert {metrics.MIDDLE[place]: count for place, count in enumerate(point.bucket_counts) if count} == {
        0.025: 2,
        5: 1,
    }


# ── health ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(health_dir=tmp_path / "health")


def test_a_service_is_well_as_long_as_it_says_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last words tell what is wrong; one that is gone is not there."""
    beat = Beat(settings, "worker[search]")
    assert health.look(settings) == []
    beat.well()
    assert [seen.problem for seen in health.look(settings, "worker")] == [None]
    assert health.look(settings, "relay") == []
    beat.unwell("broken")
    assert [seen.problem for seen in health.look(settings)] == [None]  # not for long enough
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60)
    assert [seen.problem for seen in health.look(settings, "worker[search]")] == ["broken, for 60 s"]
    beat.end()
    assert health.look(settings) == []


def test_the_word_of_a_killed_service_does_not_count(settings: Settings) -> None:
    in_child(Beat(settings, "relay").well)  # under the pid of this process
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    file = settings.health_dir / "relay-x.json" if settings.health_dir else Path()
    file.write_text(json.dumps({"service": "relay", "pid": int(dead.stdout), "well": time.time(), "problem": None}))
    assert [seen.pid for seen in health.look(settings)] == [os.getpid()]
    assert not file.exists()


class Consumer:
    """What Progress sees of Celery's, with one queue: on a channel that still knows its tag."""

    def __init__(self, queue: str = "search", ready: int = 0, consumers: int = 1) -> None:
        self.connection = self
        self.task_consumer = SimpleNamespace(
            queues=[SimpleNamespace(name=queue)],
            _active_tags={queue: "1"},
            channel=SimpleNamespace(callbacks={"1": print}),
        )
        self.answer = (queue, ready, consumers)

    def channel(self) -> Consumer:
        return self

    def queue_declare(self, *_: object, passive: bool) -> tuple[str, int, int]:
        assert passive
        return self.answer

    def close(self) -> None: ...


def looked(consumer: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch, times: int = 3) -> int:
    """How often a worker with this consumer gives up, when looked at so often."""
    monkeypatch.setattr(progress, "ASK_SECONDS", 0.0)
    ended: list[None] = []
    watched = Progress(Beat(settings, "worker"), 150, lambda: ended.append(None))
    for _ in range(times):
        watched.look(consumer)
    return len(ended)


@pytest.mark.parametrize(
    ("consumer", "gives_up"),
    [
        (Consumer(), 0),
        (Consumer(consumers=0), 1),
        (Consumer(ready=3), 1),
        (Consumer("ingest", ready=3), 0),  # another worker gets them
    ],
    ids=["idle", "no consumer", "messages wait", "not its turn"],
)
def test_an_idle_worker_that_should_have_work_gives_up(
    consumer: Consumer, gives_up: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, and when it is sure."""
    assert looked(consumer, settings, monkeypatch, 1) == 0
    assert looked(consumer, settings, monkeypatch, 4) == gives_up


def test_a_busy_worker_does_not_give_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages wait whenever it is looked at, and it has nothing in hand just then; but it takes some in between."""
    monkeypatch.setattr(progress, "ASK_SECONDS", 0.0)
    taken: Counter[str] = Counter()
    monkeypatch.setattr(state, "total_count", taken)
    ended: list[None] = []
    watched = Progress(Beat(settings, "worker"), 150, lambda: ended.append(None))
    for _ in range(4):
        watched.look(Consumer(ready=3))
        assert ended == []
        taken["search.grow"] += 1
    for _ in range(3):
        watched.look(Consumer(ready=3))
    assert len(ended) == 1
