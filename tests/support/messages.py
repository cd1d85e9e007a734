"""Messages as workers take, reject and lose them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import kombu
import pytest
from pydantic import SecretStr

from crochet_tasks.broker import queues
from crochet_tasks.broker.queues import DeadLetter
from crochet_tasks.settings import Settings
from tests.support.waiting import eventually

PAYLOAD = {"corpus": 1, "work": "a-work-item"}


def settings_of(url: str, **more: Any) -> Settings:
    return Settings(broker_url=SecretStr(url), **more)


def never(line: str) -> None:
    pytest.fail(f"unexpected report: {line}")


def get(broker: kombu.Connection, queue: str) -> Any:
    """The next message of a queue, once there is one, as a worker gets it (basic.get is refused by ordered queues)."""
    got = list[Any]()
    channel: Any = broker.default_channel  # amqp's: kombu's types are those of its emulated ones
    channel.basic_qos(0, 1, a_global=False)
    consumer = channel.basic_consume(queue, "", callback=got.append)
    drain(broker, enough=lambda: bool(got))
    channel.basic_cancel(consumer)
    return got[0]


def drain(*brokers: kombu.Connection, enough: Callable[[], bool]) -> None:
    """Let the brokers deliver until it is enough."""

    def delivered() -> bool:
        for broker in brokers:
            with contextlib.suppress(TimeoutError):
                broker.drain_events(timeout=0.05)
        return enough()

    eventually(delivered)


def reject(broker: kombu.Connection, queue: str, *, requeue: bool = False) -> None:
    broker.default_channel.basic_reject(get(broker, queue).delivery_tag, requeue)


def wait_for_dead(broker: kombu.Connection, **ready: int) -> None:
    eventually(lambda: all(queues.depths(broker)[queues.dead(name)].ready == count for name, count in ready.items()))


def read(broker: kombu.Connection, most: int = 100) -> list[DeadLetter]:
    """The dead letters, which stay where they are."""
    with queues.dead_letters(broker, most) as letters:
        return [letter for letter, _ in letters]
