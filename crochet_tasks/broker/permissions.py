"""Users: what each kind of service may do in RabbitMQ. An administrator makes them through the management API.

A user is called after its vhost (crochet for "/") and its kind, such as crochet_relay: users are of the whole server.
Celery names what it makes for itself: celeryev and celery@HOST.celery.pidbox for the remote control and the events that
Flower shows, and queues named by a UUID for the answers of workers.
"""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import httpx

from crochet_tasks.broker import queues
from crochet_tasks.broker.queues import DEAD_EXCHANGE, EXCHANGE, WORK
from crochet_tasks.errors import BrokerRefused, BrokerUnavailable, SettingMissing
from crochet_tasks.settings import Settings

SECONDS = 10.0
NOTHING = "^$"
_WORK = "|".join(WORK)
_CONTROL = r"celeryev.*|.*celery\.pidbox"
_DEFAULT = r"amq\.default"
"""The default exchange, through which Celery publishes to a queue: RabbitMQ then does not ask which queue that is"""


class Rights(NamedTuple):
    """What a user may declare and delete, write to, and read from, as regular expressions; and its tag, for the
    management API.
    """

    configure: str
    write: str
    read: str
    tags: str = ""


def _only(*patterns: str) -> str:
    return f"^({'|'.join(patterns)})$"


# To declare a queue with a dead-letter exchange asks for reading it and writing to the exchange; to bind one, for
# writing to it and reading the exchange.
_TOPOLOGY = (EXCHANGE, DEAD_EXCHANGE, f"({_WORK})(-dead)?")
RIGHTS: dict[str, Rights] = {
    "api": Rights(NOTHING, NOTHING, NOTHING),  # looks how long queues are, which needs no right
    "worker": Rights(
        _only(*_TOPOLOGY, _CONTROL),
        _only(*_TOPOLOGY, _CONTROL, _DEFAULT),
        _only(EXCHANGE, DEAD_EXCHANGE, _WORK, _CONTROL),
    ),
    "relay": Rights(_only(*_TOPOLOGY, "celeryev"), _only(*_TOPOLOGY, "celeryev", _DEFAULT), _only(*_TOPOLOGY)),
    "flower": Rights(_only(_CONTROL), _only(_CONTROL), _only(_CONTROL), "monitoring"),
    "metrics": Rights(NOTHING, NOTHING, NOTHING, "monitoring"),
}


def vhost(settings: Settings) -> str:
    return unquote(urlsplit(queues.address(settings)).path[1:]) or "/"


def make(settings: Settings, passwords: Mapping[str, str]) -> list[str]:
    """Make the users of these kinds where they are missing, with these passwords and exactly their rights; the kinds.

    Raises SettingMissing without CROCHET_BROKER_API_URL, whose user is an administrator, BrokerRefused and
    BrokerUnavailable.
    """
    if settings.broker_api_url is None:
        raise SettingMissing(variable="CROCHET_BROKER_API_URL", needed_for="users are made through the management API")
    url = urlsplit(settings.broker_api_url.get_secret_value())
    base = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl().rstrip("/")
    login = unquote(url.username or ""), unquote(url.password or "")
    where = vhost(settings)
    prefix = "crochet" if where == "/" else where
    kinds = [kind for kind in passwords if kind in RIGHTS]
    with httpx.Client(auth=login, timeout=SECONDS) as client:
        for kind in kinds:
            name, rights = quote(f"{prefix}_{kind}", safe=""), RIGHTS[kind]
            _put(client, f"{base}/users/{name}", {"password": passwords[kind], "tags": rights.tags})
            allowed = {part: getattr(rights, part) for part in ("configure", "write", "read")}
            _put(client, f"{base}/permissions/{quote(where, safe='')}/{name}", allowed)
    return kinds


def _put(client: httpx.Client, url: str, body: dict[str, Any]) -> None:
    try:
        answer = client.put(url, json=body)
    except httpx.HTTPError as error:
        raise BrokerUnavailable(reason=f"its management API: {error}") from error
    if answer.status_code >= http.HTTPStatus.BAD_REQUEST:
        raise BrokerRefused(reason=f"its management API answers {answer.status_code}")
