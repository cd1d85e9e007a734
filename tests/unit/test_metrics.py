"""Metrics: what is declared, documented and recorded, how processes' numbers come together, and that off means off."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from celery.worker import state
from pydantic import SecretStr
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import InvalidatePoolError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from crochet_tasks import health, instruments, metrics, metrics_endpoint, metrics_otlp, metrics_reading, progress
from crochet_tasks.app import Step, app
from crochet_tasks.db import measured
from crochet_tasks.db.sessions import Database, once_committed
from crochet_tasks.errors import InvalidSetting
from crochet_tasks.health import Beat
from crochet_tasks.metrics_otlp import Push
from crochet_tasks.metrics_reading import Reading
from crochet_tasks.progress import Progress
from crochet_tasks.schemas import Knock
from crochet_tasks.settings import Settings
from crochet_tasks.up import Wanted, _services, _with_metrics
from tests.collectors import Hanging, Otlp
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
    """Do something in a process that then ends or is killed; it has to succeed."""
    pid = os.fork()
    if pid == 0:
        try:
            step()
            os.kill(os.getpid(), 9) if killed else os._exit(0)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == (-9 if killed else 0)


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


def test_a_port_that_is_taken_is_named() -> None:
    """Before anything is begun."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidSetting, match=rf"CROCHET_METRICS_PORT: cannot listen on 127.0.0.1:{port}"):
            metrics_endpoint.start("worker", "worker", Settings(metrics_port=port))
    assert not instruments.recorded()


@pytest.mark.parametrize(
    ("module", "call"),
    [(tempfile, "mkdtemp"), (os, "pidfd_open"), (os, "fork")],
    ids=["no room", "no right", "no process"],
)
def test_a_service_that_can_have_no_exporter_goes_on_without(
    module: Any, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves nothing behind."""
    monkeypatch.setattr(metrics_endpoint, "IN_MEMORY", tmp_path)
    monkeypatch.setattr(module, call, lambda *_, **__: full())
    port = take_port()
    metrics_endpoint.start("worker", "worker", Settings(metrics_port=port))
    assert not instruments.recorded()
    assert list(tmp_path.iterdir()) == []
    socket.create_server(("127.0.0.1", port)).close()


def test_what_killed_services_left_is_taken_away(tmp_path: Path) -> None:
    """Not what a living process still has, though its pid be of another container."""
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    names = ("left", "locked")
    left, locked = (tmp_path / f"crochet-metrics-{int(dead.stdout)}-{name}" for name in names)
    others = {tmp_path / f"crochet-metrics-{os.getpid()}-x", tmp_path / "crochet-metrics-x", tmp_path / "x"}
    for each in (left, locked, *others):
        each.mkdir()
        (each / "counter_1.db").touch()
    handle = metrics_endpoint._locked(locked)
    metrics_endpoint._sweep(tmp_path)
    os.close(handle)
    assert set(tmp_path.iterdir()) == {locked, *others}


@contextlib.contextmanager
def service(folder: Path, settings: Settings) -> Iterator[int]:
    """A process with an exporter that begins its work and does nothing; killed in the end, unless that is done."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            metrics_endpoint.IN_MEMORY = folder
            metrics_endpoint.start("worker", "worker", settings)
            os.write(writes, b"!")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writes)
    try:
        assert os.read(reads, 1) == b"!"
        yield pid
    finally:
        os.close(reads)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_variable_that_opentelemetry_refuses_is_no_end_of_prometheus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that the service's processes write into stays as long as the service."""
    tried, wait = tmp_path.with_suffix(".tried"), metrics_endpoint._Exporter._wait

    def refused(*_: object) -> None:
        raise ValueError  # as its modules do where OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT is no number

    def waits(self: Any, push: Any) -> None:
        tried.touch()
        wait(self, push)

    monkeypatch.setattr(metrics_endpoint._Exporter, "_wait", waits)
    monkeypatch.setattr(metrics_otlp, "Push", refused)
    settings = Settings(metrics_port=take_port(), otlp_url=SecretStr("http://127.0.0.1:9"))
    with service(tmp_path, settings):
        until(tried.exists)
        answer = httpx.get(f"http://127.0.0.1:{settings.metrics_port}/metrics", timeout=30)
        assert "crochet_phrases_consulted_total 0.0" in answer.text
        assert len(list(tmp_path.iterdir())) == 1
    until(lambda: list(tmp_path.iterdir()) == [])


def test_an_exporter_that_fails_leaves_the_folder_to_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its port is given back, so Prometheus sees it."""
    parent = tmp_path / "parent"

    def broken(*_: object) -> None:
        raise RuntimeError

    def removed(_: object, **__: object) -> None:
        parent.with_suffix(".new").write_text(str(os.getppid()))
        parent.with_suffix(".new").rename(parent)

    monkeypatch.setattr(metrics_reading, "Reading", broken)
    monkeypatch.setattr(shutil, "rmtree", removed)
    settings = Settings(metrics_port=take_port())
    with service(tmp_path, settings) as pid:
        until(lambda: not listens(settings.metrics_port))
    until(parent.exists)
    assert int(parent.read_text()) != pid  # whose child it was


def test_the_port_is_free_before_a_slow_collector_has_answered(tmp_path: Path) -> None:
    """The next service wants it at once."""
    with Hanging() as collector:
        settings = Settings(metrics_port=take_port(), otlp_url=SecretStr(collector.url), metrics_every=3600)
        with service(tmp_path, settings):
            httpx.get(f"http://127.0.0.1:{settings.metrics_port}/metrics", timeout=30).raise_for_status()
        until(lambda: not listens(settings.metrics_port))
        assert len(list(tmp_path.iterdir())) == 1  # the exporter still lives
    until(lambda: list(tmp_path.iterdir()) == [])


def listens(port: int | None) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port or 0)):
        return True
    return False


def until(there: Callable[[], bool]) -> None:
    for _ in range(3000):
        if there():
            return
        time.sleep(0.01)
    raise AssertionError("not in 30 s")


def test_up_gives_each_service_a_port() -> None:
    """One after the other; Flower has metrics of its own."""
    services = _services(Wanted(search=1, api=True, flower=True))
    given = [service.variables for service in _with_metrics(services, Settings(metrics_port=9100))]
    assert given == [(("CROCHET_METRICS_PORT", str(port)),) for port in range(9100, 9105)] + [()]
    assert _with_metrics(services, Settings()) == services


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


def test_the_word_of_one_whose_number_is_another_s_now_does_not_count(settings: Settings) -> None:
    """Killed, and its pid given to another program."""
    Beat(settings, "relay").well()
    assert [seen.pid for seen in health.look(settings)] == [os.getpid()]
    (file,) = health.folder(settings).glob("*.json")
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | {"started": said["started"] - 1}))
    assert health.look(settings) == []
    assert not file.exists()


def test_a_word_from_the_future_is_old(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Since the clock was set back nobody has said anything."""
    Beat(settings, "relay").well()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    (seen,) = health.look(settings)
    assert seen.problem == "it says nothing any more, since before the clock was set back"


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
        (Consumer(consumers=0), 0),  # so RabbitMQ answers for a quorum queue, too, whose leader is slow
        (Consumer(ready=3, consumers=0), 1),
        (Consumer("ingest", ready=3, consumers=0), 1),
        (Consumer(ready=3), 1),
        (Consumer("ingest", ready=3), 0),  # another worker gets them
    ],
    ids=["idle", "nothing known", "no consumer", "no consumer of an ordered one", "messages wait", "not its turn"],
)
def test_an_idle_worker_that_should_have_work_gives_up(
    consumer: Consumer, gives_up: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, and when it is sure."""
    assert looked(consumer, settings, monkeypatch, 1) == 0
    assert looked(consumer, settings, monkeypatch, 4) == gives_up


def test_what_was_wrong_before_a_connection_was_lost_does_not_count(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With each new one a worker has to become sure anew."""
    monkeypatch.setattr(progress, "ASK_SECONDS", 0.0)
    ended: list[None] = []
    watched = Progress(Beat(settings, "worker"), 150, lambda: ended.append(None))
    for _ in range(3):
        watched.look(Consumer(ready=3))
        watched.begin_anew()
    assert ended == []
    watched.look(Consumer(ready=3))
    watched.look(Consumer(ready=3))
    assert len(ended) == 1


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
