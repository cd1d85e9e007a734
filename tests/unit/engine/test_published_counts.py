"""The closures of Genesis have the published counts, however the text came."""

import itertools
from collections import Counter

import numpy as np
import pytest

from crochet_tasks.engine import runs
from crochet_tasks.engine.geometry import Limits, shape_name
from crochet_tasks.engine.tree import Tree
from tests.support.closures import WAYS, Closure, closed, indexed
from tests.support.paths import GENESIS

COUNTS = {
    "1": (31, 3, {"2x2": 219, "2x2x2": 7, "2x3": 95, "2x4": 3}, 324),
    "1-2": (56, 3, {"2x2": 1090, "2x2x2": 138, "2x3": 408, "2x4": 29, "3x3": 2}, 1667),
    "1-3": (80, 3, {"2x2": 2156, "2x2x2": 467, "2x3": 851, "2x4": 72, "3x3": 7}, 3553),
    "1-20": (
        514,
        2,
        {"2x2": 65913, "2x3": 62836, "2x4": 8483, "2x5": 863, "2x6": 62, "2x7": 2, "3x3": 1200, "3x4": 5},
        139364,
    ),
    "1-50": (
        1533,
        2,
        {"2x2": 649831, "2x3": 1572783, "2x4": 382767, "2x5": 60424, "2x6": 8061, "2x7": 1027, "2x8": 107}
        | {"2x9": 12, "2x10": 2, "2x11": 1, "3x3": 169077, "3x4": 2453, "3x5": 4},
        2846549,
    ),
}


def genesis(*cuts: int) -> list[str]:
    """The verses up to each cut that are not in the text before."""
    if not GENESIS.exists():
        pytest.skip(f"{GENESIS} is absent")
    verses = GENESIS.read_text(encoding="utf-8").split("\n\n")
    return ["\n\n".join(verses[one:other]) for one, other in itertools.pairwise([0, *cuts])]


def counts(closure: Closure) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in closure.found:
        found[shape_name(one.run.sides)] += len(one.run.rows)
    return dict(found)


@pytest.mark.parametrize("chapters", COUNTS)
def test_the_closures_of_genesis_have_the_published_counts(chapters: str) -> None:
    verses, axes, shapes, total = COUNTS[chapters]
    found = counts(closed(genesis(verses), Limits(axes, 12, 10**9)))
    assert found == shapes
    assert sum(found.values()) == total


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cut", [257, 509])
def test_genesis_in_two_versions(cut: int, way: str) -> None:
    """The published counts again where the text came as two, the second large or small; no ortho comes twice."""
    verses, axes, shapes, _ = COUNTS["1-20"]
    texts = genesis(cut, verses)
    closure, index = closed(texts, Limits(axes, 12, 10**9), way=way), indexed(texts, 12)
    assert counts(closure) == shapes
    trees = {version: Tree.of(index, version) for version in closure.windows}
    halves = np.concatenate([runs.ids(trees[one.version], *one.run) for one in closure.found])
    assert len(np.unique(halves, axis=0)) == len(halves)
