"""Dead letters on a real RabbitMQ: read, taken, never lost."""

from __future__ import annotations

import time
from collections.abc import Callable

import kombu
import pytest

from crochet_tasks.broker import queues
from crochet_tasks.errors import (
    BrokerUnavailable,
    CrochetError,
)
from crochet_tasks.settings import Settings
from tests.support.messages import PAYLOAD, get, read, reject, wait_for_dead
from tests.support.waiting import SECONDS, eventually

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("queue", queues.WORK)
def test_a_rejected_message_is_read_until_it_is_taken(
    broker: kombu.Connection, send: Callable[..., str], queue: str
) -> None:
    """A rejected message is in its queue's dead-letter queue, with all its properties, until it is acknowledged."""
    sent = send(f"{queue}.task")
    before = time.time()
    reject(broker, queue)
    wait_for_dead(broker, **{queue: 1})
    for _ in range(3):
        (letter,) = read(broker)
        assert letter[:5] == (queue, "rejected", f"{queue}.task", sent, PAYLOAD)
        assert letter.times == 1
        assert abs(letter.died_at.timestamp() - before) < SECONDS
    with queues.dead_letters(broker, 1) as letters:
        for _, take in letters:
            take()
    assert read(broker) == []
    wait_for_dead(broker, **{queue: 0})


def test_binary_messages_are_read(broker: kombu.Connection, send: Callable[..., str]) -> None:
    """What travels in msgpack is read, too."""
    send("orthos.store", serializer="msgpack")
    reject(broker, "orthos")
    wait_for_dead(broker, orthos=1)
    assert [letter.payload for letter in read(broker)] == [PAYLOAD]


def test_a_message_that_kills_its_workers_dies(
    settings: Settings, broker: kombu.Connection, send: Callable[..., str]
) -> None:
    """It is delivered once and then as often again as CROCHET_DELIVERY_LIMIT says; then that is its reason."""
    sent = send("search.part")
    for _ in range(1 + settings.delivery_limit):
        with queues.connected(settings) as worker:  # whose end is that of a killed worker's connection
            get(worker, "search")
    wait_for_dead(broker, search=1)
    (letter,) = read(broker)
    assert (letter.reason, letter.message_id, letter.payload) == ("delivery_limit", sent, PAYLOAD)


def test_dead_letters_are_not_lost_by_looking(broker: kombu.Connection, send: Callable[..., str]) -> None:
    """However often a letter is read and returned, it stays."""
    send("search.part")
    reject(broker, "search")
    wait_for_dead(broker, search=1)
    for _ in range(25):
        assert len(read(broker)) == 1


def test_a_letter_is_not_taken_when_keeping_it_fails(broker: kombu.Connection, send: Callable[..., str]) -> None:
    """An error on the way leaves the letter where it was; those taken before are gone. It stays the caller's error."""
    sent = [send("search.part") for _ in range(3)]
    for _ in sent:
        reject(broker, "search")
    wait_for_dead(broker, search=3)

    def keep() -> None:
        with queues.dead_letters(broker, 100) as letters:
            for letter, take in letters:
                if letter.message_id == sent[1]:
                    raise OSError("the disk is full")
                take()

    with pytest.raises(OSError, match="the disk is full") as caught:
        keep()
    assert not isinstance(caught.value, CrochetError)
    assert [letter.message_id for letter in read(broker)] == sent[1:]


def test_no_more_than_asked_for(broker: kombu.Connection, send: Callable[..., str]) -> None:
    """`most` bounds what is fetched, over all queues together."""
    for task in ("search.part", "search.part", "ingest.text"):
        send(task)
        reject(broker, task.partition(".")[0])
    wait_for_dead(broker, search=2, ingest=1)
    assert [letter.task for letter in read(broker, 2)] == ["ingest.text", "search.part"]
    assert [letter.task for letter in read(broker, 0)] == []
    assert len(read(broker)) == 3


def test_anything_can_be_in_a_dead_letter_queue(broker: kombu.Connection) -> None:
    """An undecodable body is returned as it is, also where its encoding is wrong."""
    channel = broker.default_channel
    for content_type, encoding, body in (
        ("application/json", "utf-8", b"\xff" * 100_000),
        ("application/x-python-serialize", "utf-16", "böse".encode("utf-16")),
        ("text/plain", "latin-1", b"\xe9"),
    ):
        message = channel.prepare_message(body, content_type=content_type, content_encoding=encoding)
        channel.basic_publish(message, "crochet-dead", "search-dead")
    wait_for_dead(broker, search=3)
    letters = read(broker)
    assert [letter.body for letter in letters] == [b"\xff" * queues.BODY_BYTES, "böse".encode("utf-16"), b"\xe9"]
    assert {(letter.queue, letter.reason, letter.task, letter.payload) for letter in letters} == {
        ("search", "unknown", None, None)
    }


def test_a_lost_connection_is_told(settings: Settings, send: Callable[..., str]) -> None:
    """Where the connection is gone the letter cannot be taken: that is our error, and the letter is still there."""
    send("search.part")
    with queues.connected(settings) as broker:
        reject(broker, "search")
        wait_for_dead(broker, search=1)
        with queues.dead_letters(broker, 1) as letters:
            (_, take) = next(letters)
            broker.connection.transport.close()
            with pytest.raises(BrokerUnavailable):
                take()
    with queues.connected(settings) as broker:
        eventually(lambda: len(read(broker)) == 1)
