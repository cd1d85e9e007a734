"""The retry policy: bounds of its pauses, what is tried again, and when it is given up."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from crochet_tasks.errors import CrochetError, DatabaseRefused, DatabaseUnavailable
from crochet_tasks.retry import Outage, Policy, wait_for

AWAY, REFUSED = DatabaseUnavailable(reason="refused"), DatabaseRefused(reason="no rights")


class Clock:
    """A clock that moves by what is slept; `pauses` holds each sleep."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "sleep", clock.sleep)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


def failing(*errors: Exception) -> Callable[[], str]:
    """A step that raises these, one a call, and then returns."""
    left = iter(errors)

    def step() -> str:
        for error in left:
            raise error
        return "done"

    return step


@pytest.mark.parametrize(("failures", "full"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0), (10_000, 3.0)])
def test_pauses_double_up_to_the_longest(failures: int, full: float) -> None:
    """Jitter takes up to half of a pause, so that several processes do not retry in step."""
    pauses = [Policy(first=0.5, longest=3.0).pause(failures) for _ in range(200)]
    assert all(full / 2 <= pause <= full for pause in pauses)
    assert len(set(pauses)) > 100


def test_a_temporary_error_is_tried_again(clock: Clock) -> None:
    assert Policy().call(failing(AWAY, AWAY)) == "done"
    assert len(clock.pauses) == 2


@pytest.mark.parametrize("error", [REFUSED, ValueError("a bug")])
def test_an_error_that_stays_is_raised_at_once(clock: Clock, error: Exception) -> None:
    with pytest.raises(type(error)):
        Policy().call(failing(error))
    assert clock.pauses == []


def test_the_number_of_attempts_is_bounded(clock: Clock) -> None:
    with pytest.raises(DatabaseUnavailable):
        Policy(attempts=3).call(failing(*[AWAY] * 3))
    assert len(clock.pauses) == 2
    assert Policy(attempts=3).call(failing(AWAY, AWAY)) == "done"


def test_the_last_attempt_is_made_when_the_time_is_over(clock: Clock) -> None:
    """The last pause is cut, so that the whole time is used and not exceeded."""
    with pytest.raises(DatabaseUnavailable):
        Policy(seconds=20).call(failing(*[AWAY] * 1000))
    assert sum(clock.pauses) == pytest.approx(20)
    assert max(clock.pauses) <= 5


def test_a_pause_that_the_server_asks_for_is_kept(clock: Clock) -> None:
    """One that does not fit into the time left is not begun."""
    policy = Policy(seconds=20)
    assert policy.call(failing(AWAY), at_least=lambda _: 7.0) == "done"
    assert clock.pauses == [7.0]
    with pytest.raises(DatabaseUnavailable):
        policy.call(failing(AWAY), at_least=lambda _: 21.0)
    assert clock.pauses == [7.0]


def test_each_pause_is_announced_with_its_length(clock: Clock) -> None:
    calls: list[tuple[BaseException, float, float]] = []
    Policy(seconds=9).call(failing(AWAY), lambda *each: calls.append(each))
    assert calls == [(AWAY, clock.pauses[0], 9.0)]


def test_waiting_without_time_is_one_attempt_in_silence(clock: Clock) -> None:
    lines: list[str] = []
    with pytest.raises(DatabaseUnavailable):
        wait_for(failing(AWAY), 0, lines.append)
    assert (lines, clock.pauses) == ([], [])


def test_waiting_says_why_and_for_how_long(clock: Clock) -> None:
    lines: list[str] = []
    assert wait_for(failing(AWAY), 30, lines.append) == "done"
    assert lines == [f"{AWAY}; trying again in 0.1 s, for 30 s more"]


def test_an_outage_is_reported_when_it_begins() -> None:
    """Again after the service was back meanwhile; an error that waiting cannot mend is raised."""
    lines: list[str] = []
    outage = Outage(lines.append, "polling on")
    for error in (AWAY, AWAY, None, AWAY):
        with outage.tolerated():
            _raise(error)
    assert lines == [f"{AWAY}; polling on"] * 2
    with pytest.raises(DatabaseRefused), outage.tolerated():
        _raise(REFUSED)


def _raise(error: CrochetError | None) -> None:
    if error is not None:
        raise error
