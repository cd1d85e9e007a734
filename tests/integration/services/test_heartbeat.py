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


def test_a_service_is_well_as_long_as_it_says_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last words tell what is wrong; one that is gone is not there."""
    beat = Heartbeat(settings, "worker[search]")
    assert heartbeat.read(settings) == []
    beat.healthy()
    assert [seen.problem for seen in heartbeat.read(settings, "worker")] == [None]
    assert heartbeat.read(settings, "relay") == []
    beat.unhealthy("broken")
    assert [seen.problem for seen in heartbeat.read(settings)] == [None]  # not for long enough
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60)
    assert [seen.problem for seen in heartbeat.read(settings, "worker[search]")] == ["broken, for 60 s"]
    beat.end()
    assert heartbeat.read(settings) == []


def test_the_word_of_a_killed_service_does_not_count(settings: Settings) -> None:
    in_child(Heartbeat(settings, "relay").healthy)  # under the pid of this process
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    file = settings.health_dir / "relay-x.json" if settings.health_dir else Path()
    file.write_text(json.dumps({"service": "relay", "pid": int(dead.stdout), "well": time.time(), "problem": None}))
    assert [seen.pid for seen in heartbeat.read(settings)] == [os.getpid()]
    assert not file.exists()


def test_the_word_of_one_whose_number_is_another_s_now_does_not_count(settings: Settings) -> None:
    """Killed, and its pid given to another program."""
    Heartbeat(settings, "relay").healthy()
    assert [seen.pid for seen in heartbeat.read(settings)] == [os.getpid()]
    (file,) = heartbeat.folder(settings).glob("*.json")
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | {"started": said["started"] - 1}))
    assert heartbeat.read(settings) == []
    assert not file.exists()


def test_a_word_from_the_future_is_old(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Since the clock was set back nobody has said anything."""
    Heartbeat(settings, "relay").healthy()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    (seen,) = heartbeat.read(settings)
    assert seen.problem == "no heartbeat, since before the clock was set back"


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
    watched = Progress(Heartbeat(settings, "worker"), 150, lambda: ended.append(None))
    for _ in range(times):
        watched.check(consumer)
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
    watched = Progress(Heartbeat(settings, "worker"), 150, lambda: ended.append(None))
    for _ in range(3):
        watched.check(Consumer(ready=3))
        watched.reset()
    assert ended == []
    watched.check(Consumer(ready=3))
    watched.check(Consumer(ready=3))
    assert len(ended) == 1


def test_a_busy_worker_does_not_give_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages wait whenever it is looked at, and it has nothing in hand just then; but it takes some in between."""
    monkeypatch.setattr(progress, "ASK_SECONDS", 0.0)
    taken: Counter[str] = Counter()
    monkeypatch.setattr(state, "total_count", taken)
    ended: list[None] = []
    watched = Progress(Heartbeat(settings, "worker"), 150, lambda: ended.append(None))
    for _ in range(4):
        watched.check(Consumer(ready=3))
        assert ended == []
        taken["search.grow"] += 1
    for _ in range(3):
        watched.check(Consumer(ready=3))
    assert len(ended) == 1
