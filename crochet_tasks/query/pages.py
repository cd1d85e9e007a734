"""Pages of orthos over all shapes, best shape first: larger volume, more cells, then by sides; each alphabetically."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from crochet_tasks.engine import geometry, runs
from crochet_tasks.engine.geometry import Sides, volume
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.text import normalised
from crochet_tasks.engine.tree import Tree
from crochet_tasks.errors import InvalidCursor
from crochet_tasks.query import ranges
from crochet_tasks.query.store import Reader

SCANNED_AT_ONCE = 1 << 19
"""about so many orthos are compared with a word for one page: a rare word takes several pages, some of them empty"""


class FoundOrtho(NamedTuple):
    """One ortho: its words in canonical form, row-major, and the version since which it exists."""

    id: str
    sides: Sides
    words: tuple[str, ...]
    born: int

    @property
    def volume(self) -> int:
        return _volume(self.sides)


_volume = functools.lru_cache(4096)(volume)


class OrthoQuery(NamedTuple):
    """Which orthos to read: of one shape; those that begin with these words; with this word; of a least volume."""

    shape: Sides | None = None
    starts_with: tuple[str, ...] = ()
    contains: str | None = None
    min_volume: int | None = None

    @classmethod
    def of(
        cls,
        shape: Sides | None = None,
        starts_with: str | None = None,
        contains: str | None = None,
        min_volume: int | None = None,
    ) -> OrthoQuery:
        """Of words as people type them."""
        first = tuple(map(normalised, (starts_with or "").split()))
        return cls(shape, first, None if contains is None else normalised(contains), min_volume)


EVERY = OrthoQuery()


_BEHIND, _BACK = 0x40, 0x80


class Position(NamedTuple):
    """Where a page begins: at the ortho of a shape, or what would be one, whose words these are, or just `behind` it.

    `back`: the page lies before that place, and is read backwards.
    """

    sides: Sides
    words: str
    behind: bool = False
    back: bool = False

    @property
    def place(self) -> str:
        """As ranges.py has it."""
        return ranges.behind(self.words) if self.behind else self.words

    def packed(self, tree: Tree) -> bytes:
        """Lines as the database numbers them, alike in all versions: the words may be too long for an address."""
        words, side = self.words.split(" "), self.sides[-1]
        lines = [tree.find(words[first : first + side]) for first in range(0, len(words), side)]
        head = len(self.sides) | _BEHIND * self.behind | _BACK * self.back
        return bytes([head]) + np.array([*self.sides, *tree.node[lines]], ">u4").tobytes()

    @classmethod
    def unpacked(cls, tree: Tree, value: bytes) -> Position:
        """Raises InvalidCursor where the tree is older than the position."""
        head, numbers = value[0], np.frombuffer(value, ">u4", offset=1)
        axes = head & ~(_BEHIND | _BACK)
        sides, nodes = tuple(numbers[:axes].tolist()), numbers[axes:]
        if nodes.max() > tree.node.max(initial=0):
            raise InvalidCursor
        return cls(sides, ranges.key(tree, tree.id_of(nodes)), bool(head & _BEHIND), bool(head & _BACK))


class Part(NamedTuple):
    """Orthos in their order, and where the pages before and behind them are read from; None where there is none."""

    orthos: list[FoundOrtho]
    before: Position | None
    behind: Position | None


def page(reader: Reader, query: OrthoQuery, limit: int, position: Position | None) -> Part:
    """Up to `limit` orthos from a position on, or of those before it the last.

    With a word the page may have fewer or none although there are more in that direction.
    """
    back = position is not None and position.back
    read = ranges.read_back if back else ranges.read
    found: list[FoundOrtho] = []
    then: Position | None = None
    budget = SCANNED_AT_ONCE
    for selection in selected(reader, query, position):
        part = read(reader, selection, limit - len(found), budget)
        budget -= part.scanned
        more = list(orthos(reader.tree, selection.sides, part.rows))
        found = more + found if back else found + more
        if part.following is not None:
            then = Position(selection.sides, part.following, behind=back, back=back)
            break
    turned = None if position is None else position._replace(back=not back)
    return Part(found, then, turned) if back else Part(found, turned, then)


def selected(reader: Reader, query: OrthoQuery, position: Position | None = None) -> Iterator[ranges.Selection]:
    """What to read of each shape from a position on, best shape first; the other way round where it goes back."""
    tree = reader.tree
    word = None if query.contains is None else tree.number(query.contains)
    if word == -1 or any(tree.number(each) == -1 for each in query.starts_with):
        return
    first = runs.key(query.starts_with)
    shapes = reader.shapes()
    if position is not None:
        ranked = geometry.best_first({*shapes, position.sides})
        place = ranked.index(position.sides)
        shapes = ranked[place::-1] if position.back else ranked[place:]
    for sides in shapes:
        if query.shape in (None, sides) and volume(sides) >= (query.min_volume or 0):
            low, high = first, ranges.behind(first) if first else None
            if position is not None and position.sides == sides:
                low, high = (low, position.place) if position.back else (position.place, high)
            keep = None if word is None else ranges.Word(word, int(tree.born[word]))
            yield ranges.Selection(sides, low, high, keep)


def orthos(tree: Tree, sides: Sides, rows: Ids) -> Iterator[FoundOrtho]:
    """Orthos of one shape, with words instead of phrases."""
    ids = runs.id_texts(runs.ids(tree, sides, rows))
    versions = ranges.born(tree, sides, rows).tolist()
    for id_, box, born in zip(ids, runs.words(tree, sides, rows).tolist(), versions, strict=True):
        # A box has several words, so itemgetter gives a tuple; it takes a third of the time of a loop.
        yield FoundOrtho(id_, sides, itemgetter(*box)(tree.words), born)
