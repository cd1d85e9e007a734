"""Checks of what a distributed run needs: broker, queues, Redis, and a worker that answers. Changes nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from crochet_tasks import readiness
from crochet_tasks.broker import queues
from crochet_tasks.broker.queues import Depth
from crochet_tasks.db import schema
from crochet_tasks.doctor import Check, well, wrong
from crochet_tasks.errors import BrokerRefused, CrochetError
from crochet_tasks.settings import Settings
from crochet_tasks.terminal.numbers import counted

ANSWER_SECONDS = 5.0
PROBED = "maintenance"


def checks(configured: Settings) -> Iterator[Check]:
    """Check the broker, its queues, Redis, and the way through all of them, as far as they are set."""
    if configured.broker_url is None:
        yield well("broker", "none is set: everything runs in one process")
        if configured.redis_url is not None:
            yield _redis(configured)
        return
    try:
        broker, depths = readiness.check_broker(configured), readiness.check_queues(configured)
    except CrochetError as error:
        yield wrong("broker", f"{error} [{error.code}]", "start RabbitMQ, or correct CROCHET_BROKER_URL")
        return
    hint = "" if configured.broker_api_url else "for the lengths of queues in Flower set CROCHET_BROKER_API_URL"
    yield well("broker", f"{broker} answers", hint)
    for name in queues.WORK:
        yield _queue(name, depths[name], depths[queues.dead(name)])
    if configured.redis_url is None:
        yield well("redis", "none is set", "workers are not asked to answer: set CROCHET_REDIS_URL")
        return
    redis = _redis(configured)
    yield redis
    if not redis.well:
        return
    probed = depths[PROBED]
    if probed is None or not probed.consumers:
        yield well(
            "worker", f"none takes work from {PROBED}", "start one with 'crochet worker', or all with 'crochet up'"
        )
    else:
        yield _worker()


def _queue(name: str, depth: Depth | None, dead: Depth | None) -> Check:
    if depth is None:
        return well(f"queue {name}", "not declared yet", "workers, the relay and 'crochet up' do it when they start")
    found = f"{counted(depth.ready, 'message')} waiting, {counted(depth.consumers, 'consumer')}"
    if dead is not None and dead.ready:
        return well(f"queue {name}", f"{found}, {counted(dead.ready, 'dead letter')}", "the relay takes them: run one")
    if not depth.consumers:
        return well(f"queue {name}", found, f"'crochet worker --queues {name}' takes work from it")
    return well(f"queue {name}", found)


def _redis(configured: Settings) -> Check:
    began = time.perf_counter()
    try:
        readiness.check_redis(configured)
    except CrochetError as error:
        return wrong("redis", f"{error} [{error.code}]", "start Redis, or correct CROCHET_REDIS_URL")
    return well("redis", f"answers in {1000 * (time.perf_counter() - began):.0f} ms")


def _worker() -> Check:
    """Send a task to a worker and wait for its result: through broker, database and Redis."""
    from celery.exceptions import TimeoutError as NoAnswer
    from redis import RedisError
    from redis.exceptions import NoPermissionError

    from crochet_tasks.app import probe

    busy = "see the workers' logs; one that is busy answers later"
    began = time.perf_counter()
    try:
        with queues.broker_errors(PROBED):
            sent = probe.apply_async(queue=PROBED, confirm_timeout=ANSWER_SECONDS, expires=ANSWER_SECONDS)
        answer = sent.get(timeout=ANSWER_SECONDS)
        with contextlib.suppress(NoPermissionError):  # users that only read results; they expire
            sent.forget()
    except BrokerRefused as error:
        if "ACCESS_REFUSED" not in str(error):
            return wrong("worker", f"it was not asked: {error} [{error.code}]", busy)
        # A user of whom check_broker knows that they may log in: the API sends no tasks.
        return well("worker", "not asked: this user may send no tasks", "run 'crochet doctor' as a worker's user")
    except NoAnswer:
        return wrong("worker", f"none answered within {ANSWER_SECONDS:g} s", busy)
    except CrochetError as error:
        return wrong("worker", f"it answered: {error} [{error.code}]", busy)
    except RedisError as error:
        return wrong("worker", f"its answer cannot be read: {error}", "check Redis and CROCHET_REDIS_URL")
    took = 1000 * (time.perf_counter() - began)
    found = f"process {answer['process']} on {answer['host']} answered in {took:.0f} ms"
    if answer["schema"] < schema.OLDEST:  # a newer one has been checked in the database itself
        advice = f"it sees schema {answer['schema']}, this program needs {schema.OLDEST}: is it on the same database?"
        return wrong("worker", found, advice)
    return well("worker", found)
