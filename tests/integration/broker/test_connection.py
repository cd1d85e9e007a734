"""The queues as far as they need no broker: how they are described, what errors mean, how dead letters are read."""

from __future__ import annotations

import json
import pickle
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import amqp.exceptions as said_by
import kombu
import kombu.exceptions
import msgpack
import pytest
from pydantic import SecretStr

from crochet_tasks.broker import queues
from crochet_tasks.errors import (
    BrokerRefused,
    BrokerUnavailable,
    CrochetError,
    QueueMismatch,
    QueueMissing,
    SettingMissing,
)
from crochet_tasks.settings import Settings
from tests.support.server import take_port

pytestmark = pytest.mark.integration

PASSWORD = "se;cret"
INEQUIVALENT = "PRECONDITION_FAILED - inequivalent arg"


def settings(port: int = 5672, scheme: str = "amqp", **more: Any) -> Settings:
    return Settings(broker_url=SecretStr(f"{scheme}://me:{PASSWORD}@127.0.0.1:{port}/"), **more)


# ── the topology ────────────────────────────────────────────────────────────────────────────────


def described(queue: kombu.Queue) -> dict[str, Any]:
    arguments: dict[str, Any] = vars(queue)["queue_arguments"]
    return arguments


def test_every_work_queue_has_a_dead_letter_queue() -> None:
    """A work queue's dead letters are routed to a queue that is declared, on the exchange it is bound to."""
    dead = {(queue.exchange.name, queue.routing_key): queue for queue in queues.dead_queues()}
    for queue in queues.celery_queues(settings()):
        arguments = described(queue)
        target = arguments["x-dead-letter-exchange"], arguments["x-dead-letter-routing-key"]
        assert dead.pop(target).name == queues.dead(queue.name)
    assert not dead


def test_queues_outlive_the_broker_and_are_found_by_their_name() -> None:
    """All queues and exchanges are durable, queues are replicated, and the routing key is the name, without dots."""
    for queue in [*queues.celery_queues(settings()), *queues.dead_queues()]:
        assert (queue.durable, queue.exchange.durable, queue.auto_delete) == (True, True, False)
        assert queue.exchange.type == "direct"
        assert described(queue)["x-queue-type"] == "quorum"
        assert queue.routing_key == queue.name
        assert "." not in queue.name


def test_only_the_ordered_stages_have_one_consumer() -> None:
    """Single active consumer is set for the ordered stages and for no other."""
    single = [q.name for q in queues.celery_queues(settings()) if described(q).get("x-single-active-consumer")]
    assert single == list(queues.ORDERED)


def test_the_delivery_limit_is_the_setting_s() -> None:
    """CROCHET_DELIVERY_LIMIT reaches the work queues."""
    limits = {described(q)["x-delivery-limit"] for q in queues.celery_queues(settings(delivery_limit=7))}
    assert limits == {7}


# ── the connection ──────────────────────────────────────────────────────────────────────────────


def test_a_password_may_hold_a_semicolon() -> None:
    """To kombu a semicolon ends an address; ours reaches it whole."""
    broker = queues.connection(settings())
    assert (broker.userid, broker.password, broker.hostname, broker.port) == ("me", PASSWORD, "127.0.0.1", 5672)


@pytest.mark.parametrize(
    ("scheme", "wanted"), [("amqp", False), ("amqps", ssl.CERT_REQUIRED), ("AMQPS", ssl.CERT_REQUIRED)]
)
def test_certificates_are_verified(scheme: str, wanted: object) -> None:
    """Over TLS the broker must show a certificate that is valid for its host."""
    tls = queues.connection(settings(scheme=scheme)).ssl
    assert tls == (wanted and {"cert_reqs": wanted, "server_hostname": None})


def test_without_a_broker_the_setting_is_named() -> None:
    """Where a broker is needed and none is set, the error says which variable to set."""
    with pytest.raises(SettingMissing, match="CROCHET_BROKER_URL"):
        queues.connection(Settings())


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    """A port without a listener."""
    return take_port()


def test_a_frozen_broker_is_unavailable(silent: int) -> None:
    """A broker that does not answer costs no more than the time-out."""
    with pytest.raises(BrokerUnavailable, match="timed out"), queues.connected(settings(silent, publish_timeout=0.2)):
        pass


def test_waiting_is_announced_and_bounded(closed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line and one pause per try, longer and longer, until the time is over; never with the password."""
    now, pauses, reports = [0.0], list[float](), list[str]()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with pytest.raises(BrokerUnavailable) as caught:
        queues.declare(settings(closed, startup_wait=20), report=reports.append)
    assert len(reports) == len(pauses) > 5
    assert sum(pauses) == pytest.approx(20)
    assert max(pauses) <= 5
    assert pauses[0] <= 0.1 < pauses[4]
    assert "Connection refused" in reports[0]
    assert PASSWORD not in " ".join([*reports, str(caught.value), repr(caught.value.__cause__)])


def test_without_waiting_it_is_tried_once(closed: int) -> None:
    """`wait=0` means one try, in silence."""
    reports = list[str]()
    with pytest.raises(BrokerUnavailable):
        queues.declare(settings(closed), wait=0, report=reports.append)
    assert not reports


# ── errors ──────────────────────────────────────────────────────────────────────────────────────


def wrapped(cause: Exception) -> Exception:
    error = kombu.exceptions.OperationalError(str(cause))
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "ours", "says"),
    [
        (said_by.AccessRefused("ACCESS_REFUSED - Login was refused"), BrokerRefused, "Login was refused"),
        (said_by.NotAllowed("NOT_ALLOWED - vhost x not found"), BrokerRefused, "vhost x not found"),
        (said_by.PreconditionFailed("PRECONDITION_FAILED - invalid arg 'x' for queue 'q'"), BrokerRefused, "arg 'x'"),
        (said_by.ConnectionForced("CONNECTION_FORCED - shutdown"), BrokerUnavailable, "shutdown"),
        (said_by.InternalError("INTERNAL_ERROR - vhost '/' is down"), BrokerUnavailable, "is down"),
        (said_by.NotFound("NOT_FOUND - operation on queue 'q' failed due to timeout"), BrokerUnavailable, "timeout"),
        (said_by.NotFound("NOT_FOUND - no queue 'q' in vhost '/'"), QueueMissing, "'q'"),
        (said_by.NotFound("NOT_FOUND - no exchange 'e' in vhost '/'"), QueueMissing, "'e'"),
        (said_by.ChannelError("NO_ROUTE", reply_code=312), QueueMissing, "'search'"),
        (
            said_by.ResourceLocked("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'"),
            QueueMismatch,
            "'q'",
        ),
        (said_by.MessageNacked(), BrokerUnavailable, "full"),
        (said_by.RecoverableConnectionError(None), BrokerUnavailable, "RecoverableConnectionError"),
        (kombu.exceptions.ConnectionLimitExceeded(3), BrokerUnavailable, "became free"),
        (kombu.exceptions.OperationalError("a line\nand another"), BrokerUnavailable, "a line and another"),
        (wrapped(said_by.MessageNacked("again")), BrokerUnavailable, "full"),
        (wrapped(said_by.AccessRefused("no")), BrokerRefused, "no"),
        (
            wrapped(wrapped(ConnectionRefusedError(111, "Connection refused"))),
            BrokerUnavailable,
            "(Connection refused)",
        ),
        (ConnectionResetError(104, "Connection reset by peer"), BrokerUnavailable, "reset by peer"),
        (OSError("Server unexpectedly closed connection"), BrokerUnavailable, "unexpectedly closed"),
        (socket.gaierror(-2, "Name or service not known"), BrokerUnavailable, "(Name or service not known)"),
        (TimeoutError(), BrokerUnavailable, "timed out"),
        (BrokenPipeError(), BrokerUnavailable, "BrokenPipeError"),
    ],
    ids=str,
)
def test_what_a_broker_says_becomes_our_error(error: Exception, ours: type[CrochetError], says: str) -> None:
    """Every way in which a broker can fail has its class, and its reason in one line."""
    with pytest.raises(ours) as caught, queues.broker_errors("search"):
        raise error
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("'x-delivery-limit' for queue 'q' in vhost '/': received '4' but current is '3'", "is 3 and should be 4"),
        (
            "'x-max-length' for queue 'q' in vhost '/': received none but current is the value '3' of type 'signedint'",
            "x-max-length is 3 and should be none",
        ),
        (
            "'x-overflow' for queue 'q' in vhost 'v': received the value 'drop' of type 'longstr' but current is none",
            "x-overflow is none and should be drop",
        ),
        (
            "'type' for exchange 'q' in vhost '/': received 'direct' but current is 'topic'",
            "type of the exchange is topic",
        ),
    ],
)
def test_a_mismatch_says_what_differs(text: str, says: str) -> None:
    """The queue, the argument, its value and the one it should have, in whichever way the broker puts it."""
    with pytest.raises(QueueMismatch) as caught, queues.broker_errors():
        raise said_by.PreconditionFailed(f"{INEQUIVALENT} {text}")
    assert says in str(caught.value)
    assert caught.value.context["queue"] == "q"


@pytest.mark.parametrize(
    "bug",
    [
        ValueError("x"),
        kombu.exceptions.EncodeError("x"),
        said_by.PreconditionFailed("PRECONDITION_FAILED - message size 9 is larger than configured max size 8"),
        said_by.PreconditionFailed("PRECONDITION_FAILED - unknown delivery tag 77"),
        said_by.ResourceLocked("RESOURCE_LOCKED - basic.get operations are not supported by quorum queues with ..."),
    ],
)
def test_bugs_stay_what_they_are(bug: Exception) -> None:
    """What would fail again is not taken for trouble of the moment."""
    with pytest.raises(type(bug)) as caught, queues.broker_errors():
        raise bug
    assert caught.value is bug


# ── dead letters ────────────────────────────────────────────────────────────────────────────────

PAYLOAD = {"corpus": 1}
TASK: tuple[Any, ...] = ([PAYLOAD], {}, {"callbacks": None})
DEATH = {"count": 2, "reason": "rejected", "queue": "search", "time": datetime(2026, 1, 2, 3, 4, 5)}  # noqa: DTZ001 - as amqp gives it


def test_a_dead_letter_is_read() -> None:
    """Everything a Celery message and its death say is there."""
    headers = {"task": "search.part", "id": "an-id", "x-death": [DEATH, {"reason": "an earlier one"}]}
    body = json.dumps(TASK).encode()
    letter = queues.read("search", {"application_headers": headers, "content_type": "application/json"}, body)
    died = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert letter == ("search", "rejected", "search.part", "an-id", PAYLOAD, body, died, 2)


def test_a_binary_dead_letter_is_read() -> None:
    """Bytes in a msgpack message stay bytes."""
    body = msgpack.packb(([{"cells": b"\xff\x00"}], {}, {}))
    properties = {"content_type": "application/x-msgpack", "content_encoding": "binary"}
    assert queues.read("orthos", properties, body).payload == {"cells": b"\xff\x00"}


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a dead letter was unpickled",)


@pytest.mark.parametrize(
    ("content_type", "encoding", "body"),
    [
        ("application/json", "utf-8", b"{"),
        ("application/json", "utf-8", b"\xff\xfe\xff"),
        ("application/json", "nonsense", b"[" * 100_000),
        ("application/json", "utf-8", b'{"no": "task"}'),
        ("application/json", "utf-8", b"[]"),
        ("application/json", "utf-8", b"[[], {}, {}]"),
        ("application/json", "utf-8", b"[[7], {}, {}]"),
        ("application/json", "utf-8", b'[{"__type__": "x", "__value__": 1}]'),
        ("application/json", "utf-8", b""),
        ("application/x-msgpack", "binary", b"\xc1"),
        ("application/x-msgpack", "binary", msgpack.packb([[{1: 2}]])),
        ("application/x-python-serialize", "binary", pickle.dumps(([Bomb()], {}, {}))),
        ("application/x-yaml", "utf-8", b"[[{}]]"),
        ("text/plain", "nonsense", b"hello"),
        ("unheard/of", None, b"hello"),
        (None, None, b"hello"),
    ],
)
def test_an_unreadable_body_is_no_trouble(content_type: str | None, encoding: str | None, body: bytes) -> None:
    """What cannot be decoded, or must not be, is handed out as bytes."""
    letter = queues.read("search", {"content_type": content_type, "content_encoding": encoding}, body)
    assert (letter.payload, letter.body) == (None, body[: queues.BODY_BYTES])


@pytest.mark.parametrize("death", [None, 7, [], [7], [{}], [{"time": "yesterday", "count": "many", "reason": None}]])
def test_a_letter_that_does_not_say_how_it_died_is_read_too(death: object) -> None:
    """Any client can send any message and any headers."""
    headers = {"x-death": death, "task": 7, "id": None}
    letter = queues.read("search", {"application_headers": headers, "correlation_id": "c"}, b"")
    assert (letter.reason, letter.task, letter.message_id, letter.times) == ("unknown", None, "c", 1)
    assert (datetime.now(UTC) - letter.died_at).total_seconds() < 60


def test_what_a_letter_says_can_be_stored() -> None:
    """Text that Postgres would refuse is mended: else one such letter would keep all others from being read."""
    headers = {"x-death": [{"reason": "re\0jected"}], "task": "a\0b", "id": "c\ud800"}
    letter = queues.read("search", {"application_headers": headers}, b"")
    assert (letter.reason, letter.task, letter.message_id) == ("re?jected", "a?b", "c?")
