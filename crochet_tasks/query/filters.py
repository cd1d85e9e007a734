"""What orthos are to have besides their place: a word, words one after another, a line in common with another ortho.

Each is a set of phrases of which one has to be a line of the ortho. So the remediation of a batch, all lines of its
orthos, tells whether one of them may be there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from crochet_tasks.engine import runs
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.tree import Tree

Mask = npt.NDArray[np.bool_]
RARE = 1_000
"""phrases, or one of so many: a full batch has some thousand different lines"""


class Lines(NamedTuple):
    """The orthos of which one of some phrases is a line; `besides`: without this one."""

    among: Mask
    """per phrase of the tree, whether it is one"""
    lengths: frozenset[int]
    born: int
    """the version that brought the first of them: batches with an older numbering hold none"""
    across: bool
    """whether lines along all axes count; else those along the leading one, in which every word stands"""
    besides: tuple[Sides, Ids] | None
    rare: bool
    """whether few batches hold one: then it pays to look at their remediations first"""

    @classmethod
    def of(cls, tree: Tree, phrases: Ids, *, across: bool = True, besides: tuple[Sides, Ids] | None = None) -> Lines:
        """`phrases`: one at least."""
        among = np.zeros(tree.size, np.bool_)
        among[phrases] = True
        spans = zip(tree.levels, tree.levels[1:], strict=False)
        lengths = frozenset(length for length, span in enumerate(spans, start=1) if among[slice(*span)].any())
        rare = len(phrases) <= max(RARE, tree.size // RARE)
        return cls(among, lengths, int(tree.born[phrases].min()), across, besides, rare)

    @classmethod
    def with_phrase(cls, tree: Tree, phrase: int) -> Lines:
        """The orthos that hold a phrase, or word: its words stand one after another in one of their lines."""
        return cls.of(tree, phrases_with(tree, phrase), across=phrase >= len(tree.words))

    def fits(self, sides: Sides) -> bool:
        """Whether orthos of this shape may be among them."""
        return not self.lengths.isdisjoint(sides)

    def may_hold(self, lines: Ids) -> bool:
        """Whether one of the orthos whose lines these are is among them, but for `besides`."""
        return bool(self.among[lines].any())

    def kept(self, tree: Tree, sides: Sides, rows: Ids) -> Mask:
        """Which of these orthos are; `rows` as engine/runs.py has them."""
        held: Mask = np.any(self.among[rows], axis=1)
        left = np.flatnonzero(~held)
        if self.across and len(left) and not self.lengths.isdisjoint(sides[:-1]):
            every, _ = runs.every_line(tree, sides, runs.words(tree, sides, rows[left]))
            held[left] = self.among[every[:, runs.height(sides) :]].any(axis=1)
        if self.besides is not None and self.besides[0] == sides:
            held[(rows == self.besides[1]).all(axis=1)] = False
        return held


def phrases_with(tree: Tree, phrase: int) -> Ids:
    """The phrases in which the words of this one stand one after another, ascending."""
    words = [tree.number(word) for word in tree.phrase(phrase)]
    holds = np.zeros(tree.size, np.bool_)
    for level in range(len(words), len(tree.levels)):
        first, last = tree.levels[level - 1 : level + 1]
        if level > len(words):
            holds[first:last] = holds[tree.parent[first:last]]
        ends = first + np.flatnonzero(tree.word[first:last] == words[-1])
        before = tree.parent[ends]
        for word in reversed(words[:-1]):
            same = tree.word[before] == word
            ends, before = ends[same], tree.parent[before[same]]
        holds[ends] = True
    return np.flatnonzero(holds).astype(np.uint32)


def all_kept(filters: Iterable[Lines], tree: Tree, sides: Sides, rows: Ids) -> Ids:
    """The orthos that every filter keeps."""
    for each in filters:
        rows = rows[each.kept(tree, sides, rows)]
    return rows
