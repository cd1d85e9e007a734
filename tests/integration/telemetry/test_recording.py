"""Recording metrics: how processes' numbers come together, what is left of those that died, and that off means off."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from psycopg import sql
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import InvalidatePoolError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from crochet_tasks import ingest, merging
from crochet_tasks.app import Step, app, charged
from crochet_tasks.broker.messages import Trigger
from crochet_tasks.db import corpora, measured, tenants
from crochet_tasks.db.process import Process
from crochet_tasks.db.sessions import Database, once_committed
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import instruments, metrics
from crochet_tasks.telemetry.metrics_endpoint import Files
from tests.support import steps
from tests.support.children import in_child

pytestmark = pytest.mark.integration


def test_without_a_port_nothing_is_loaded_or_made() -> None:
    """Off costs nothing: no library, no file, no thread, whatever else telemetry does."""
    program = (
        "import sys, threading\n"
        "from crochet_tasks import orthos\n"
        "from crochet_tasks.telemetry import metrics, metrics_endpoint\n"
        "from crochet_tasks.settings import Settings\n"
        "metrics_endpoint.start('worker', 'worker', Settings(metrics_port=None, otlp_url='http://127.0.0.1:9'))\n"
        "metrics.TASKS.add(task='x', outcome='done')\n"
        "print(sorted(set(sys.modules) & {'prometheus_client', 'psutil'}), threading.active_count())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[] 1\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Metrics are recorded here as long as the test runs."""
    instruments.begin(tmp_path, "worker")
    yield tmp_path
    instruments.end()


def values(files: Files) -> dict[str, float]:
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in files.collect()
        for sample in family.samples
    }


def count_something() -> None:
    metrics.DONE.add(3, kind="search")
    metrics.BATCH.observe(20)
    metrics.UNACKNOWLEDGED.set(5, queue="search")


@pytest.mark.parametrize("killed", [False, True])
def test_what_a_process_counted_is_kept_and_what_it_held_is_not(folder: Path, killed: bool) -> None:
    """However it ended, and whenever Prometheus asks: no counter falls."""
    files = Files(folder)
    metrics.DONE.add(1, kind="search")
    metrics.UNACKNOWLEDGED.set(2, queue="search")
    for number in range(1, 4):
        in_child(count_something, killed=killed)
        for _ in range(2):
            assert values(files)["crochet_work_done_total kind=search"] == 1 + 3 * number
    found = values(files)
    assert found["crochet_batch_orthos_count"] == 3
    assert (found["crochet_batch_orthos_bucket le=16.0"], found["crochet_batch_orthos_bucket le=64.0"]) == (0, 3)
    assert found["crochet_worker_messages_held queue=search"] == 2


def test_many_short_lived_children_leave_no_files(folder: Path) -> None:
    """Those of living processes and one of each type for all that ended, also without a scrape."""
    files = Files(folder)
    for number in range(60):
        in_child(count_something, killed=bool(number % 2))
        files.merge_ended()  # as after each fork
    assert {path.stem.rpartition("_")[2] for path in folder.glob("*.db")} <= {"0", str(os.getpid())}
    assert sum(path.stat().st_size for path in folder.glob("*.db")) < 1_000_000
    assert values(files)["crochet_work_done_total kind=search"] == 180


def test_a_child_adds_nothing_up(folder: Path) -> None:
    """Two processes that did it at once would count twice."""
    files = Files(folder)
    in_child(count_something)
    before = sorted(folder.iterdir())
    in_child(files.merge_ended)
    assert sorted(folder.iterdir()) == before


def test_a_spawned_process_joins(folder: Path) -> None:
    """One that is not forked finds the folder in its environment."""
    program = (
        "from crochet_tasks import telemetry; from crochet_tasks.settings import Settings\n"
        "from crochet_tasks.telemetry import metrics\n"
        "telemetry.begin('api', Settings(metrics_port=9)); metrics.DONE.add(4, kind='search')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert values(Files(folder))["crochet_work_done_total kind=search"] == 4


class Probe(Step):
    name = "probe"
    message = Trigger

    def run(self, call: Trigger) -> None:
        metrics.DONE.add(kind=str(call.corpus))


def test_a_task_that_cannot_be_counted_is_done(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The process logs that once and goes on without metrics."""
    shutil.rmtree(folder)

    def work() -> None:
        task = app.register_task(Probe())
        for _ in range(2):
            task.apply(args=[{"corpus": 1, "work": str(uuid.uuid4())}], throw=True)
        assert not instruments.recorded()
        assert [record.message for record in caplog.records].count("metrics_not_recorded") == 1

    in_child(work)
    assert values(Files(folder)) == {}


def test_processor_time_is_the_tenants(folder: Path, process: Process) -> None:
    """Of tasks and of merges, by the number of the tenant; one that fails counts, too."""
    with process.database.transaction() as connection:
        tenant = tenants.add(connection, "library")
        assert tenant is not None
        theirs = corpora.get_or_create(connection, "theirs", {}, tenant)
    mine = steps.new_corpus(process)
    ingest.ingest({"corpus": mine.id, "work": str(uuid.uuid4())})
    with contextlib.suppress(ZeroDivisionError), charged(theirs.id):
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        _ = 1 / 0
    merging.merge(theirs.id, [2, 2])
    with charged(999_999):
        pass
    found = {name: value for name, value in values(Files(folder)).items() if "cpu_seconds" in name}
    assert found.keys() >= {f"crochet_task_cpu_seconds_total tenant={each}" for each in (1, tenant, "other")}
    assert found[f"crochet_task_cpu_seconds_total tenant={tenant}"] >= 0.05


def test_time_limits_are_not_taken_for_trouble_with_records(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are raised wherever the process happens to be."""

    def interrupted() -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(metrics.DONE, "create", interrupted)
    with pytest.raises(SoftTimeLimitExceeded):
        metrics.DONE.add(kind="search")
    assert instruments.recorded()
    assert folder.exists()


def test_threads_that_record_first_share_what_they_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would have a sum of its own else, and write it over the other's."""
    create, times, both = metrics.UNACKNOWLEDGED.create, [], threading.Barrier(2)

    def counted() -> Any:
        times.append(1)
        return create()

    def record() -> None:
        both.wait()
        metrics.UNACKNOWLEDGED.add(1, queue="search")

    monkeypatch.setattr(metrics.UNACKNOWLEDGED, "create", counted)
    threads = [threading.Thread(target=record) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 1
    assert values(Files(folder))["crochet_worker_messages_held queue=search"] == 2


def test_files_that_cannot_be_read_are_left_out(folder: Path) -> None:
    """One that is just being made, and damaged ones; those of dead processes are removed."""
    metrics.DONE.add(3, kind="search")
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    damaged = {f"counter_{int(dead.stdout)}.db": b"", f"histogram_{int(dead.stdout)}.db": b"\x40\0\0\0" + b"\xff" * 60}
    made = {f"gauge_livesum_{os.getppid()}.db": b"", "another.db": b"?", "another_one.db": b"?"}
    for name, content in (damaged | made).items():
        (folder / name).write_bytes(content)
    assert values(Files(folder))["crochet_work_done_total kind=search"] == 3
    left = {path.name for path in folder.glob("*.db")}
    assert not left & set(damaged)
    assert left >= set(made)


def test_what_has_no_labels_begins_at_zero(folder: Path) -> None:
    """A rate is there from the first time on. What the service has nothing to do with is not shown."""
    found = values(Files(folder))
    assert found["crochet_phrases_due_total"] == 0
    assert "crochet_census_failures_total" not in found


# ── the database ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def sqlite(folder: Path) -> Iterator[Database]:
    """One whose connections are SQLite's; what is measured is the pool."""
    opened = Database("postgresql://nobody@127.0.0.1:9/none", Settings())
    opened.engine = create_engine("sqlite://", poolclass=QueuePool, pool_size=1)
    yield opened
    opened.close()
    assert folder.exists()


def test_what_fails_after_the_commit_does_not_fail_what_is_committed(
    sqlite: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """What else is to be done after it is done."""
    done: list[str] = []

    def fails() -> None:
        raise ValueError

    with sqlite.transaction() as connection:
        connection.execute(text("create table x (y int)"))
        once_committed(connection, fails)
        once_committed(connection, lambda: done.append("counted"))
    with sqlite.transaction() as connection:
        assert connection.execute(text("select count(*) from x")).scalar() == 0
    assert done == ["counted"]
    assert [record.message for record in caplog.records] == ["after_commit_failed"]


def test_connections_that_could_not_be_had_are_not_counted_as_given_back(sqlite: Database, folder: Path) -> None:
    """Nor is a closed pool's limit counted any more."""
    away = False

    def refuse(*_: object) -> None:
        if away:
            raise InvalidatePoolError

    event.listen(sqlite.engine, "checkout", refuse)
    event.listen(sqlite.engine, "do_connect", refuse)
    watched = measured.count_connections(sqlite.engine, 5)
    files = Files(folder)

    def seen() -> tuple[float, float]:
        found = values(files)
        return found.get("crochet_db_connections_used", 0), found["crochet_db_connections_limit"]

    before = seen()[1]
    for _ in range(3):
        away = False
        with sqlite.engine.connect():
            assert seen() == (1, before)
        away = True
        with pytest.raises(SQLAlchemyError):
            sqlite.engine.connect()  # there is one, which does not work, and no other can be had
        assert seen() == (0, before)
    watched.close()
    watched.close()
    sqlite.close()
    assert seen() == (0, 0)


def test_statements_are_counted_by_what_they_do(folder: Path, server: str) -> None:
    """Through SQLAlchemy and straight to the driver, one by one and many at once; not one that fails."""
    with contextlib.closing(Database(server, Settings())) as database, database.transaction() as connection:
        connection.exec_driver_sql("CREATE TEMPORARY TABLE x (y int)")
        connection.execute(text("INSERT INTO x VALUES (:y)"), [{"y": 1}, {"y": 2}])
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute(sql.SQL("SELECT y FROM x"))
        driver.execute(b"WITH z AS (SELECT 1) SELECT * FROM z")
    found = values(Files(folder))
    name = "crochet_db_statement_duration_seconds_count operation="
    counted = {each.removeprefix(name): number for each, number in found.items() if each.startswith(name)}
    assert counted.pop("other") >= 1  # CREATE, and what SQLAlchemy asks at first
    assert counted.pop("select") >= 1
    assert counted == {"insert": 1}
