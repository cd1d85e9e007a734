"""Progress watch of a worker: every two seconds, in its event loop, check that it consumes and processes messages.

    event loop    it runs: it calls `check`
    consumers     the broker has cancelled none of them
    tasks         no child has run a task for longer than the hard time limit
    deliveries    while the worker is idle the broker is asked: none of its queues has messages that are not delivered.
                  A queue that is empty and reports no consumer proves nothing: RabbitMQ answers so, too, for a quorum
                  queue whose leader is slow

A worker that has lost its consumers does not recover by itself: Celery misses that a consumer is cancelled just after
it began to consume, as happens while queues are deleted and declared again. So the worker drains and exits, and its
supervisor starts it again. (To recreate its consumers in place would repeat what lost them.)
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from amqp.exceptions import NotFound
from celery.worker import state

from crochet_tasks.broker.queues import ORDERED
from crochet_tasks.services.heartbeat import Heartbeat
from crochet_tasks.telemetry import metrics

log = logging.getLogger(__name__)

ASK_SECONDS = 5.0
"""how often an idle worker asks the broker"""
CONFIRMATIONS = 2
"""consecutive failed checks after which a worker stops"""
MARGIN_SECONDS = 5.0
"""beyond the hard time limit, for Celery to kill the child"""


class Progress:
    """Watches one worker; calls `stop_worker`, once, when it has lost its consumers."""

    def __init__(self, heartbeat: Heartbeat, hard_limit: float, stop_worker: Callable[[], None]) -> None:
        self._heartbeat, self._hard_limit, self._stop_worker = heartbeat, hard_limit, stop_worker
        self._asked = time.monotonic()
        self._taken = 0
        """tasks that were received up to the last check"""
        self._cancelled, self._undelivered = 0, 0
        self._stopped = False

    def reset(self) -> None:
        """Forget failed checks: there is a new connection with new consumers."""
        self._cancelled, self._undelivered, self._asked = 0, 0, time.monotonic()

    def check(self, consumer: Any) -> None:
        """Called by the event loop of a worker that consumes. Raises connection errors: Celery reconnects then."""
        queues = [queue.name for queue in consumer.task_consumer.queues]
        unacknowledged = Counter(
            str((request.delivery_info or {}).get("routing_key")) for request in list(state.reserved_requests)
        )
        for name in queues:
            metrics.UNACKNOWLEDGED.set(unacknowledged[name], queue=name)
        cancelled = _cancelled(consumer.task_consumer)
        self._cancelled = self._cancelled + 1 if cancelled else 0
        undelivered = self._undelivered_from(consumer, queues)
        problem = cancelled or undelivered or _overrun(self._hard_limit)
        if problem is not None:
            self._heartbeat.unhealthy(problem)
        else:
            self._heartbeat.healthy()
            metrics.PROGRESS.set(time.time())
        if max(self._cancelled, self._undelivered) >= CONFIRMATIONS and not self._stopped:
            self._stopped = True
            log.error("worker_lost_consumers", extra={"problem": problem})
            self._stop_worker()

    def _undelivered_from(self, consumer: Any, queues: list[str]) -> str | None:
        """Return the first queue problem of an idle worker.

        A busy one may have no message at the moment of a check while messages wait; but it has received some since.
        """
        taken = sum(state.total_count.values())
        if state.reserved_requests or taken != self._taken:
            self._taken, self._undelivered, self._asked = taken, 0, time.monotonic()
            return None
        if time.monotonic() - self._asked < ASK_SECONDS:
            return None
        self._asked = time.monotonic()
        problems = [problem for name in queues if (problem := _queue_problem(consumer, name))]
        self._undelivered = self._undelivered + 1 if problems else 0
        return problems[0] if problems else None


def _cancelled(ours: Any) -> str | None:
    """Return which consumer the broker has cancelled without the worker noticing."""
    known = ours.channel.callbacks
    for queue in ours.queues:
        if ours._active_tags.get(queue.name) not in known:
            return f"the broker has cancelled the consumer of '{queue.name}'"
    return None


def _queue_problem(consumer: Any, queue: str) -> str | None:
    """Return what is wrong with a queue of an idle worker. Uses a channel of its own: a missing queue closes it."""
    channel = consumer.connection.channel()
    try:
        _, ready, consumers = channel.queue_declare(queue, passive=True)
    except NotFound:
        return f"there is no queue '{queue}'"
    channel.close()
    if not ready:
        return None
    if not consumers:
        return f"the broker has no consumer of '{queue}', where {ready} messages wait"
    # One worker at a time is the active consumer of an ordered queue; the others wait.
    return None if queue in ORDERED else f"{ready} messages wait in '{queue}' and are not delivered"


def _overrun(hard_limit: float) -> str | None:
    """Return which task runs for longer than the hard time limit."""
    for request in list(state.active_requests):
        if request.time_start is not None and time.time() - request.time_start > hard_limit + MARGIN_SECONDS:
            return f"{request.name} runs for longer than {hard_limit:g} s"
    return None
