"""Parts of the API that need no server."""

from __future__ import annotations

import pytest

from api.refusals import Throttle
from crochet_tasks import telemetry
from crochet_tasks.breaker import Breaker
from crochet_tasks.errors import DatabaseUnavailable
from crochet_tasks.keys import included

SECRET = "A" * 43


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("postgresql://me:hunter2@db/x", "postgresql://me:***@db/x"),
        (f"Bearer crk_aaaaaaaaaa_{SECRET} was refused", "Bearer crk_aaaaaaaaaa_*** was refused"),
        (f"crr_{SECRET}", "crr_***"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.abc-_", "token ***"),
        ({"headers": [f"crk_aaaaaaaaaa_{SECRET}"]}, {"headers": ["crk_aaaaaaaaaa_***"]}),
        ("the crk_ of a sentence", "the crk_ of a sentence"),
        (7, 7),
    ],
)
def test_secrets_are_masked(line: object, shown: object) -> None:
    """Wherever in a line of the log they are."""
    assert telemetry.masked(line) == shown


def _away(reason: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(reason=reason)


def test_a_breaker_lets_one_try() -> None:
    """While it is open all are refused at once, but for one each while; success closes it."""
    breaker = Breaker("it", _away, seconds=0.0)
    breaker.admit()
    breaker.failed("gone")
    breaker.admit()  # the time is up: this one tries
    slow = Breaker("it", _away, seconds=60.0)
    slow.failed("gone")
    with pytest.raises(DatabaseUnavailable, match="gone"):
        slow.admit()
    slow.succeeded()
    slow.admit()


def test_a_breaker_may_take_several_failures() -> None:
    """In a row: a success begins the count anew."""
    breaker = Breaker("it", _away, seconds=60.0, failures=2)
    breaker.failed("gone")
    breaker.succeeded()
    breaker.failed("gone")
    breaker.admit()
    breaker.failed("gone")
    with pytest.raises(DatabaseUnavailable):
        breaker.admit()


def test_a_throttle_counts_what_it_leaves_out() -> None:
    """The first is written; those that follow soon are counted with the next one; few are remembered."""
    loud, quiet = Throttle(quiet=0.0), Throttle(quiet=60.0, most=2)
    assert [loud.due(("a",)) for _ in range(3)] == [0, 0, 0]
    assert [quiet.due(("a",)) for _ in range(3)] == [0, None, None]
    assert [quiet.due((name,)) for name in "bca"] == [0, 0, 0]


def test_scopes_include_those_below() -> None:
    """And unknown ones are none."""
    assert included(["admin"]) == {"read", "write", "admin"}
    assert included(["write"]) == {"read", "write"}
    assert included(["root"]) == included([]) == set()
