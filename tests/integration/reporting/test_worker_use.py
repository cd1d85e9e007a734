"""How busy workers are: what they report to Redis, and what is read of it."""

from __future__ import annotations

import json

import pytest
import redis
from pydantic import SecretStr

from crochet_tasks.db.process import Process
from crochet_tasks.reporting import queue_depths, statistics, worker_use
from crochet_tasks.reporting.worker_use import Reporter
from crochet_tasks.schemas.statistics import WorkerUse
from crochet_tasks.settings import Settings
from tests.support import services
from tests.support.recorded import Counted

pytestmark = pytest.mark.integration


@pytest.fixture
def with_redis(process: Process, redis_url: str) -> Process:
    url = process.database.engine.url.render_as_string(hide_password=False)
    return Process(Settings(redis_url=SecretStr(redis_url), database_url=SecretStr(url)), process.database)


def test_workers_say_how_busy_they_are(with_redis: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them together, by their processes; not those of another database, nor who says nothing any more."""
    monkeypatch.setattr(worker_use, "REPORT_SECONDS", 0.0)
    settings, database = with_redis.settings, with_redis.database
    assert worker_use.read(settings, database) == worker_use.UNKNOWN
    counts = iter([1, 3, 0, 0, 0])
    big, small = Reporter(settings, "big", 4, lambda: next(counts)), Reporter(settings, "small", 1, lambda: 1)
    for _ in range(4):
        big.sample()
    assert worker_use.read(settings, database) == WorkerUse(processes=4, busy=0.25)
    small.sample()
    assert worker_use.read(settings, database) == WorkerUse(processes=5, busy=0.4)
    seen = statistics.everything(with_redis, statistics.for_operators)
    assert seen.workers == WorkerUse(processes=5, busy=0.4)
    assert settings.redis_url is not None
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:
        (key,) = client.keys("crochet:use:*")
        assert 0 < client.ttl(key) <= worker_use.FORGOTTEN_SECONDS
        for strange in ("[1,0.5,1,7]", "[1,0.5]", "7", "{}", '["a",1,1]', "[1,NaN,1]", "[", b"\xff"):
            client.hset(key, f"of another release: {strange!r}", strange)
        assert worker_use.read(settings, database) == WorkerUse(processes=5, busy=0.4)
        client.hdel(key, *[name for name in client.hkeys(key) if name.startswith(b"of another")])
        client.hset(key, "small", json.dumps([1, 1.0, client.time()[0] - worker_use.KEPT_SECONDS - 2]))
        assert worker_use.read(settings, database) == WorkerUse(processes=4, busy=0.25)
        every = worker_use.seen(settings, database) or []
        assert [(each.name, each.processes, each.busy, each.reports) for each in every] == [
            ("big", 4, 0.25, True),
            ("small", 1, 1.0, False),
        ]
        assert every[1].seconds >= worker_use.KEPT_SECONDS + 2
        client.hset(key, "small", json.dumps([1, 1.0, client.time()[0] - worker_use.FORGOTTEN_SECONDS - 2]))
        assert [each.name for each in worker_use.seen(settings, database) or []] == ["big"]
        big.sample()
        assert client.hkeys(key) == [b"big"]
        client.rename(key, "crochet:use:another")
    assert worker_use.read(settings, database) == worker_use.UNKNOWN


def test_use_is_unknown_without_redis(
    with_redis: Process, redis_server: services.Redis, monkeypatch: pytest.MonkeyPatch, counted: Counted
) -> None:
    """Or while it is away: neither workers nor who asks mind, and each time is counted."""
    monkeypatch.setattr(worker_use, "REPORT_SECONDS", 0.0)
    settings, database = with_redis.settings, with_redis.database
    worker = Reporter(settings, "one", 1, lambda: 1)
    redis_server.kill()
    worker.sample()
    assert worker_use.read(settings, database) == worker_use.UNKNOWN
    assert queue_depths.read(settings, database) is None
    queue_depths.Notes(settings, database).note({"search": 1})
    assert counted("crochet_redis_failures_total") == {"worker_use": 2, "queue_depths": 2}
    without = Settings(database_url=settings.database_url)
    Reporter(without, "one", 1, lambda: 1).sample()
    assert worker_use.read(without, database) == worker_use.UNKNOWN
    assert worker_use.seen(without, database) is worker_use.seen(settings, database) is None
