"""What a service checks before it begins: every address it was given, and says which one is wrong and how."""

from __future__ import annotations

import logging
from collections.abc import Callable

from crochet_tasks.broker import queues
from crochet_tasks.db import schema
from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import RedisUnavailable, SettingMissing
from crochet_tasks.retry import wait_for
from crochet_tasks.settings import Settings

log = logging.getLogger(__name__)


def say(problem: str) -> None:
    """What a service in the foreground does with what is `said`: it is logged."""
    log.warning("server_away", extra={"error": problem})


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
        wait_for(lambda: schema.check(database), settings.startup_wait, said)
    finally:
        database.close()


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
