"""Some schedules by fixed seeds; docs/simulation.md says how to run more of them, and what one shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest

from crochet_tasks.db import publishing
from tests.simulation import campaign, processes
from tests.simulation.bench import Bench
from tests.simulation.campaign import Failed, once
from tests.simulation.choices import Choices, shrunk
from tests.simulation.ledger import Ledger

pytestmark = [pytest.mark.integration, pytest.mark.slow]

FIRST = 1_000_000
"""the seed of the first of them"""
PARTS = [range(first, first + 40) for first in range(FIRST, FIRST + 200, 40)]
"""the seeds of tests that may run at the same time"""
FOUND: dict[int, str] = {}
"""seeds that have failed since the last change of what seeds mean, and what that was; what failed before has a test in
tests/integration/pipeline"""


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with campaign.opened(database) as opened:
        yield opened


@pytest.mark.parametrize("seeds", [*PARTS, *([seed] for seed in FOUND)])
def test_fixed_schedules(bench: Bench, seeds: Sequence[int]) -> None:
    """After each, the store holds the closure, each ortho once, and nothing is open."""
    campaign.campaign(bench, seeds, Ledger())


def test_what_a_process_was_in_the_middle_of_dies_with_it(bench: Bench) -> None:
    """A connection at rest goes on as a new one would; one in a pipeline is gone, whatever comes of it yet."""
    machine = bench.machine("w0", 0)

    def connection() -> psycopg.Connection[Any]:
        with machine.process.database.transaction() as opened:
            driver = opened.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        return driver

    first = connection()
    machine.restart(bench.store.monitor)
    assert connection() is first
    pipeline = first.pipeline()
    pipeline.__enter__()
    machine.restart(bench.store.monitor)
    assert connection() is not first


def test_the_same_seed_is_the_same_run(bench: Bench) -> None:
    """Whatever ran before it; and so are its decisions, replayed."""
    seeds = range(FIRST, FIRST + 3)
    first = [once(bench, seed, Ledger()) for seed in seeds]
    again = [once(bench, seed, Ledger()) for seed in reversed(seeds)][::-1]
    assert [outcome.digest for outcome in first] == [outcome.digest for outcome in again]
    assert len({outcome.digest for outcome in first}) == len(seeds)
    assert once(bench, first[0].made, Ledger()).digest == first[0].digest


@pytest.mark.long
def test_another_process_counts_the_same(database: str) -> None:
    """What a process reports of some seeds is what a campaign of them counts here."""
    seeds = range(FIRST, FIRST + 3)
    with processes.simulator(database) as simulator:
        [part] = processes.in_parts([simulator], seeds, math.inf, keep_going=False, show=False)
    ledger = Ledger()
    with campaign.opened(database) as bench:
        assert campaign.campaign(bench, seeds, ledger) == (part.runs, part.events)
    assert (part.times, part.in_runs) == (ledger.times, ledger.runs)
    assert not part.failures


def never_overdue(patch: pytest.MonkeyPatch) -> None:
    """What is lost is not published again."""
    patch.setattr(publishing, "release_overdue", lambda *_: 0)


def no_turn(patch: pytest.MonkeyPatch) -> None:
    """A text that waits for the one before it is forgotten."""
    patch.setattr(publishing, "release_next_text", lambda *_: None)


@pytest.mark.long
@pytest.mark.parametrize("fault", [never_overdue, no_turn])
def test_broken_programs_are_found(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """A fault in the program fails some run, soon; the report says how to see it again, also in a smaller run."""
    monkeypatch.setattr(campaign, "SHRINKS", 5)
    fault(monkeypatch)
    with pytest.raises(Failed, match=r"seed \d+ fails: .*\nrepeat it:  make simulate SEED=\d+ RUNS=1\nsmaller: "):
        campaign.campaign(bench, PARTS[0], Ledger())


def test_a_list_of_decisions_is_made_smaller() -> None:
    """What fails with a 7 somewhere and a 5 after it fails with these two alone."""

    def fails(made: object) -> bool:
        choices = Choices(made)  # type: ignore[arg-type]
        drawn = [choices.below(10) for _ in range(40)]
        return 7 in drawn and 5 in drawn[drawn.index(7) :]

    made = [3, 1, 7, 7, 0, 9, 2, 5, 4, *range(10)]
    assert fails(made)
    assert shrunk(made, fails, 500) == [7, 5]


def test_a_state_that_is_never_reached_is_named() -> None:
    ledger = Ledger()
    ledger.reached("a message was lost")
    ledger.end_run()
    assert "a message was lost" not in ledger.never()
    assert "the clock went back" in ledger.never()
    with pytest.raises(AssertionError, match="not in the ledger"):
        ledger.reached("something else")
