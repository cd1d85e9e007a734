"""Whether a worker makes progress, looked at from within its event loop every two seconds.

    it runs       this is called at all
    it consumes   the broker has cancelled none of its consumers
    it works      no child is on a task for longer than the hard limit
    it takes      while it has nothing in hand the broker is asked: none of its queues holds messages that do not
                  come. That a queue is empty and has no consumer proves nothing: so RabbitMQ answers, too, where the
                  leader of a quorum queue is slow

A worker that consumes no more does not get over it by itself: Celery overlooks that a consumer is cancelled just
after it began to consume, as happens while queues are deleted and declared anew. So it ends, after what it has in
hand, and whoever supervises it starts it again. (To make its consumers anew in place would be to go once more
through what lost them.)
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
from crochet_tasks.services.heartbeat import Beat
from crochet_tasks.telemetry import metrics

log = logging.getLogger(__name__)

ASK_SECONDS = 5.0
"""how often an idle worker asks the broker"""
SURE = 2
"""looks, or questions, that have to agree that all is not well before a worker ends"""
MARGIN_SECONDS = 5.0
"""beyond the hard limit, for Celery to kill who is over it"""


class Progress:
    """Looks after one worker; `give_up` is called, once, when it consumes no more."""

    def __init__(self, beat: Beat, hard_limit: float, give_up: Callable[[], None]) -> None:
        self._beat, self._hard_limit, self._give_up = beat, hard_limit, give_up
        self._asked = time.monotonic()
        self._taken = 0
        """tasks, up to the last look"""
        self._cancelled, self._unheard = 0, 0
        self._gone = False

    def begin_anew(self) -> None:
        """There is a new connection, and new consumers on it: what was wrong with the old ones is over."""
        self._cancelled, self._unheard, self._asked = 0, 0, time.monotonic()

    def check(self, consumer: Any) -> None:
        """Called by the event loop of a worker that consumes. Raises what its connection does, and it is made anew."""
        in_hand = list(state.reserved_requests)
        queues = [queue.name for queue in consumer.task_consumer.queues]
        held = Counter(str((request.delivery_info or {}).get("routing_key")) for request in in_hand)
        for name in queues:
            metrics.HELD.set(held[name], queue=name)
        cancelled = _cancelled(consumer.task_consumer)
        self._cancelled = self._cancelled + 1 if cancelled else 0
        unheard = self._unheard_of(consumer, queues)
        problem = cancelled or unheard or _hangs(self._hard_limit)
        if problem is not None:
            self._beat.unwell(problem)
        else:
            self._beat.well()
            metrics.PROGRESS.set(time.time())
        if max(self._cancelled, self._unheard) >= SURE and not self._gone:
            self._gone = True
            log.error("worker_consumes_no_more", extra={"problem": problem})
            self._give_up()

    def _unheard_of(self, consumer: Any, queues: list[str]) -> str | None:
        """What an idle worker should have got from the broker and has not.

        A busy one may have nothing in hand just when it is looked at, while messages wait: it has taken some since.
        """
        taken = sum(state.total_count.values())
        if state.reserved_requests or taken != self._taken:
            self._taken, self._unheard, self._asked = taken, 0, time.monotonic()
            return None
        if time.monotonic() - self._asked < ASK_SECONDS:
            return None
        self._asked = time.monotonic()
        problems = [problem for name in queues if (problem := _asked_for(consumer, name))]
        self._unheard = self._unheard + 1 if problems else 0
        return problems[0] if problems else None


def _cancelled(ours: Any) -> str | None:
    """A queue that the worker takes for consumed, and the broker does not."""
    known = ours.channel.callbacks
    for queue in ours.queues:
        if ours._active_tags.get(queue.name) not in known:
            return f"the broker has cancelled the consumer of '{queue.name}'"
    return None


def _asked_for(consumer: Any, queue: str) -> str | None:
    """What is wrong with a queue of an idle worker. On a channel of its own: a missing queue closes it."""
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
    # Of the ordered queues one worker gets all; those that are not that one wait.
    return None if queue in ORDERED else f"{ready} messages wait in '{queue}' and do not come"


def _hangs(hard_limit: float) -> str | None:
    """A child that is on a task for longer than it may."""
    for request in list(state.active_requests):
        if request.time_start is not None and time.time() - request.time_start > hard_limit + MARGIN_SECONDS:
            return f"{request.name} runs for longer than {hard_limit:g} s"
    return None
