"""The queues on a real RabbitMQ."""

from __future__ import annotations

import functools
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kombu
import pytest

from crochet_tasks import readiness
from crochet_tasks.broker import queues, repair
from crochet_tasks.broker.queues import Depth
from crochet_tasks.errors import (
    BrokerRefused,
    BrokerUnavailable,
    QueueMismatch,
    QueueMissing,
)
from crochet_tasks.settings import Settings
from tests.support.broken import break_queues
from tests.support.messages import drain, never, settings_of
from tests.support.services import RabbitMQ
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration
CLASSIC = {"x-queue-type": "classic", "x-delivery-limit": None, "x-dead-letter-strategy": None}
CHECKS = 10
"""of broken queues, until all work again; on a quick machine it takes two"""


# ── declaring ───────────────────────────────────────────────────────────────────────────────────


def test_everything_is_declared(rabbitmq: RabbitMQ, vhost: str, broker: kombu.Connection) -> None:
    """Every queue is there, empty, a durable quorum queue, and one consumer at a time has the ordered ones."""
    names = {*queues.WORK, *map(queues.dead, queues.WORK)}
    assert queues.depths(broker) == dict.fromkeys(names, queues.Depth(0, 0))
    found = rabbitmq.api("GET", f"/queues/{vhost.rpartition('/')[2]}")
    assert {queue["name"] for queue in found} == names
    assert {(queue["arguments"]["x-queue-type"], queue["durable"]) for queue in found} == {("quorum", True)}
    single = {queue["name"] for queue in found if queue["arguments"].get("x-single-active-consumer")}
    assert single == set(queues.ORDERED)


def test_declaring_again_changes_nothing(settings: Settings, send: Callable[..., str]) -> None:
    """What is there already, with messages in it, stays."""
    send("search.part")
    queues.declare(settings, report=never)
    with queues.connected(settings) as broker:
        eventually(lambda: queues.depths(broker)["search"].ready == 1)


def test_what_is_missing_is_made_again(settings: Settings, broker: kombu.Connection) -> None:
    """Queues that were deleted are named, and declared again; the others are still counted."""
    for name in ("search", "orthos-dead"):
        broker.default_channel.queue_delete(name)
    with pytest.raises(QueueMissing, match="'search'"):
        queues.depths(broker)
    found = readiness.check_queues(settings)
    assert {name for name, depth in found.items() if depth is None} == {"search", "orthos-dead"}
    assert found["orthos"] == queues.Depth(0, 0)
    assert set(found) == {*queues.WORK, *map(queues.dead, queues.WORK)}
    queues.declare(settings, report=never)
    assert "orthos-dead" in queues.depths(broker)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("search", CLASSIC, "(x-queue-type is classic and should be quorum)"),
        ("search", {"x-delivery-limit": 9}, "(x-delivery-limit is 9 and should be 3)"),
        ("context", {"x-single-active-consumer": None}, "(x-single-active-consumer is none and should be true)"),
        ("orthos", {"x-max-length": 5}, "(x-max-length is 5 and should be none)"),
        ("orthos", {"x-dead-letter-strategy": None}, "(x-dead-letter-strategy is none and should be at-least-once)"),
    ],
)
def test_a_queue_with_other_arguments_is_named(vhost: str, name: str, arguments: dict[str, Any], says: str) -> None:
    """The queue, what differs and what it should be: at once, because waiting would not help."""
    settings = settings_of(vhost)
    (queue,) = (queue for queue in queues.celery_queues(settings) if queue.name == name)
    other = {**vars(queue)["queue_arguments"], **arguments}
    with queues.connected(settings) as broker:
        broker.default_channel.queue_declare(
            name, durable=True, auto_delete=False, arguments={k: v for k, v in other.items() if v is not None}
        )
        with pytest.raises(QueueMismatch) as caught:
            queues.declare(settings, report=never)
    assert says in str(caught.value)
    assert caught.value.context["queue"] == name


def test_an_exchange_of_another_type_is_named(vhost: str) -> None:
    """An exchange that would route otherwise is no exchange of ours."""
    settings = settings_of(vhost)
    with queues.connected(settings) as broker:
        broker.default_channel.exchange_declare("crochet", "topic", durable=True, auto_delete=False)
    with pytest.raises(QueueMismatch, match=r"'crochet' .*\(type of the exchange is topic and should be direct\)"):
        queues.declare(settings, report=never)


# ── the broker refuses, or is away ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (r"crochet:", "crochet:Wrong", "Login was refused"),
        (r"crochet:", "nobody:Wrong", "Login was refused"),
        ("/test-", "/nowhere-", "vhost nowhere-"),
    ],
)
def test_a_broker_that_refuses_is_not_asked_again(vhost: str, old: str, new: str, says: str) -> None:
    """A wrong user, password or vhost is reported at once, without the password."""
    wrong = vhost.replace(old, new)
    with pytest.raises(BrokerRefused) as caught:
        queues.declare(settings_of(wrong), report=never)
    assert says in str(caught.value)
    no_password_in(wrong, caught.value)


def no_password_in(url: str, error: BaseException | None, *lines: str) -> None:
    password = url.partition("@")[0].rpartition(":")[2]
    while error is not None:
        lines += (str(error), repr(error))
        error = error.__cause__
    assert password
    assert password not in " ".join(lines)


def test_missing_rights_are_a_refusal(rabbitmq: RabbitMQ, vhost: str) -> None:
    """A user that may not declare gets an error."""
    user, name = f"user-{uuid.uuid4()}", vhost.rpartition("/")[2]
    rabbitmq.api("PUT", f"/users/{user}", {"password": "secret", "tags": ""})
    rabbitmq.api("PUT", f"/permissions/{name}/{user}", {"configure": "^$", "write": ".*", "read": ".*"})
    url = f"amqp://{user}:secret@{vhost.partition('@')[2]}"
    with pytest.raises(BrokerRefused, match=r"access to exchange 'crochet-dead' .* refused"):
        queues.declare(settings_of(url), report=never)


@pytest.mark.slow
def test_a_broker_that_comes_up_late_is_waited_for(tmp_path: Path) -> None:
    """Waiting ends when the broker answers; its outage is reported, and afterwards all is as before."""
    late = RabbitMQ(tmp_path)
    settings = settings_of(late.url, startup_wait=60)
    reports = list[str]()
    with pytest.raises(BrokerUnavailable) as caught:
        queues.declare(settings, wait=0.3, report=reports.append)
    no_password_in(late.url, caught.value, *reports)
    starting = threading.Thread(target=late.start)
    starting.start()
    try:
        queues.declare(settings, report=reports.append)
        assert len(reports) > 3
        no_password_in(late.url, None, *reports)
        starting.join()
        with queues.connected(settings) as broker:
            late.stop()
            with pytest.raises(BrokerUnavailable):
                queues.depths(broker)
        late.start()
        queues.declare(settings, wait=30, report=reports.append)
        with queues.connected(settings) as broker:
            assert len(queues.depths(broker)) == 2 * len(queues.WORK)
    finally:
        starting.join()
        late.kill()


# ── publishing ──────────────────────────────────────────────────────────────────────────────────


def test_single_active_consumer(settings: Settings, send: Callable[..., str]) -> None:
    """All messages of an ordered queue go to one consumer, and to the other when that one is gone."""
    got = list[str]()
    with queues.connected(settings) as first, queues.connected(settings) as second:
        for name, broker in (("first", first), ("second", second)):
            channel: Any = broker.default_channel
            note = functools.partial(lambda name, message: got.append(name), name)
            channel.basic_consume("ingest", name, callback=note, no_ack=True)
        for _ in range(10):
            send("ingest.text")
        drain(first, second, enough=lambda: len(got) >= 10)
        assert got == 10 * ["first"]
        first.release()
        send("ingest.text")
        drain(second, enough=lambda: len(got) > 10)
        assert got[10:] == ["second"]


def test_a_full_queue_refuses(broker: kombu.Connection) -> None:
    """A message that the broker did not take is no success: it is for the relay to send it again."""
    limits = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    broker.default_channel.queue_declare("full", durable=True, auto_delete=False, arguments=limits)
    producer = kombu.Producer(broker.default_channel)

    def fill(*, retry: bool) -> None:
        while True:
            with queues.broker_errors():
                producer.publish({}, routing_key="full", retry=retry, retry_policy={"max_retries": 0})

    for retry in (False, True):
        with pytest.raises(BrokerUnavailable, match="did not take the message"):
            fill(retry=retry)


@pytest.mark.parametrize(("exchange", "named"), [("crochet", "'nowhere'"), ("nothing", "'nothing'")])
def test_a_message_that_goes_nowhere_is_noticed(broker: kombu.Connection, exchange: str, named: str) -> None:
    """Sent as mandatory, a message for a queue or exchange that is not there is an error which names it."""
    producer = kombu.Producer(broker.default_channel)
    with pytest.raises(QueueMissing, match=named), queues.broker_errors("nowhere"):
        producer.publish({}, exchange=exchange, routing_key="nowhere", mandatory=True)


# ── queues that a crash of the broker has broken ────────────────────────────────────────────────


@pytest.mark.slow
def test_broken_queues_are_recreated(rabbitmq: RabbitMQ, vhost: str) -> None:
    """Killed at once after it declared queues, RabbitMQ loses the newest: it works again after some checks."""
    settings, repairs = break_queues(rabbitmq, vhost)
    for _ in range(CHECKS):
        repairs.check()
        if not repairs.due:
            break
        time.sleep(0.1)
    assert not repairs.due
    with queues.connected(settings) as broker:
        assert repair.broken(settings, queues.find(broker)) == set()


def test_working_queues_are_left_alone(settings: Settings, broker: kombu.Connection, send: Callable[..., str]) -> None:
    """Queues with messages, empty ones and missing ones: each is as it was after any number of checks."""
    send("search.grow")
    broker.default_channel.queue_delete("orthos")
    eventually(lambda: queues.find(broker)["search"] == Depth(1, 0))
    before = queues.find(broker)
    repairs = repair.Repair(settings)
    for _ in range(3):
        repairs.due = True
        repairs.check()
        assert not repairs.due
    eventually(lambda: queues.find(broker) == before)
    assert before["orthos"] is None
