"""Parts of the API that need no server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import BaseModel, SecretStr

from api import limits, parameters, streaming
from api.security_log import Throttle, network_of
from api.streaming import StreamAborted
from crochet_tasks.access.keys import included
from crochet_tasks.errors import (
    CrochetError,
    DatabaseRefused,
    DatabaseUnavailable,
    StoreCorrupt,
    TaskTimedOut,
    TextWithoutWords,
    TooBusy,
    public_message,
)
from crochet_tasks.retry import Breaker
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import log_lines


def _away(reason: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(reason=reason)


def test_a_breaker_lets_one_try() -> None:
    """While it is open all are refused at once, but for one each while; success closes it."""
    breaker = Breaker("it", _away, seconds=0.0)
    breaker.check()
    breaker.failed("gone")
    breaker.check()  # the time is up: this one tries
    slow = Breaker("it", _away, seconds=60.0)
    slow.failed("gone")
    with pytest.raises(DatabaseUnavailable, match="gone"):
        slow.check()
    slow.succeeded()
    slow.check()


def test_a_breaker_may_take_several_failures() -> None:
    """In a row: a success resets the count."""
    breaker = Breaker("it", _away, seconds=60.0, failures=2)
    breaker.failed("gone")
    breaker.succeeded()
    breaker.failed("gone")
    breaker.check()
    breaker.failed("gone")
    with pytest.raises(DatabaseUnavailable):
        breaker.check()


def test_a_throttle_counts_what_it_leaves_out() -> None:
    """The first is written; those that follow soon are counted with the next one; few are remembered."""
    loud, quiet = Throttle(quiet=0.0), Throttle(quiet=60.0, most=2)
    assert [loud.due(("a",)) for _ in range(3)] == [0, 0, 0]
    assert [quiet.due(("a",)) for _ in range(3)] == [0, None, None]
    assert [quiet.due((name,)) for name in "bca"] == [0, 0, 0]


def test_scopes_include_those_below() -> None:
    """And unknown ones are none."""
    assert included(["admin"]) == {"read", "write", "operate", "admin"}
    assert included(["write"]) == {"read", "write"}
    assert included(["root"]) == included([]) == set()


def test_schemas_of_parameters_are_made_once() -> None:
    """flask-openapi asks for them at every request; what it writes into the document is made by other rules."""
    given = [
        each for each in vars(parameters).values() if isinstance(each, type) and issubclass(each, parameters.Described)
    ]
    assert {parameters.OrthosQuery, parameters.RequestKey, parameters.Preconditions} <= set(given)
    for each in given:
        assert each.model_json_schema() is each.model_json_schema()
        assert each.model_json_schema() == BaseModel.model_json_schema.__func__(each)  # type: ignore[attr-defined]
        assert each.model_json_schema(mode="serialization") is not each.model_json_schema(mode="serialization")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unknown", "unknown"),
    ],
)
def test_a_client_has_all_of_its_ipv6_network(address: str, network: str) -> None:
    """A client with one address of IPv6 has all of its /64."""
    assert network_of(address) == network


@pytest.mark.parametrize(
    ("error", "is_public"),
    [
        (TextWithoutWords(source="hunter2"), True),
        (TooBusy(what="hunter2", seconds=1), True),
        (TaskTimedOut(seconds="hunter2"), True),
        (DatabaseRefused(reason="hunter2"), False),
        (StoreCorrupt(problem="hunter2"), False),
        (CrochetError.from_message("hunter2"), False),
    ],
)
def test_what_tenants_read_of_errors(error: CrochetError, is_public: bool) -> None:
    """One rule: what they can do something about, and of the service only that something is wrong with it."""
    assert ("hunter2" in public_message(error.code, str(error))) is is_public
    assert "hunter2" not in public_message("no such code", "hunter2")


def test_a_log_line_is_one_line() -> None:
    """Whatever others have given, for people in a terminal, too; tracebacks below it are indented."""
    event = {"timestamp": "now", "service": "api", "level": "info", "path": "/\x1b[2J", "key": "a\u2028b"}
    written = log_lines.line_for_people(None, "", {**event, "event": "GET /a\r\nnow api ERROR forged"})
    assert written == "now api INFO GET /a\\r\\nnow api ERROR forged path=/\\x1b[2J key=a\\u2028b"
    written = log_lines.line_for_people(
        None, "", {**event, "event": "x", "exception": "Traceback:\nValueError: a\nnow api \x9b"}
    )
    assert written.splitlines()[1:] == ["  Traceback:", "  ValueError: a", "  now api \\x9b"]


def test_exports_break_off_after_their_time_or_with_their_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some time after they began, or when their key is not good any more: broken off, never as if they were whole."""
    clock = iter(range(0, 10_000, 4))
    monkeypatch.setattr("api.streaming.time.monotonic", lambda: next(clock))

    def endless() -> Iterator[bytes]:
        while True:
            yield b"a line"

    with pytest.raises(StreamAborted, match="too long"):
        list(streaming.bounded(endless(), lambda: True))
    checks = iter([True, True, False])
    with pytest.raises(StreamAborted, match="key"):
        list(streaming.bounded(endless(), lambda: next(checks)))
    assert list(checks) == []
    assert list(streaming.bounded(iter([b"", b"a"]), lambda: True)) == [b"a"]


def test_places_of_exports() -> None:
    """One tenant leaves some to others; what is given back is free."""
    slots = streaming.ExportSlots(most=3, of_one=2)
    with slots.slot(1), slots.slot(1):
        with pytest.raises(TooBusy):
            slots.slot(1).__enter__()
        with slots.slot(2), pytest.raises(TooBusy):
            slots.slot(3).__enter__()
        with slots.slot(3):
            pass
    assert slots.taken == {}


def test_deployments_that_share_a_redis_count_for_themselves() -> None:
    """Their keys have the same numbers."""
    urls = ("postgresql://one/crochet", "postgresql://other/crochet", "postgresql://one/crochet")
    one, other, again = (limits.prefix(Settings(database_url=SecretStr(url))) for url in urls)
    assert one == again != other
    assert "crochet" in one != limits.prefix(Settings())
