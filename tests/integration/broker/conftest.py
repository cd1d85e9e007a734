"""Fixtures: a broker in which everything is declared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import celery
import kombu
import pytest

from crochet_tasks.broker import queues
from crochet_tasks.settings import Settings
from tests.support.messages import PAYLOAD, never, settings_of


@pytest.fixture
def settings(vhost: str) -> Settings:
    """Those of a broker in which everything is declared."""
    settings = settings_of(vhost)
    queues.declare(settings, report=never)
    return settings


@pytest.fixture
def broker(settings: Settings) -> Iterator[kombu.Connection]:
    with queues.connected(settings) as broker:
        yield broker


@pytest.fixture
def send(settings: Settings) -> Iterator[Callable[..., str]]:
    """Sends a task its message as a Celery app does and returns its id."""
    with celery.Celery("sender", broker=queues.address(settings), set_as_current=False) as sender:
        sender.conf.update(
            task_queues=queues.celery_queues(settings),
            task_create_missing_queues=False,
            broker_transport_options=queues.transport_options(settings),
        )

        def send(task: str, **options: Any) -> str:
            queue = task.partition(".")[0]
            return str(sender.send_task(task, args=[PAYLOAD], queue=queue, **options).id)

        yield send
        sender.pool.force_close_all()
