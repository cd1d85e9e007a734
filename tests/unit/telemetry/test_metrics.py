"""Metrics: what is declared, documented and recorded, how processes' numbers come together, and that off means off."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import InvalidatePoolError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from crochet_tasks.app import Step, app
from crochet_tasks.broker.messages import Knock
from crochet_tasks.db import measured
from crochet_tasks.db.sessions import Database, once_committed
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import instruments, metrics
from crochet_tasks.telemetry.metrics_otlp import Push
from crochet_tasks.telemetry.metrics_reading import Reading
from tests.support.children import in_child
from tests.support.collectors import Otlp
from tests.support.paths import ROOT
from tests.support.server import take_port

DOCUMENT = ROOT / "docs" / "metrics.md"
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
    root = Path(metrics.__file__).parents[2]
    sources = [path for folder in ("crochet_tasks", "api") for path in (root / folder).rglob("*.py")]
    code = "\n".join(path.read_text() for path in sources)
    names = {name for name, value in vars(metrics).items() if isinstance(value, instruments.Instrument)}
    assert len(names) == len(instruments.INSTRUMENTS)
    assert {name for name in names if not re.search(rf"\bmetrics\.{name}\b", code)} == set()


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
        "from crochet_tasks import orthos\n"
        "from crochet_tasks.telemetry import metrics, metrics_endpoint\n"
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


def values(reading: Reading) -> dict[str, float]:
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in reading.families(ended=True)
        for sample in family.samples
    }


def test_several_values_at_once_are_as_many_by_themselves(folder: Path) -> None:
    """Also those that are the bound of a bucket, and beyond all of them."""
    several = [0.0, 0.001, 0.0011, 5.0, 1000.0, *metrics.STATEMENT.declared.buckets]
    metrics.STATEMENT.observe_all(several, operation="select")
    for value in several:
        metrics.STATEMENT.observe(value, operation="insert")
    found = values(Reading(folder, os.getpid(), "worker", folder))
    name = "crochet_db_statement_duration_seconds"
    told: dict[str, dict[str, float]] = {"select": {}, "insert": {}}
    for series, number in found.items():
        if series.startswith(name):
            operation = series.rpartition("operation=")[2]
            told[operation][series.replace(operation, "")] = number
    assert told["select"] == told["insert"]
    assert told["select"][f"{name}_count operation="] == len(several)


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


class Probe(Step):
    name = "probe"
    message = Knock

    def run(self, call: Knock) -> None:
        metrics.DONE.add(kind=str(call.corpus))


def full(*_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("trouble", ["its folder is gone", "memory is full"])
def test_a_task_that_cannot_be_counted_is_done(
    folder: Path, trouble: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The process says so once and goes on without; what others have counted can be read."""
    if trouble == "its folder is gone":
        shutil.rmtree(folder)
    else:
        monkeypatch.setattr(os, "posix_fallocate", full)

    def work() -> None:
        task = app.register_task(Probe())
        for _ in range(2):
            task.apply(args=[{"corpus": 1, "work": str(uuid.uuid4())}], throw=True)
        assert not instruments.recorded()
        assert [record.message for record in caplog.records].count("metrics_not_recorded") == 1

    in_child(work)
    reading = Reading(folder, os.getpid(), "worker", folder.parent)
    assert ("crochet_phrases_consulted_total" in values(reading)) == folder.exists()


def test_a_file_that_grows_reserves_its_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hole that is written into when memory is full kills the process."""
    monkeypatch.setattr(os, "posix_fallocate", full)
    for number in range(1000):
        metrics.DONE.add(kind=f"{number:0100}")
    assert not instruments.recorded()
    for path in folder.glob("*.db"):
        about = path.stat()
        assert 512 * about.st_blocks >= about.st_size > 0


def test_time_limits_are_not_taken_for_trouble_with_records(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are raised wherever the process happens to be."""

    def interrupted(_: object) -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(metrics.DONE, "_child", interrupted)
    with pytest.raises(SoftTimeLimitExceeded):
        metrics.DONE.add(kind="grow")
    assert instruments.recorded()
    assert folder.exists()


def test_threads_that_record_first_share_what_they_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would have a sum of its own else, and write it over the other's."""
    both, made, times = threading.Barrier(2), metrics.HELD._made, []

    def slow() -> Any:
        times.append(1)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.2)  # for the other one, which must not come
        return made()

    monkeypatch.setattr(metrics.HELD, "_made", slow)
    threads = [threading.Thread(target=metrics.HELD.add, args=(1,), kwargs={"queue": "search"}) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 1
    assert values(Reading(folder, os.getpid(), "worker", folder))["crochet_worker_messages_held queue=search"] == 2


def test_files_that_cannot_be_read_are_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is just being made, and what is spoilt; those of dead processes are taken away."""
    metrics.DONE.add(3, kind="grow")
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    spoilt = {f"counter_{int(dead.stdout)}.db": b"", f"histogram_{int(dead.stdout)}.db": b"\x40\0\0\0" + b"\xff" * 60}
    made = {f"gauge_livesum_{os.getppid()}.db": b"", "another.db": b"?", "another_one.db": b"?"}
    for name, content in (spoilt | made).items():
        (folder / name).write_bytes(content)
    reading = Reading(folder, os.getpid(), "worker", folder)
    assert values(reading)["crochet_work_done_total kind=grow"] == 3
    left = {path.name for path in folder.glob("*.db")}
    assert not left & set(spoilt)
    assert left >= set(made)
    in_child(lambda: metrics.DONE.add(4, kind="grow"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        (folder / "counter_0.db").unlink(missing_ok=True)
        assert values(reading)["crochet_work_done_total kind=grow"] == 7
    for _ in range(2):
        assert values(reading)["crochet_work_done_total kind=grow"] == 7


def test_what_has_no_labels_begins_at_zero(folder: Path) -> None:
    """A rate is there from the first time on. What the service has nothing to do with is not shown."""
    found = values(Reading(folder, os.getpid(), "worker", folder))
    assert found["crochet_phrases_consulted_total"] == 0
    assert "crochet_census_failures_total" not in found


# ── the database ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def database(folder: Path) -> Iterator[Database]:
    """One whose connections are SQLite's; what is measured is the pool."""
    opened = Database("postgresql://nobody@127.0.0.1:9/none", Settings())
    opened.engine = create_engine("sqlite://", poolclass=QueuePool, pool_size=1)
    yield opened
    opened.close()
    assert folder.exists()


def test_what_fails_after_the_commit_does_not_fail_what_is_committed(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """What else is to be done after it is done."""
    done: list[str] = []

    def fails() -> None:
        raise ValueError

    with database.transaction() as connection:
        connection.execute(text("create table x (y int)"))
        once_committed(connection, fails)
        once_committed(connection, lambda: done.append("counted"))
    with database.transaction() as connection:
        assert connection.execute(text("select count(*) from x")).scalar() == 0
    assert done == ["counted"]
    assert [record.message for record in caplog.records] == ["not_done_after_commit"]


def test_connections_that_could_not_be_had_are_not_counted_as_given_back(database: Database, folder: Path) -> None:
    """Nor is a closed pool's limit counted any more."""
    away = False

    def refuse(*_: object) -> None:
        if away:
            raise InvalidatePoolError

    event.listen(database.engine, "checkout", refuse)
    event.listen(database.engine, "do_connect", refuse)
    watched = measured.watch(database.engine, 5)
    reading = Reading(folder, os.getpid(), "worker", folder)

    def seen() -> tuple[float, float]:
        found = values(reading)
        return found.get("crochet_db_connections_used", 0), found["crochet_db_connections_limit"]

    before = seen()[1]
    for _ in range(3):
        away = False
        with database.engine.connect():
            assert seen() == (1, before)
        away = True
        with pytest.raises(SQLAlchemyError):
            database.engine.connect()  # there is one, which does not work, and no other can be had
        assert seen() == (0, before)
    watched.close()
    watched.close()
    database.close()
    assert seen() == (0, 0)


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
