"""Estimates: what they cost, and which are made."""

from __future__ import annotations

import pytest

from crochet_tasks.db.corpora import Corpus
from crochet_tasks.engine import estimate
from crochet_tasks.engine.estimate import Guess
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.engine.tree import Tree
from crochet_tasks.errors import TooBusy
from crochet_tasks.query import estimates
from crochet_tasks.query.estimates import Estimates
from crochet_tasks.schemas.reports import Amount, Estimate
from tests.support import steps

CORPUS = Corpus(1, "main", Limits(), 1)


def test_bytes_and_seconds_are_products_of_the_number() -> None:
    """1.3 bytes with two axes, 1.5 with more; the search on all cores, and half as long again for storing."""
    shapes = {(2, 2): Guess(1000.0, 900.0, 1100.0), (2, 2, 2): Guess(2000.0, 1500.4, 2600.0)}
    found = estimates.priced(estimate.Estimate(shapes, Guess(3000.0, 2400.0, 3700.0), complete=False, rate=100.0), 2)
    assert found == Estimate(
        orthos=3000,
        low=2400,
        high=3700,
        exact=False,
        shapes={
            "2x2x2": Amount(orthos=2000, low=1500, high=2600),
            "2x2": Amount(orthos=1000, low=900, high=1100),
        },
        bytes=1300 + 3000,
        seconds=22.5,
        cores=2,
    )


def test_small_texts_are_counted() -> None:
    """Several texts are one corpus."""
    found = estimates.of_texts(steps.TEXTS, Limits())
    expected = steps.expected(steps.TEXTS)
    assert (found.exact, found.orthos, found.low, found.high) == (True, *[expected.total()] * 3)
    by_shape = {"x".join(map(str, sides)): 0 for sides, _ in expected}
    for sides, _ in expected:
        by_shape["x".join(map(str, sides))] += 1
    assert {shape: amount.orthos for shape, amount in found.shapes.items()} == by_shape


def test_one_estimate_is_made_at_a_time_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    every = Estimates()
    index = PhraseIndex()
    tree = Tree.of(index.extended(index.additions([["a", "b"], ["c", "d"]], 8)).closed(), 1)

    def slow(tree: Tree, limits: Limits) -> estimate.Estimate:
        made.append(tree.version)
        with pytest.raises(TooBusy):
            every.of(CORPUS._replace(id=2), tree)
        return estimate.Estimate({}, Guess(0.0, 0.0, 0.0), complete=True, rate=1.0)

    monkeypatch.setattr(estimate, "estimate", slow)
    assert every.of(CORPUS, tree) == every.of(CORPUS, tree)
    every.of(CORPUS._replace(version=2), tree)
    assert len(made) == 2
