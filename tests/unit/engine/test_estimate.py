"""Estimates against the truth."""

import math
import statistics
from collections import Counter

import pytest

from crochet_tasks.engine import estimate as engine
from crochet_tasks.engine.estimate import estimate
from crochet_tasks.engine.geometry import Limits, Sides
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.engine.search import closure
from crochet_tasks.engine.tree import Tree
from tests.support.closures import indexed
from tests.unit.engine.test_published_counts import COUNTS, genesis
from tests.unit.engine.test_search import babble


def truth(tree: Tree, limits: Limits) -> Counter[Sides]:
    found: Counter[Sides] = Counter()
    for run in closure(tree, limits):
        found[run.sides] += len(run.rows)
    return found


def test_a_small_text_is_counted() -> None:
    """Then low, high and the number are one and it is said to be complete; a text without orthos has none."""
    tree = Tree.of(indexed(babble(8, 40, 1), 4), 1)
    found = estimate(tree, Limits(3, 4, 16))
    assert found.complete
    assert {sides: guess.orthos for sides, guess in found.shapes.items()} == truth(tree, Limits(3, 4, 16))
    assert found.total.low == found.total.orthos == found.total.high == sum(truth(tree, Limits(3, 4, 16)).values())
    for index in (PhraseIndex(), indexed(["one two three"], 4)):
        nothing = estimate(Tree.of(index, index.version), Limits())
        assert nothing.complete
        assert not nothing.shapes
        assert nothing.total.high == 0


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is estimated, from so few boxes that most are drawn from among others."""
    monkeypatch.setattr(engine, "EXACT", 0)
    monkeypatch.setattr(engine, "BOXES", 40_000)


@pytest.mark.usefixtures("sampled")
def test_estimates_are_unbiased() -> None:
    """The mean of 60 estimates of a text with cubes is nearer to the truth than four of its standard errors."""
    tree, limits = Tree.of(indexed(babble(20, 72, 2), 4), 2), Limits(3, 4, 16)
    expected = truth(tree, limits)
    found = [estimate(tree, limits, seed=seed) for seed in range(60)]
    assert not any(one.complete for one in found)
    for sides, number in expected.items():
        values = [one.shapes[sides].orthos if sides in one.shapes else 0.0 for one in found]
        error = statistics.stdev(values) / math.sqrt(len(values))
        assert abs(statistics.fmean(values) - number) <= 4 * error + 1e-9 * number, sides
    inside = sum(one.total.low <= sum(expected.values()) <= one.total.high for one in found)
    assert inside >= 51  # 57 are expected


@pytest.mark.usefixtures("sampled")
def test_the_same_seed_estimates_the_same() -> None:
    tree = Tree.of(indexed(babble(20, 72, 2), 4), 2)
    one, same, other = (estimate(tree, Limits(), seed=seed) for seed in (5, 5, 6))
    assert one.shapes == same.shapes
    assert one.shapes != other.shapes


def test_the_interval_holds_the_published_number_of_a_book(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published number of orthos of a book lies in the interval, and the interval is narrow."""
    monkeypatch.setattr(engine, "EXACT", 0)
    verses, axes, _, total = COUNTS["1-20"]
    found = estimate(Tree.of(indexed(genesis(verses), 12), 1), Limits(axes, 12, 64))
    assert found.total.low <= total <= found.total.high
    assert found.total.high < 1.2 * found.total.low
