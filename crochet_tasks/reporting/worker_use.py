"""How busy workers are: each reports it to Redis every few seconds. Without a Redis it is unknown.

A worker samples in its event loop how many of its processes run a task, and writes the share into one Redis hash per
database. A report counts for KEPT_SECONDS by Redis' own clock; for FORGOTTEN_SECONDS it says when the worker was seen.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import CrochetError
from crochet_tasks.schemas.statistics import WorkerUse
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import metrics

if TYPE_CHECKING:
    import redis

log = logging.getLogger(__name__)

SAMPLE_SECONDS = 1.0
REPORT_SECONDS = 5.0
KEPT_SECONDS = 20
"""after which a worker's report is ignored"""
FORGOTTEN_SECONDS = 600
"""after which it is deleted"""
SAMPLES = 60
"""samples in one report"""
ANSWER_SECONDS = 0.1
REST_SECONDS = 30.0
"""for which nothing is reported after Redis did not answer"""
UNKNOWN = WorkerUse(processes=None, busy=None)


class Reporter:
    """The reports of one worker."""

    def __init__(self, settings: Settings, worker: str, processes: int, busy: Callable[[], int]) -> None:
        """`busy` counts the processes that are on a task. While the database is down nothing is reported."""
        self._worker, self._processes, self._busy = worker, processes, busy
        self._samples: deque[int] = deque(maxlen=SAMPLES)
        self._due = time.monotonic() + REPORT_SECONDS
        self._redis = redis_of(settings)
        self._key = ""
        if self._redis is None or settings.database_url is None:
            return
        database = Database(settings.database_url.get_secret_value(), settings)
        try:
            self._key = _key(database)
        except CrochetError as error:
            log.debug("use_not_reported", extra={"error": str(error)})
        finally:
            database.close()

    def sample(self) -> None:
        """Take a sample, and now and then report; called every SAMPLE_SECONDS."""
        self._samples.append(min(self._busy(), self._processes))
        if self._redis is None or not self._key or time.monotonic() < self._due:
            return
        from redis import RedisError

        self._due = time.monotonic() + REPORT_SECONDS
        share = sum(self._samples) / len(self._samples) / self._processes
        try:
            now, others = _reports(self._redis, self._key)
            gone = [name for name, report in others.items() if now - report.at > FORGOTTEN_SECONDS]
            with self._redis.pipeline() as all_of_it:
                all_of_it.hset(self._key, self._worker, json.dumps(_Report(self._processes, round(share, 4), now)))
                for name in gone:
                    all_of_it.hdel(self._key, name)
                all_of_it.expire(self._key, FORGOTTEN_SECONDS)
                all_of_it.execute()
        except RedisError as error:
            self._due = time.monotonic() + REST_SECONDS
            metrics.REDIS_FAILURES.add(use="worker_use")
            log.debug("use_not_reported", extra={"error": str(error)})


def read(settings: Settings, database: Database) -> WorkerUse:
    """The use of all workers on this database; unknown without Redis, and while none reports."""
    fresh = [each for each in seen(settings, database) or () if each.reports]
    processes = sum(each.processes for each in fresh)
    if not processes:
        return UNKNOWN
    return WorkerUse(processes=processes, busy=round(sum(each.processes * each.busy for each in fresh) / processes, 3))


class WorkerSeen(NamedTuple):
    """The last report of a worker, so many seconds ago; `busy` is the share of its processes' time."""

    name: str
    processes: int
    busy: float
    seconds: int

    @property
    def reports(self) -> bool:
        """Whether it still does."""
        return self.seconds <= KEPT_SECONDS


def seen(settings: Settings, database: Database) -> list[WorkerSeen] | None:
    """Workers that reported within FORGOTTEN_SECONDS, by name; None where there is no Redis, or it does not answer."""
    client = redis_of(settings)
    if client is None:
        return None
    from redis import RedisError

    key = _key(database)
    try:
        with client:
            now, reports = _reports(client, key)
    except RedisError:
        metrics.REDIS_FAILURES.add(use="worker_use")
        return None
    return [
        WorkerSeen(name, each.processes, each.busy, max(0, now - each.at))
        for name, each in sorted(reports.items())
        if now - each.at <= FORGOTTEN_SECONDS
    ]


class _Report(NamedTuple):
    """What a worker reported, and when, in seconds."""

    processes: int
    busy: float
    at: int


def _reports(client: redis.Redis, key: str) -> tuple[int, dict[str, _Report]]:
    """Redis' time, and the last report of each worker."""
    with client.pipeline() as both:
        both.time()
        both.hgetall(key)
        (seconds, _), stored = both.execute()
    read = ((name.decode(errors="replace"), _parsed(value)) for name, value in stored.items())
    return seconds, {name: each for name, each in read if each is not None}


def _parsed(value: bytes) -> _Report | None:
    """None where it has another form: a worker of another release may have written it."""
    try:
        processes, busy, at = json.loads(value)
        report = _Report(int(processes), float(busy), int(at))
    except (ValueError, TypeError, OverflowError):
        return None
    return report if report.processes > 0 and 0 <= report.busy <= 1 else None


def _key(database: Database) -> str:
    return f"crochet:use:{database.identity()}"


def redis_of(settings: Settings) -> redis.Redis | None:
    """A client that does not wait long; None where no Redis is set."""
    if settings.redis_url is None:
        return None
    import redis  # a command without one does not wait for it

    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(), socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS
    )
