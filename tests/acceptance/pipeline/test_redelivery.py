"""A broker that delivers messages late, in any order and more than once, while workers take them."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest
from amqp.basic_message import Message
from kombu import Connection

from crochet_tasks.broker import queues
from crochet_tasks.engine.geometry import Limits
from tests.acceptance.conftest import Deploy
from tests.acceptance.pipeline.test_kills import seeded
from tests.support import steps
from tests.support.bodies import pieces
from tests.support.cluster import accept, check, closed, corpus_of, until
from tests.support.commands import RELAY, SEARCH, STAGES, STORE

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

log = logging.getLogger(__name__)

TEXTS = pieces("market.txt", 6)[:3]
SIZES = {"CROCHET_BATCH_ORTHOS": "7", "CROCHET_RESULT_ORTHOS": "10", "CROCHET_PART_WORDS": "30"}
SHUFFLED = 100


class Shuffler:
    """Takes what waits in a queue and puts each message back 1 to 3 times, in any order."""

    def __init__(self, broker: Connection, chance: random.Random) -> None:
        self._channel: Any = broker.channel()
        self._channel.auto_decode = False
        self._chance = chance
        self.taken = self.put = 0

    def shuffle(self, queue: str) -> None:
        messages = list(iter(lambda: self._channel.basic_get(queue), None))
        copies = [message for message in messages for _ in range(self._chance.randint(1, 3))]
        self._chance.shuffle(copies)
        for message in copies:
            self._channel.basic_publish_confirm(Message(message.body, **message.properties), queues.EXCHANGE, queue)
        for message in messages:
            self._channel.basic_ack(message.delivery_tag)
        self.taken += len(messages)
        self.put += len(copies)


def test_messages_more_than_once(deploy: Deploy) -> None:
    """Searches and results are delivered 1 to 3 times, shuffled, while workers run: each ortho is stored once."""
    deployment = deploy(**SIZES, CROCHET_LEASE="3")
    with deployment.process() as process, seeded() as chance:
        corpus = corpus_of(process, Limits())
        for command in (RELAY, STAGES, SEARCH, SEARCH, STORE):
            deployment.start(*command)
        with queues.connected(deployment.settings) as broker:
            queues.declare(deployment.settings, report=log.info)
            shuffler, waiting = Shuffler(broker, chance), list(TEXTS)

            def done() -> bool:
                if shuffler.taken < SHUFFLED:
                    shuffler.shuffle("search")
                    shuffler.shuffle("orthos")
                return closed(process, corpus)

            for body in waiting:
                accept(process, corpus, [body])
                until(done, deployment, 60, pause=0.01)
        log.info("%d messages were put back %d times", shuffler.taken, shuffler.put)
        assert shuffler.put > shuffler.taken > 20
        check(process, corpus, steps.expected(TEXTS))
