"""The family of an ortho: what it was lengthened from, and what is it, lengthened."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from crochet_tasks.engine import geometry, runs
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.query import ranges
from crochet_tasks.query.pages import FoundOrtho, orthos
from crochet_tasks.query.store import Reader

READ_AT_ONCE = 20_000
"""orthos that begin as a child would; of more, some children may be missing"""


class Children(NamedTuple):
    """Orthos whose canonical parent is one ortho. `more`: whether there are others, or may be."""

    orthos: list[FoundOrtho]
    more: bool


def parent(sides: Sides, words: tuple[str, ...]) -> tuple[Sides, tuple[str, ...]] | None:
    """The canonical parent: the ortho without the last slab of its leading axis. None for a seed: all sides are 2."""
    if sides[-1] == 2:
        return None
    kept = np.arange(len(words)).reshape(sides)[..., :-1]
    return geometry.canonical(kept.shape, tuple(words[cell] for cell in kept.ravel()))


def children(reader: Reader, sides: Sides, words: tuple[str, ...], most: int) -> Children:
    """Up to `most` of the orthos that `parent` leads back from."""
    found: list[FoundOrtho] = []
    more = False
    for lengthened, first in _lengthened(sides, words):
        if lengthened not in reader.shapes():
            continue
        low = runs.key(first)
        part = ranges.read(reader, ranges.Selection(lengthened, low, ranges.behind(low)), READ_AT_ONCE)
        more |= part.following is not None
        ids = runs.words(reader.tree, lengthened, part.rows)
        mine = np.array([parent(lengthened, _texts(reader, row)) == (sides, words) for row in ids.tolist()], bool)
        found += orthos(reader.tree, lengthened, part.rows[mine]) if len(mine) else []
    return Children(found[:most], more or len(found) > most)


def _texts(reader: Reader, row: list[int]) -> tuple[str, ...]:
    return tuple(reader.tree.words[word] for word in row)


def _lengthened(sides: Sides, words: tuple[str, ...]) -> list[tuple[Sides, list[str]]]:
    """What children may look like: their sides, and the words that their first line begins with.

    The axis that was lengthened leads the child, so it is one of the longest there. Among axes as long as it the unit
    words decide: whether they do is seen by `parent`.
    """
    units = geometry.unit_cells(sides)
    return [
        (
            (*(sides[:axis] + sides[axis + 1 :]), sides[axis] + 1),
            [words[step * units[axis]] for step in range(sides[axis])],
        )
        for axis in range(len(sides))
        if sides[axis] + 1 >= sides[-1]
    ]
