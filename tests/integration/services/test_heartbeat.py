"""A service's word that it is well, and workers that notice that they no longer work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state

from crochet_tasks.services import heartbeat, progress
from crochet_tasks.services.heartbeat import Heartbeat
from crochet_tasks.services.progress import Progress
from crochet_tasks.settings import Settings
from tests.support.children import in_child

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(health_dir=tmp_path / "health")


def test_a_service_is_healthy_as_long_as_its_heartbeat_is_fresh(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file says what is wrong; one that ended has none."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    beat_of_worker = Heartbeat(settings, "worker[search]")
    assert heartbeat.read(settings) == []
    beat_of_worker.healthy()
    assert [health.problem for health in heartbeat.read(settings, "worker")] == [None]
    assert heartbeat.read(settings, "relay") == []
    beat_of_worker.unhealthy("broken")
    assert [health.problem for health in heartbeat.read(settings)] == [None]  # not for long enough
    monkeypatch.setattr(time, "time", lambda: now + 60)
    assert [health.problem for health in heartbeat.read(settings, "worker[search]")] == ["broken, for 60 s"]
    beat_of_worker.end()
    assert heartbeat.read(settings) == []


def test_the_file_of_a_killed_service_does_not_count(settings: Settings) -> None:
    in_child(Heartbeat(settings, "relay").healthy)  # under the pid of this process
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    file = settings.health_dir / "relay-x.json" if settings.health_dir else Path()
    file.write_text(json.dumps({"service": "relay", "pid": int(dead.stdout), "well": time.time(), "problem": None}))
    assert [health.pid for health in heartbeat.read(settings)] == [os.getpid()]
    assert not file.exists()


def test_the_file_of_a_reused_pid_does_not_count(settings: Settings) -> None:
    """Killed, and its pid given to another program."""
    Heartbeat(settings, "relay").healthy()
    assert [health.pid for health in heartbeat.read(settings)] == [os.getpid()]
    (file,) = heartbeat.folder(settings).glob("*.json")
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"started": record["started"] - 1}))
    assert heartbeat.read(settings) == []
    assert not file.exists()


def test_a_heartbeat_from_the_future_is_stale(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """There was no heartbeat since the clock was set back."""
    Heartbeat(settings, "relay").healthy()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    (health,) = heartbeat.read(settings)
    assert health.problem == "no heartbeat, since before the clock was set back"


# ── over HTTP ───────────────────────────────────────────────────────────────────────────────────


def answers(settings: Settings) -> list[tuple[bool, dict[str, str]] | None]:
    """To probes of whether it is live, and of whether it is ready."""
    return [heartbeat.answer(settings, f"/health/{name}") for name in ("live", "ready")]


def test_probes_read_the_heartbeat(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service is ready while all is well, and live until `crochet health` says that it is not well."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    live, ready = (True, {"status": "live"}), (True, {"status": "ready"})
    no_heartbeat = (False, {"status": "away", "problem": "no heartbeat: it begins or ends"})
    own = Heartbeat(settings, "worker[search]")
    assert answers(settings) == [live, no_heartbeat]
    own.healthy()
    assert answers(settings) == [live, ready]
    own.unhealthy("broken")
    assert answers(settings) == [live, (False, {"status": "away", "problem": "broken"})]
    monkeypatch.setattr(time, "time", lambda: now + 60)
    broken = {"problem": "broken, for 60 s"}
    assert answers(settings) == [(False, {"status": "stuck", **broken}), (False, {"status": "away", **broken})]
    own.end()
    assert answers(settings) == [live, no_heartbeat]
    assert heartbeat.answer(settings, "/health/other") is None


def test_probes_read_no_heartbeat_of_another_service(settings: Settings) -> None:
    """Of the same machine and folder."""
    Heartbeat(settings, "relay").healthy()
    (file,) = heartbeat.folder(settings).glob("*.json")
    record = {"service": "relay", "pid": os.getppid(), "well": time.time(), "problem": None}
    file.rename(file.with_name("relay-other.json")).write_text(json.dumps(record))
    assert [health.pid for health in heartbeat.read(settings)] == [os.getppid()]
    assert [found is not None and found[0] for found in answers(settings)] == [True, False]


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


def stops(consumer: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch, times: int = 3) -> int:
    """How often a worker with this consumer is stopped by so many checks."""
    monkeypatch.setattr(progress, "ASK_SECONDS", 0.0)
    ended: list[None] = []
    progress_watch = Progress(Heartbeat(settings, "worker"), 150, lambda: ended.append(None))
    for _ in range(times):
        progress_watch.check(consumer)
    return len(ended)


@pytest.mark.parametrize(
    ("consumer", "expected"),
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
def test_an_idle_worker_that_gets_no_messages_is_stopped(
    consumer: Consumer, expected: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, after CONFIRMATIONS failed checks."""
    assert stops(consumer, settings, monkeypatch, 1) == 0
    assert stops(consumer, settings, monkeypatch, 4) == expected


def test_what_was_wrong_before_a_connection_was_lost_does_not_count(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new connection starts the count of failed checks again."""
    monkeypatch.setattr(progress, "ASK_SECONDS", 0.0)
    ended: list[None] = []
    progress_watch = Progress(Heartbeat(settings, "worker"), 150, lambda: ended.append(None))
    for _ in range(3):
        progress_watch.check(Consumer(ready=3))
        progress_watch.reset()
    assert ended == []
    progress_watch.check(Consumer(ready=3))
    progress_watch.check(Consumer(ready=3))
    assert len(ended) == 1


def test_a_busy_worker_is_not_stopped(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages wait at each check, when it has none itself; but it receives some in between."""
    monkeypatch.setattr(progress, "ASK_SECONDS", 0.0)
    taken: Counter[str] = Counter()
    monkeypatch.setattr(state, "total_count", taken)
    ended: list[None] = []
    progress_watch = Progress(Heartbeat(settings, "worker"), 150, lambda: ended.append(None))
    for _ in range(4):
        progress_watch.check(Consumer(ready=3))
        assert ended == []
        taken["search.part"] += 1
    for _ in range(3):
        progress_watch.check(Consumer(ready=3))
    assert len(ended) == 1
