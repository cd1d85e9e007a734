"""Queues that RabbitMQ breaks when it is killed just after it declared them."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from crochet_tasks.broker import queues, repair
from crochet_tasks.settings import Settings
from tests.support.services import RabbitMQ


def break_queues(rabbitmq: RabbitMQ, vhost: str) -> tuple[Settings, repair.Repair]:
    """Settings of a vhost with a broken queue, and a repair that has found it once.

    Where this machine was slow the kill comes too late, and another vhost is tried.
    """
    for _ in range(5):
        settings = Settings(broker_url=SecretStr(vhost), publish_timeout=1.0)
        queues.declare(Settings(broker_url=SecretStr(vhost)), report=pytest.fail)  # a disk may take seconds for one
        rabbitmq.kill()
        rabbitmq.start()
        repairs = repair.Repair(settings)
        repairs.check()
        if repairs.due:
            return settings, repairs
        vhost = rabbitmq.new_vhost()
    pytest.fail("this RabbitMQ loses no queues: if no supported one does, delete broker/repair.py")
