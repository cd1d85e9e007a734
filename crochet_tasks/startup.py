"""Checks of a service at start-up: database, broker and Redis answer. Errors name the setting that is wrong."""

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


def log_problem(problem: str) -> None:
    """Log a problem: the `report` function of services."""
    log.warning("server_unavailable", extra={"error": problem})


def check(settings: Settings, report: Callable[[str], None]) -> None:
    """Wait until the database and the broker are ready, check the schema, and declare the queues.

    Retries with backoff for `startup_wait` seconds and calls `report` before each pause. Redis is optional: without it
    the service starts, after a report. Raises SettingMissing, DatabaseUnavailable, DatabaseRefused, SchemaUnknown,
    BrokerUnavailable, BrokerRefused or QueueMismatch.
    """
    check_database(settings, report)
    if settings.broker_url is None:
        raise SettingMissing(variable="CROCHET_BROKER_URL", needed_for="workers and the relay talk through RabbitMQ")
    queues.declare(settings, report=report)
    if settings.redis_url is not None:
        try:
            check_redis(settings)
        except RedisUnavailable as error:
            report(f"{error}; going on without it")


def check_database(settings: Settings, report: Callable[[str], None]) -> None:
    """Wait until the database answers; raise where it does not, or where its schema is not the one of this program."""
    if settings.database_url is None:
        raise SettingMissing(
            variable="CROCHET_DATABASE_URL", needed_for="services share one database; 'crochet up' brings its own"
        )
    database = Database(settings.database_url.get_secret_value(), settings)
    try:
        wait_for(lambda: schema.check(database), settings.startup_wait, report)
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
