"""What a service checks before it begins: every address it was given, and says which one is wrong and how."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from crochet_tasks import queues
from crochet_tasks.db import schema
from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import CrochetError, RedisUnavailable, Retry, SettingMissing
from crochet_tasks.settings import Settings

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0


def check(settings: Settings, said: Callable[[str], None]) -> None:
    """Wait until the database and the broker answer and are what this program needs; declares the queues.

    Waits `startup_wait` seconds at the most, with growing pauses. Without Redis a service goes on, as what is there
    may be lost; it is said. Raises SettingMissing, DatabaseUnavailable, DatabaseRefused, SchemaUnknown,
    BrokerUnavailable, BrokerRefused or QueueMismatch.
    """
    check_database(settings, said)
    if settings.broker_url is None:
        raise SettingMissing(variable="CROCHET_BROKER_URL", needed_for="workers and the relay talk through RabbitMQ")
    queues.declare(settings, said=said)
    if settings.redis_url is not None:
        try:
            check_redis(settings)
        except RedisUnavailable as error:
            said(f"{error}; going on without it")


def check_database(settings: Settings, said: Callable[[str], None]) -> None:
    """Wait until the database answers; raises where it does not, or has another schema than this program needs."""
    if settings.database_url is None:
        raise SettingMissing(
            variable="CROCHET_DATABASE_URL", needed_for="services share one database; 'crochet up' brings its own"
        )
    database = Database(settings.database_url.get_secret_value(), settings)
    try:
        patiently(lambda: schema.check(database), settings.startup_wait, said)
    finally:
        database.close()


def patiently(step: Callable[[], None], seconds: float, said: Callable[[str], None]) -> None:
    """Try again what may succeed later, with growing pauses, for so many seconds; then its error is raised."""
    until, pause = time.monotonic() + seconds, FIRST_PAUSE_SECONDS
    while True:
        try:
            return step()
        except CrochetError as error:
            left = until - time.monotonic()
            if error.retry is Retry.NEVER or left <= 0:
                raise
            said(f"{error}; trying again")
            time.sleep(min(pause * random.uniform(0.5, 1.0), left))  # noqa: S311 - jitter
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def check_redis(settings: Settings) -> None:
    """Raise RedisUnavailable unless Redis answers a ping."""
    import redis

    assert settings.redis_url is not None
    client = redis.Redis.from_url(
        settings.redis_url.get_secret_value(), socket_timeout=2, socket_connect_timeout=2, health_check_interval=0
    )
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        raise RedisUnavailable(reason=str(error).split("\n", 1)[0]) from error
    finally:
        client.close()
