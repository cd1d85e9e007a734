"""At which version a corpus is, asked of Redis first. Whoever asks never sees an older one than somebody saw before.

While a version is about to be committed a barrier lies in Redis: readers go to the database. It is replaced by the
version only by whoever laid it, and only after the commit. Readers keep what they read in the database only where
nothing lies, and at once; what is kept expires after a moment. So what lies there was never overtaken. Only where Redis
fails the writer may an older version be shown once more, for SECONDS_FRESH + SECONDS_KEPT at the most.

Keys name their database: several may share one Redis.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable
from typing import NamedTuple

import redis
from sqlalchemy import text

from crochet_tasks.db.sessions import Database
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import metrics

SECONDS_KEPT = 2
SECONDS_HELD = 10
"""how long a barrier lies where a writer dies"""
SECONDS_FRESH = 1.0
"""after which what was read in the database is not kept: less than SECONDS_KEPT"""
ANSWER_SECONDS = 0.1
REST_SECONDS = 5.0
"""for which Redis is not asked after it did not answer"""

_REPLACE = "if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('set', KEYS[1], ARGV[2], 'EX', ARGV[3]) end"


class Seen(NamedTuple):
    """A corpus and its version."""

    corpus: int
    version: int


class Barrier(NamedTuple):
    key: str
    mark: str


class Versions:
    """The versions in Redis; without one, or while it is away, every reader asks the database."""

    def __init__(self, settings: Settings, database: Callable[[], str]) -> None:
        """`database` names it, the same in every process; it is asked once, and may raise."""
        self._database = database
        self._named: str | None = None
        self._redis: redis.Redis | None = None
        self._rest = 0.0
        if settings.redis_url is not None:
            self._redis = redis.Redis.from_url(
                settings.redis_url.get_secret_value(),
                socket_timeout=ANSWER_SECONDS,
                socket_connect_timeout=ANSWER_SECONDS,
            )

    def read(self, tenant: int, name: str, look: Callable[[], Seen]) -> Seen:
        """The version of a tenant's corpus; `look` asks the database and may raise."""
        if self._redis is None:
            return look()
        key = self._key(tenant, name)
        lies = self._ask("get", key)
        with contextlib.suppress(ValueError, TypeError):
            seen = Seen(*map(int, json.loads(lies)))  # type: ignore[arg-type]
            metrics.CACHE.add(cache="version", outcome="hit")
            return seen
        metrics.CACHE.add(cache="version", outcome="miss")
        began = time.monotonic()
        seen = look()
        if lies is None and time.monotonic() - began < SECONDS_FRESH:
            self._ask("set", key, json.dumps(seen), ex=SECONDS_KEPT, nx=True)
        return seen

    def begin(self, tenant: int, name: str) -> Barrier:
        """Have readers go to the database: what a corpus of that name is at is about to change. Before the commit."""
        barrier = Barrier("" if self._redis is None else self._key(tenant, name), f"changing {uuid.uuid4()}")
        self._ask("set", *barrier, ex=SECONDS_HELD)
        return barrier

    def end(self, barrier: Barrier, seen: Seen) -> None:
        """Let readers see it, unless somebody else has begun to change it. After the commit."""
        self._ask("eval", _REPLACE, 1, *barrier, json.dumps(seen), SECONDS_KEPT)

    def close(self) -> None:
        if self._redis is not None:
            self._redis.close()

    def _key(self, tenant: int, name: str) -> str:
        if self._named is None:
            self._named = self._database()
        return f"crochet:version:{self._named}:{tenant}:{name}"

    def _ask(self, command: str, *args: object, **options: object) -> bytes | None:
        """What Redis says; None also where it does not answer."""
        if self._redis is None or time.monotonic() < self._rest:
            return None
        try:
            said = getattr(self._redis, command)(*args, **options)
        except redis.RedisError:
            self._rest = time.monotonic() + REST_SECONDS
            return None
        return said if isinstance(said, bytes) else None


def identity(database: Database) -> str:
    """What tells this database from others. Without its timeline, which changes while processes go on (see filters)."""
    with database.transaction() as connection:
        return str(connection.execute(text(_IDENTITY)).scalar_one())


_IDENTITY = """
SELECT concat_ws('-', system_identifier, pg_database.oid) FROM pg_control_system(), pg_database
 WHERE datname = current_database()
"""
