"""Are the servers there, and as this program needs them? The one place that checks it.

Services wait for them before they begin (`wait`), the API asks for /health/ready, `crochet doctor` for its advice.
Each check tries once, within a bounded time, and raises an error that says what is wrong.
"""

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

REDIS_SECONDS = 2.0


# ── one check each ──────────────────────────────────────────────────────────────────────────────


def check_database(database: Database) -> None:
    """Raise DatabaseUnavailable, DatabaseRefused, or SchemaUnknown where the schema is another one."""
    schema.check(database)


def check_broker(settings: Settings) -> str:
    """Product and version of the broker, which answers. Raises BrokerUnavailable or BrokerRefused."""
    with queues.connected(settings) as broker, queues.broker_errors():
        about = broker.connection.server_properties
    return " ".join(str(about[key]) for key in ("product", "version") if key in about) or "a broker"


def check_queues(settings: Settings) -> dict[str, queues.Depth | None]:
    """Length and consumers of each work queue and dead-letter queue; None where it is not declared."""
    with queues.connected(settings) as broker:
        return queues.find(broker)


def check_redis(settings: Settings) -> None:
    """Raise RedisUnavailable unless Redis answers a ping."""
    import redis

    assert settings.redis_url is not None
    client = redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
        health_check_interval=0,
    )
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        raise RedisUnavailable(reason=str(error).split("\n", 1)[0]) from error
    finally:
        client.close()


# ── before a service begins ─────────────────────────────────────────────────────────────────────


def warn(problem: str) -> None:
    """How a service reports that it waits for a server: in its log."""
    log.warning("server_unavailable", extra={"error": problem})


def wait(settings: Settings, report: Callable[[str], None]) -> None:
    """Wait until database and broker answer and are as this program needs them; declare the queues.

    Waits `startup_wait` seconds at the most, with growing pauses, and calls `report` before each. Without Redis a
    service goes on, because what Redis holds may be lost; that is reported. Raises SettingMissing,
    DatabaseUnavailable, DatabaseRefused, SchemaUnknown, BrokerUnavailable, BrokerRefused or QueueMismatch.
    """
    wait_for_database(settings, report)
    if settings.broker_url is None:
        raise SettingMissing(variable="CROCHET_BROKER_URL", needed_for="workers and the relay talk through RabbitMQ")
    queues.declare(settings, report=report)
    if settings.redis_url is not None:
        try:
            check_redis(settings)
        except RedisUnavailable as error:
            report(f"{error}; going on without it")


def wait_for_database(settings: Settings, report: Callable[[str], None]) -> None:
    """As `wait`, for the database alone."""
    if settings.database_url is None:
        raise SettingMissing(
            variable="CROCHET_DATABASE_URL", needed_for="services share one database; 'crochet up' brings its own"
        )
    database = Database(settings.database_url.get_secret_value(), settings)
    try:
        wait_for(lambda: check_database(database), settings.startup_wait, report)
    finally:
        database.close()
