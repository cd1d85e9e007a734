"""How many messages waited in queues: what a relay notes in Redis, and what is read of it."""

from __future__ import annotations

import pytest
import redis
from pydantic import SecretStr

from crochet_tasks.db.process import Process
from crochet_tasks.db.statistics import SLOT_SECONDS, SLOTS
from crochet_tasks.reporting import queue_depths
from crochet_tasks.reporting.queue_depths import FORGOTTEN_SECONDS, Notes
from crochet_tasks.settings import Settings

pytestmark = pytest.mark.integration


def noted(settings: Settings, process: Process) -> list[dict[str, int]]:
    """What is known, oldest first; all spans are there."""
    history = queue_depths.read(settings, process.database)
    assert history is not None
    begins = [each.begins_at.timestamp() for each in history]
    assert begins == [begins[0] + SLOT_SECONDS * place for place in range(SLOTS + 1)]
    return [each.waiting for each in history if each.waiting is not None]


def test_the_last_depths_of_a_span_are_kept(process: Process, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whichever relay; what is older than the plots, and what is no note, is deleted or left out."""
    monkeypatch.setattr(queue_depths, "SLOT_SECONDS", 10**6)  # the span does not end meanwhile
    settings = Settings(redis_url=SecretStr(redis_url))

    def known() -> list[dict[str, int]]:
        history = queue_depths.read(settings, process.database)
        return [each.waiting for each in history or () if each.waiting is not None]

    assert known() == []
    one, other = Notes(settings, process.database), Notes(settings, process.database)
    one.note({"search": 7, "orthos": 0})
    assert known() == [{"search": 7, "orthos": 0}]
    one.note({"search": 8})  # so soon nothing is noted
    assert known() == [{"search": 7, "orthos": 0}]
    key = f"crochet:depths:{process.database.identity()}"
    with redis.Redis.from_url(redis_url) as client:
        assert 0 < client.ttl(key) <= FORGOTTEN_SECONDS
        now = int(client.time()[0]) // 10**6
        client.hset(key, str(now - SLOTS - 1), '{"search": 1}')
        client.hset(key, "strange", "{}")
        for damaged in ("[]", "{", '{"search": -1}', '{"search": "x"}'):
            client.hset(key, str(now - 1), damaged)
            assert known() == [{"search": 7, "orthos": 0}]
        other.note({"search": 9})
        assert known() == [{"search": 9}]
        assert set(client.hkeys(key)) == {str(now).encode(), str(now - 1).encode()}


def test_spans_are_those_of_the_other_plots(process: Process, redis_url: str) -> None:
    settings = Settings(redis_url=SecretStr(redis_url))
    Notes(settings, process.database).note({"search": 1})
    assert noted(settings, process) == [{"search": 1}]


def test_without_redis_nothing_is_known(process: Process) -> None:
    Notes(Settings(), process.database).note({"search": 1})
    assert queue_depths.read(Settings(), process.database) is None
    away = Settings(redis_url=SecretStr("redis://127.0.0.1:1/0"))
    Notes(away, process.database).note({"search": 1})
    assert queue_depths.read(away, process.database) is None
