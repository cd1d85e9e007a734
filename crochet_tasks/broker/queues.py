"""The queues: how they are declared, how long they are, and the messages that died in them.

    exchange `crochet`        work queue    what its messages ask for
    ─ key = queue's name ──►  ingest        triggers: a text waits to be split (in order)
                              context       triggers: a text waits to become a version (in order)
                              remediations  triggers: a version waits for its window (in order)
                              search        parts of windows
                              orthos        results to be stored, a few MB each
                              best          parts of searches for the best orthos
                              maintenance   merges of batches, checks of a deployment

A message that is rejected, or that exceeds the delivery limit because its workers died, is dead-lettered: the exchange
`crochet-dead` routes it to `<name>-dead`. That is at least once: the broker keeps it until the other queue has it.
A message of a stage belongs to a row of `work`, so a lost one costs a delay and no work. To add a queue: its name in
WORK, a task `NAME.x`, which is routed to it, and a worker that takes from it; CONTRIBUTING.md names the places.
"""

from __future__ import annotations

import contextlib
import functools
import re
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from amqp.exceptions import AMQPError, MessageNacked
from kombu import Connection, Exchange, Queue
from kombu.exceptions import KombuError, LimitExceeded, OperationalError
from kombu.serialization import loads, prepare_accept_content

from crochet_tasks.errors import (
    BrokerRefused,
    BrokerUnavailable,
    CrochetError,
    QueueMismatch,
    QueueMissing,
    SettingMissing,
)
from crochet_tasks.retry import wait_for
from crochet_tasks.settings import Settings

ORDERED = ("ingest", "context")
"""Queues with a single active consumer: that saves triggers out of turn. The corpus' ORDER lock keeps the order."""
WORK = (*ORDERED, "remediations", "search", "orthos", "best", "maintenance")
EXCHANGE = "crochet"
DEAD_EXCHANGE = "crochet-dead"

FOR_EVER = 1_000_000_000
"""A delivery limit that is never reached: since RabbitMQ 4 the default drops a message after 20 returns."""
BODY_BYTES = 64 * 1024


def dead(queue: str) -> str:
    """The name of a work queue's dead-letter queue."""
    return f"{queue}-dead"


# ── the topology ────────────────────────────────────────────────────────────────────────────────


def celery_queues(settings: Settings) -> list[Queue]:
    """The work queues, as Celery wants them."""
    return [_queue(name, EXCHANGE, _arguments(name, settings)) for name in WORK]


def _arguments(name: str, settings: Settings) -> dict[str, Any]:
    return {
        "x-delivery-limit": settings.delivery_limit,
        "x-dead-letter-exchange": DEAD_EXCHANGE,
        "x-dead-letter-routing-key": dead(name),
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # which that strategy asks for
        **({"x-single-active-consumer": True} if name in ORDERED else {}),
    }


def dead_queues() -> list[Queue]:
    return [_queue(dead(name), DEAD_EXCHANGE, {"x-delivery-limit": FOR_EVER}) for name in WORK]


def _queue(name: str, exchange: str, arguments: dict[str, Any]) -> Queue:
    arguments = {"x-queue-type": "quorum", **arguments}
    return Queue(name, Exchange(exchange, "direct", durable=True), name, durable=True, queue_arguments=arguments)


def declare(settings: Settings, *, wait: float | None = None, report: Callable[[str], None]) -> None:
    """Declare all exchanges, queues and bindings.

    While the broker is unavailable this retries for `wait` seconds (None: CROCHET_STARTUP_WAIT), calls `report` before
    each pause, and then raises BrokerUnavailable. Raises BrokerRefused or QueueMismatch at once.
    """
    wait_for(lambda: _declare(settings), settings.startup_wait if wait is None else wait, report)


def _declare(settings: Settings) -> None:
    with connected(settings) as broker, _channel(broker) as channel, broker_errors():
        for queue in [
            *dead_queues(),
            *celery_queues(settings),
        ]:  # dead-letter queues first: no message may die without one
            queue.declare(channel=channel)


class Depth(NamedTuple):
    """Ready messages of a queue (without the unacknowledged ones), and its consumers."""

    ready: int
    consumers: int


def depths(broker: Connection) -> dict[str, Depth]:
    """Return the depth of all work and dead-letter queues; raises QueueMissing, BrokerUnavailable, BrokerRefused."""
    found = {}
    for name, depth in find(broker).items():
        if depth is None:
            raise QueueMissing(queue=name)
        found[name] = depth
    return found


def find(broker: Connection) -> dict[str, Depth | None]:
    """As `depths`, with None for a queue that is not declared."""
    names = [*WORK, *map(dead, WORK)]
    found: dict[str, Depth | None] = {}
    while len(found) < len(names):
        with _channel(broker) as channel:  # another one after each that is missing: RabbitMQ closes the channel
            for name in names[len(found) :]:
                try:
                    with broker_errors(name):
                        _, ready, consumers = channel.queue_declare(name, passive=True)
                except QueueMissing:
                    found[name] = None
                    break
                found[name] = Depth(ready, consumers)
    return found


# ── the connection ──────────────────────────────────────────────────────────────────────────────


def address(settings: Settings) -> str:
    """CROCHET_BROKER_URL, for kombu and Celery; raises SettingMissing."""
    if settings.broker_url is None:
        raise SettingMissing(variable="CROCHET_BROKER_URL", needed_for="there is no broker to connect to")
    # kombu takes a semicolon, which a password may well hold, for the beginning of another address.
    return settings.broker_url.get_secret_value().replace(";", "%3B")


def tls(settings: Settings) -> dict[str, Any] | None:
    """Return the TLS options of amqps: by default kombu accepts any certificate, and sends the password."""
    if urlsplit(address(settings)).scheme != "amqps":
        return None
    return {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None}  # None: that of the address


def transport_options(settings: Settings) -> dict[str, Any]:
    """Return options by which every message is confirmed and every wait bounded by CROCHET_PUBLISH_TIMEOUT."""
    timeout = settings.publish_timeout
    return {"confirm_publish": True, "read_timeout": timeout, "write_timeout": timeout}


def connection(settings: Settings) -> Connection:
    """Return an unopened connection with bounded time-outs. It has no heartbeat: use it for a short time."""
    return Connection(
        address(settings),
        ssl=tls(settings) or False,
        connect_timeout=settings.publish_timeout,
        transport_options=transport_options(settings),
    )


@contextlib.contextmanager
def connected(settings: Settings) -> Iterator[Connection]:
    """Open a connection in one attempt; raises BrokerUnavailable or BrokerRefused. Errors of the body are passed on."""
    broker = connection(settings)
    try:
        with broker_errors():
            broker.ensure_connection(max_retries=0, reraise_as_library_errors=False)
        yield broker
    finally:
        broker.release()


@contextlib.contextmanager
def _channel(broker: Connection) -> Iterator[Any]:
    with broker_errors():
        channel = broker.channel()
        channel.auto_decode = False  # bodies are bytes, whatever their sender called them
    try:
        yield channel
    finally:
        broker.maybe_close_channel(channel)


# ── errors of the broker as our errors ──────────────────────────────────────────────────────────

REFUSALS = {402, 403, 530, 540}
"""AMQP's invalid path, access refused (login, rights), not allowed (vhost), not implemented"""

_INEQUIVALENT = re.compile(r"inequivalent arg '(.*?)' for (\w+) '.*?' in vhost .*: received (.*) but current is (.*)")


@contextlib.contextmanager
def broker_errors(queue: str = "?") -> Iterator[None]:
    """Raise errors of amqp, kombu and sockets as our errors; use it around calls of the broker only.

    `queue` is named where the broker returns a `mandatory` message that it cannot route: it does not name the queue.
    """
    try:
        yield
    except (AMQPError, MessageNacked, OperationalError, LimitExceeded, OSError) as error:
        ours = _as_crochet_error(error, queue)
        if ours is None:
            raise
        raise ours from error


def _as_crochet_error(error: BaseException, queue: str) -> CrochetError | None:
    """Return our error for one of the broker or a library; None where it is a bug."""
    while isinstance(error, OperationalError) and error.__cause__ is not None:
        error = error.__cause__  # kombu wraps what it retried
    if isinstance(error, AMQPError):
        return _of_reply(error.reply_code, str(error.reply_text or error), queue)
    if isinstance(error, MessageNacked):
        return BrokerUnavailable(reason="it did not take the message: the queue is full or about to go")
    if isinstance(error, LimitExceeded):
        return BrokerUnavailable(reason="no connection to it became free")
    if isinstance(error, TimeoutError):
        return BrokerUnavailable(reason="timed out")
    reason = error.strerror if isinstance(error, OSError) else None
    return BrokerUnavailable(reason=_one_line(reason or str(error) or type(error).__name__))


def _of_reply(code: int, text: str, queue: str) -> CrochetError | None:
    """Return our error for an AMQP reply code; for 404 to 406 also by RabbitMQ's text."""
    reason = _one_line(text)
    quoted = re.search(r"(?:queue|exchange) '([^']*)'", reason)
    name = quoted[1] if quoted else queue
    if code in REFUSALS or (code == 406 and " invalid arg " in reason):  # it does not know an argument of ours
        return BrokerRefused(reason=reason)
    if code == 312:  # no route
        return QueueMissing(queue=queue)
    if code == 404 and re.search(r" no (queue|exchange) '", reason):  # others are: its leader is away
        return QueueMissing(queue=name)
    if code == 405 and " exclusive " in reason:
        return QueueMismatch(queue=name, reason="it is exclusive to one connection")
    if code in (405, 406):
        differs = _INEQUIVALENT.search(reason)
        return QueueMismatch(queue=name, reason=_difference(*differs.groups())) if differs else None
    return BrokerUnavailable(reason=reason)


def _difference(argument: str, kind: str, *values: str) -> str:
    """Return in which argument a queue or exchange differs; of several the broker names one."""
    expected, found = (
        (re.findall(r"'(.*?)'", value) or [value])[0] for value in values
    )  # 'x', or the value 'x' of ...
    return f"{argument}{'' if kind == 'queue' else f' of the {kind}'} is {found} and should be {expected}"


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "no reason given"


# ── dead letters ────────────────────────────────────────────────────────────────────────────────


class DeadLetter(NamedTuple):
    """A message that died in the work queue `queue`, as far as it can be read.

    `reason` is RabbitMQ's (rejected, delivery_limit, expired, maxlen), `unknown` where the message has none; `times` is
    how often it died for that reason in this queue (the broker does not keep the number of deliveries). `died_at` is in
    UTC, to the second, or the time of reading where the message has none. `message_id` is the task's id,
    `payload` what it was called with, None where the body is neither JSON nor msgpack of a Celery task; `body` is cut.
    """

    queue: str
    reason: str
    task: str | None
    message_id: str | None
    payload: dict[str, Any] | None
    body: bytes
    died_at: datetime
    times: int


Acknowledge = Callable[[], None]


@contextlib.contextmanager
def dead_letters(broker: Connection, most: int) -> Iterator[Iterator[tuple[DeadLetter, Acknowledge]]]:
    """Up to `most` dead letters, oldest first within each queue, each with a function that acknowledges it.

    Acknowledge a letter after it is recorded. The others return to their queue when the context ends, and so may one
    acknowledged just before the connection broke: recognise letters by their message id.
    """
    with _channel(broker) as channel:
        yield _letters(channel, most)


def _letters(channel: Any, most: int) -> Iterator[tuple[DeadLetter, Acknowledge]]:
    for name in WORK:
        while most > 0:
            with broker_errors():
                message = channel.basic_get(dead(name))
            if message is None:
                break
            most -= 1
            yield (
                read(name, message.properties, message.body),
                functools.partial(_acknowledge, channel, message.delivery_tag),
            )


def _acknowledge(channel: Any, tag: int) -> None:
    with broker_errors():
        channel.basic_ack(tag)


def read(queue: str, properties: dict[str, Any], body: bytes) -> DeadLetter:
    """Parse a message from the dead-letter queue of `queue`. Never raises: any client can send any message."""
    headers = properties.get("application_headers") or {}
    deaths = headers.get("x-death")
    death = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    at, times, task = death.get("time"), death.get("count"), headers.get("task")
    message_id = headers.get("id") or properties.get("correlation_id") or properties.get("message_id")
    return DeadLetter(
        queue=queue,
        reason=_text(death.get("reason") or "unknown"),
        task=_text(task) if isinstance(task, str) else None,
        message_id=None if message_id is None else _text(message_id),
        payload=_payload(properties, body),
        body=body[:BODY_BYTES],
        died_at=at.replace(tzinfo=UTC) if isinstance(at, datetime) else datetime.now(UTC),
        times=times if isinstance(times, int) else 1,
    )


def _text(value: object) -> str:
    """Return text that Postgres accepts: without NUL and lone surrogates."""
    return str(value).replace("\0", "?").encode(errors="replace").decode()


def _payload(properties: dict[str, Any], body: bytes) -> dict[str, Any] | None:
    """The first argument of a task of Celery's protocol 2, whose body is (args, kwargs, embed)."""
    accept = prepare_accept_content({"json", "msgpack"})  # never pickle
    try:
        decoded = loads(body, properties.get("content_type"), properties.get("content_encoding"), accept=accept)
    except KombuError:  # not allowed, or its decoder failed
        return None
    args = decoded[0] if isinstance(decoded, list | tuple) and decoded else None
    payload = args[0] if isinstance(args, list | tuple) and args else None
    return payload if isinstance(payload, dict) else None
