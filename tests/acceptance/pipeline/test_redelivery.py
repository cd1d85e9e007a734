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
from tests.support import steps
from tests.support.bodies import pieces
from tests.support.cluster import accept, check, closed, corpus_of, until
from tests.support.commands import RELAY, SEARCH, STAGES, STORE

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

log = logging.getLogger(__name__)

TEXTS = pieces("market.txt", 6)[:3]
SIZES = {"CROCHET_BATCH_ORTHOS": "7", "CROCHET_RESULT_ORTHOS": "10", "CROCHET_PART_WORDS": "30"}
SHUFFLED = 100
WAITING = 10
"""messages of a queue that are shuffled before anything takes them"""


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
    with deployment.process() as process, queues.connected(deployment.settings) as broker:
        corpus = corpus_of(process, Limits())
        queues.declare(deployment.settings, report=log.info)
        shuffler = Shuffler(broker, random.Random(2026))

        def shuffle_waiting(queue: str) -> None:
            until(lambda: queues.depths(broker)[queue].ready >= WAITING, deployment)
            shuffler.shuffle(queue)

        def done() -> bool:
            if shuffler.taken < SHUFFLED:
                shuffler.shuffle("search")
                shuffler.shuffle("orthos")
            return closed(process, corpus)

        deployment.start(*RELAY)
        deployment.start(*STAGES)
        accept(process, corpus, TEXTS[:1])
        shuffle_waiting("search")
        deployment.start(*SEARCH)
        deployment.start(*SEARCH)
        shuffle_waiting("orthos")
        deployment.start(*STORE)
        until(done, deployment, pause=0.01)
        for body in TEXTS[1:]:
            accept(process, corpus, [body])
            until(done, deployment, pause=0.01)
        log.info("%d messages were put back %d times", shuffler.taken, shuffler.put)
        assert shuffler.put > shuffler.taken >= 2 * WAITING
        check(process, corpus, steps.expected(TEXTS))
