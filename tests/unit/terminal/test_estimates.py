"""What people read about estimates and budgets."""

from __future__ import annotations

from typing import Any

import pytest

from crochet_tasks.schemas.reports import Amount, Estimate, RunReport, WindowLeft
from crochet_tasks.terminal import estimates
from tests.unit.terminal.test_drawing import shown

BILLIONS = Estimate(
    orthos=1_741_329_068,
    low=1_541_763_176,
    high=1_966_726_778,
    exact=False,
    shapes={
        "2x2x2": Amount(orthos=1_739_868_455, low=1_540_000_000, high=1_970_000_000),
        "2x3": Amount(orthos=1_460_613, low=1_384_396, high=1_541_026),
    },
    bytes=2_600_000_000,
    seconds=420.0,
    cores=2,
)
COUNTED = Estimate(
    orthos=570,
    low=570,
    high=570,
    exact=True,
    shapes={"2x3": Amount(orthos=570, low=570, high=570)},
    bytes=741,
    seconds=0.0,
    cores=2,
)
TOTAL = "about 1.7 billion orthos (1.5 to 2.0 billion)"
TAKES = "about 2.6 GB and 7 min on 2 cores"
REPORT = RunReport(
    corpus="main",
    version=2,
    texts=2,
    orthos={"2x2": 220_000},
    total=220_000,
    best=[],
    seconds=1.0,
    search_seconds=1.0,
    open_work=9,
    failed_work=0,
    dropped_work=0,
    ended="budget",
    closed=False,
    budget=200_000,
    budget_of="option",
    estimate=BILLIONS,
    unfinished=[
        WindowLeft(version=1, since=0, starts=11_000, starts_left=8_000, left_over=1),
        WindowLeft(version=2, since=1, starts=1, starts_left=1, left_over=0),
    ],
)


def report(**changes: Any) -> list[str]:
    return estimates.after(REPORT.model_copy(update=changes))


def test_an_estimate_is_a_table_with_intervals() -> None:
    assert shown(estimates.page(BILLIONS, 1, {"max_axes": 3}, 10_000_000), 110) == [
        "1 text, max_axes 3: about 1.7 billion orthos (1.5 to 2.0 billion)",
        "sampled; the true numbers are between the last two columns 19 times in 20",
        "",
        " shape              orthos      at least       at most",
        " ─────────────────────────────────────────────────────",
        " 2x2x2   about 1.7 billion   1.5 billion   2.0 billion",
        " 2x3     about 1.5 million   1.4 million   1.5 million",
        "",
        " total   about 1.7 billion   1.5 billion   2.0 billion",
        "",
        "to find and store all of them takes about 2.6 GB and 7 min on 2 cores",
        "the default budget is 10,000,000 orthos, 1 % of them: --budget N sets another, --budget all finds all",
    ]


def test_a_count_needs_no_interval() -> None:
    assert shown(estimates.page(COUNTED, 2, {"max_axes": 3}, 10_000_000), 100) == [
        "2 texts, max_axes 3: 570 orthos",
        "",
        " shape   orthos",
        " ──────────────",
        " 2x3        570",
        "",
        " total      570",
        "",
        "the default budget, 10,000,000 orthos, is enough for all of them",
    ]


@pytest.mark.parametrize(
    ("budget", "set_by", "says"),
    [
        (None, "option", "there is no budget: 'crochet run' finds all of them"),
        (3_000_000_000, "option", "the budget, 3,000,000,000 orthos, is enough for all of them"),
        (1_800_000_000, "corpus", "the budget of the corpus, 1,800,000,000 orthos, may be too small for all of them"),
        (
            500,
            "disk",
            "what the disk has room for is 500 orthos, <1 % of them: --budget N sets another, --budget all finds all",
        ),
    ],
)
def test_what_a_budget_means(budget: int | None, set_by: str, says: str) -> None:
    assert estimates.before(BILLIONS, budget, set_by) == [
        f"the texts hold {TOTAL}; all of them take {TAKES}",
        says,
    ]


def test_a_small_text_needs_few_words() -> None:
    """Unless its budget is smaller still."""
    assert estimates.before(COUNTED, 10_000_000, "default") == ["the texts hold 570 orthos"]
    assert len(estimates.before(COUNTED, 100, "option")) == 2


def test_a_spent_budget_says_what_is_missing_and_how_to_go_on() -> None:
    assert report() == [
        "the budget of 200,000 orthos is reached: 220,000 of about 1.7 billion are stored (<1 %)",
        "not searched: 8,000 of 11,000 starting points of version 1, and 1 part of others",
        "not searched: 1 of 1 starting point of version 2",
        "what is stored are orthos of the texts, but not all: others are missing, also larger ones",
        "to go on: crochet run --budget 440000, or --budget all (about 2.6 GB and 7 min on 2 cores)",
    ]


def test_the_budget_of_a_corpus_is_raised_where_it_was_set() -> None:
    first, *_, last = report(corpus="big", budget_of="corpus")
    assert first.startswith("the budget of 200,000 orthos of the corpus is reached")
    assert last.startswith("to go on: crochet corpora set big --budget 440000, or crochet corpora set big --budget all")
    assert last.endswith("; then crochet run --corpus big")


@pytest.mark.parametrize(
    ("ended", "why"), [("stopped", "stopped"), ("disk", "the disk is nearly full"), ("elsewhere", "another process")]
)
def test_a_run_that_was_stopped_is_gone_on_with(ended: str, why: str) -> None:
    """Without a guess how many there are in all, where there is none."""
    first, *_, last = report(ended=ended, estimate=None)
    assert first.startswith(why)
    assert first.endswith(": 220,000 are stored")
    assert last == "to go on: crochet run"


def test_dropped_work_is_missing_although_nothing_is_open() -> None:
    assert report(ended="closed", open_work=0, unfinished=[], dropped_work=2) == [
        "2 dropped work items: what they would find is missing",
        "what is stored are orthos of the texts, but not all: others are missing, also larger ones",
    ]


def test_a_closed_corpus_is_complete() -> None:
    assert report(closed=True) == ["complete: the store holds every ortho of 2 texts"]
