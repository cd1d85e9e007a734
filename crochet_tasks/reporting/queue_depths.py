"""How many messages waited in each queue lately: the relay notes it in Redis, which may lose it. Without one: unknown.

One Redis hash per database, a field per span of the console's plots; the last reading of a span is kept.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import time
from collections.abc import Mapping
from typing import NamedTuple

from crochet_tasks.db.sessions import Database
from crochet_tasks.db.statistics import SLOT_SECONDS, SLOTS
from crochet_tasks.reporting.worker_use import REST_SECONDS, redis_of
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import metrics

log = logging.getLogger(__name__)

NOTED_SECONDS = 10.0
"""between two notes"""
FORGOTTEN_SECONDS = (SLOTS + 1) * SLOT_SECONDS
"""after which a note is deleted"""


class Depths(NamedTuple):
    """How many messages waited in each queue near the end of a span; None: nobody noted it."""

    begins_at: dt.datetime
    waiting: dict[str, int] | None


class Notes:
    """What one relay notes."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._redis, self._database = redis_of(settings), database
        self._due = 0.0

    def note(self, waiting: Mapping[str, int]) -> None:
        """Every NOTED_SECONDS, however often it is called. While Redis does not answer nothing is noted."""
        if self._redis is None or time.monotonic() < self._due:
            return
        from redis import RedisError

        self._due = time.monotonic() + NOTED_SECONDS
        key = _key(self._database)
        try:
            (seconds, _), fields = self._redis.time(), self._redis.hkeys(key)
            slot = seconds // SLOT_SECONDS
            gone = [field for field in fields if not field.isdigit() or int(field) < slot - SLOTS]
            with self._redis.pipeline() as all_of_it:
                all_of_it.hset(key, str(slot), json.dumps(dict(waiting)))
                if gone:
                    all_of_it.hdel(key, *gone)
                all_of_it.expire(key, FORGOTTEN_SECONDS)
                all_of_it.execute()
        except RedisError as error:
            self._due = time.monotonic() + REST_SECONDS
            metrics.REDIS_FAILURES.add(use="queue_depths")
            log.debug("depths_not_noted", extra={"error": str(error)})


def read(settings: Settings, database: Database) -> list[Depths] | None:
    """The last SLOTS spans and the one that is not over yet, oldest first; None: there is no Redis, or no answer."""
    client = redis_of(settings)
    if client is None:
        return None
    from redis import RedisError

    key = _key(database)
    try:
        with client, client.pipeline() as both:
            both.time()
            both.hgetall(key)
            (seconds, _), stored = both.execute()
    except RedisError:
        metrics.REDIS_FAILURES.add(use="queue_depths")
        return None
    last = seconds // SLOT_SECONDS
    return [
        Depths(dt.datetime.fromtimestamp(slot * SLOT_SECONDS, dt.UTC), _parsed(stored.get(str(slot).encode())))
        for slot in range(last - SLOTS, last + 1)
    ]


def _parsed(value: bytes | None) -> dict[str, int] | None:
    """None where it has another form: a relay of another release may have written it."""
    if value is None:
        return None
    try:
        read_ = {str(name): int(number) for name, number in json.loads(value).items()}
    except (ValueError, TypeError, AttributeError, OverflowError):
        return None
    return read_ if all(number >= 0 for number in read_.values()) else None


def _key(database: Database) -> str:
    return f"crochet:depths:{database.identity()}"
