"""What the user of each kind of service may do in RabbitMQ, and what not; docs/deployment.md."""

from __future__ import annotations

import http.client
import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from amqp import Message
from amqp.exceptions import AccessRefused

from crochet_tasks.broker import permissions, queues
from crochet_tasks.errors import BrokerRefused
from crochet_tasks.settings import Settings
from tests.support import roles
from tests.support.services import RabbitMQ

pytestmark = pytest.mark.integration


@pytest.fixture
def settings_of(vhost: str, rabbitmq: RabbitMQ) -> Callable[[str], Settings]:
    """Of each kind, after the relay has declared everything."""
    roles.make_in_rabbitmq(vhost, rabbitmq.api_url)

    def load(kind: str) -> Settings:
        return Settings.load(broker_url=roles.rabbitmq(vhost, kind))

    queues.declare(load("relay"), wait=0, report=pytest.fail)
    return load


def publish(channel: Any) -> None:
    channel.basic_publish(Message("{}"), exchange="", routing_key="search")


def consume(queue: str) -> Callable[[Any], None]:
    return lambda channel: channel.basic_get(queue)


def declare(queue: str) -> Callable[[Any], None]:
    return lambda channel: channel.queue_declare(queue, durable=True, auto_delete=False)


def delete(queue: str) -> Callable[[Any], None]:
    return lambda channel: channel.queue_delete(queue)


MUST_NOT = {
    "api": (publish, consume("search"), consume("search-dead"), declare("mine"), delete("search")),
    "worker": (consume("search-dead"), declare("mine"), consume("mine"), delete("mine")),
    "relay": (declare("mine"), consume("mine"), delete("mine")),
    "flower": (publish, consume("search"), consume("search-dead"), declare("mine"), delete("search")),
    "metrics": (publish, consume("search"), declare("mine"), delete("search")),
}


def test_no_user_may_do_what_its_kind_does_not_need(settings_of: Callable[[str], Settings], vhost: str) -> None:
    assert MUST_NOT.keys() == permissions.RIGHTS.keys()
    with queues.connected(Settings.load(broker_url=vhost)) as owner:
        declare("mine")(owner.channel())
    for kind, actions in MUST_NOT.items():
        with queues.connected(settings_of(kind)) as broker:
            for action in actions:
                with pytest.raises(AccessRefused):
                    action(broker.channel())


def test_the_api_sees_how_long_queues_are_and_declares_none(settings_of: Callable[[str], Settings]) -> None:
    settings = settings_of("api")
    with queues.connected(settings) as broker:
        assert queues.depths(broker).keys() == {*queues.WORK, *map(queues.dead, queues.WORK)}
    with pytest.raises(BrokerRefused):
        queues.declare(settings, wait=0, report=pytest.fail)


def test_a_password_is_changed_without_ending_what_is_connected(
    settings_of: Callable[[str], Settings], vhost: str, rabbitmq: RabbitMQ
) -> None:
    with queues.connected(settings_of("relay")) as before:
        roles.make_in_rabbitmq(vhost, rabbitmq.api_url, {"relay": "the-next-password"})
        publish(before.channel())
    with pytest.raises(BrokerRefused), queues.connected(settings_of("relay")):
        pass
    with queues.connected(Settings.load(broker_url=roles.rabbitmq(vhost, "relay", "the-next-password"))):
        pass


def test_monitoring_sees_the_queues_and_no_password(
    settings_of: Callable[[str], Settings], vhost: str, rabbitmq: RabbitMQ
) -> None:
    settings_of("metrics")
    user = urlsplit(roles.rabbitmq(vhost, "metrics"))
    login = b64encode(f"{user.username}:{user.password}".encode()).decode()
    api = urlsplit(rabbitmq.api_url)
    answers = {}
    for path in ("/api/overview", "/api/users", "/api/definitions"):
        connection = http.client.HTTPConnection(str(api.hostname), api.port, timeout=30)
        connection.request("GET", path, headers={"Authorization": f"Basic {login}"})
        answer = connection.getresponse()
        answers[path] = answer.status
        json.loads(answer.read())
        connection.close()
    assert answers == {"/api/overview": 200, "/api/users": 401, "/api/definitions": 401}


def test_an_administrator_is_needed(vhost: str, rabbitmq: RabbitMQ) -> None:
    wrong = rabbitmq.api_url.replace("://", "://nobody:").replace("crochet:", "", 1)
    with pytest.raises(BrokerRefused, match="401"):
        roles.make_in_rabbitmq(vhost, wrong)
