"""Recreate queues that a crash of RabbitMQ has broken.

RabbitMQ writes down about a second after it declared a quorum queue where its messages are. Killed before, it comes
back with a queue that is listed and takes neither messages nor consumers, for ever (rabbitmq-server issue 10070). One
such queue stops a worker of all queues: it waits for its consumers. What was in the queue is lost; the work is in the
database and is published again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from crochet_tasks.broker import queues
from crochet_tasks.broker.queues import Depth
from crochet_tasks.errors import BrokerUnavailable, QueueMissing
from crochet_tasks.settings import Settings

log = logging.getLogger(__name__)

DELETE_SECONDS = 30.0
"""for the broker to delete a queue: of a broken one it waits 5 s for an answer"""


class Repair:
    """Checks the queues after each time the broker was away. A queue is recreated when two checks in a row fail.

    In a cluster that has lost most of its nodes, and still answers, it is recreated on those that are left (ADR 0040).
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._suspects: set[str] = set()
        self.due = True
        """set it when the broker was away"""

    def check(self) -> None:
        """Check all queues, if that is due; `due` stays set while one is broken.

        Raises BrokerUnavailable or BrokerRefused.
        """
        if not self.due:
            return
        with queues.connected(self._settings) as broker:
            found = broken(self._settings, queues.find(broker))
        for name in found & self._suspects:
            log.error("queue_broken", extra={"queue": name, "advice": "RabbitMQ lost it in a crash: it is recreated"})
            delete(self._settings, name)
        if found & self._suspects:
            queues.declare(self._settings, wait=0, report=log.warning)
        self._suspects = found - self._suspects
        self.due = bool(found)


def broken(settings: Settings, depths: Mapping[str, Depth | None]) -> set[str]:
    """Return the queues that take no consumer within CROCHET_PUBLISH_TIMEOUT. A broken one reports a depth of 0, 0."""
    return {name for name, depth in depths.items() if depth == Depth(0, 0) and not _takes_consumer(settings, name)}


def _takes_consumer(settings: Settings, name: str) -> bool:
    """Consume and stop at once. A message that arrives meanwhile returns to its queue as the connection is closed."""
    with queues.connected(settings) as broker, queues.broker_errors(name):
        channel = broker.channel()
        channel.basic_qos(0, 1, a_global=False)
        try:
            with queues.broker_errors(name):
                channel.basic_consume(name)
        except BrokerUnavailable:
            return False
        except QueueMissing:  # deleted since its depth was read
            pass
    return True


def delete(settings: Settings, name: str) -> None:
    """Delete a queue with its messages."""
    patient = settings.model_copy(update={"publish_timeout": max(settings.publish_timeout, DELETE_SECONDS)})
    with queues.connected(patient) as broker, queues.broker_errors(name):
        broker.channel().queue_delete(name)
