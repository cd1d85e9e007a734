"""Pages of orthos over all shapes, best shape first: larger volume, more cells, then by sides; each alphabetically."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from crochet_tasks.db import batches, tally
from crochet_tasks.engine import geometry, runs
from crochet_tasks.engine.geometry import Sides, volume
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.text import normalised
from crochet_tasks.engine.tree import Tree
from crochet_tasks.errors import InvalidCursor, NotFound
from crochet_tasks.query import checks, ranges
from crochet_tasks.query.filters import Lines
from crochet_tasks.query.store import Reader

SCANNED_AT_ONCE = 1 << 19
"""about so many orthos are filtered for one page: where few fit it takes several pages, some of them empty"""
SHAPES_AT_ONCE = 8
"""whose batches are listed at once"""


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
    """Which orthos to read: of one shape; those that begin with these words; with these words, one after another in a
    line; of a least volume; others that have a line in common with the one of this id.
    """

    shape: Sides | None = None
    starts_with: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()
    min_volume: int | None = None
    shares_line_with: str | None = None

    @classmethod
    def of(
        cls,
        shape: Sides | None = None,
        starts_with: str | None = None,
        contains: str | None = None,
        min_volume: int | None = None,
        shares_line_with: str | None = None,
    ) -> OrthoQuery:
        """Of words as people type them."""
        first, held = (tuple(map(normalised, (words or "").split())) for words in (starts_with, contains))
        return cls(shape, first, held, min_volume, shares_line_with)

    @property
    def question(self) -> list[object]:
        """What a cursor is good for."""
        asked: list[object] = [self.shape, self.starts_with, " ".join(self.contains) or None, self.min_volume]
        return asked if self.shares_line_with is None else [*asked, self.shares_line_with]


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


class Looked(NamedTuple):
    """How many orthos were looked through, from the first one on, `of` those whose shapes may fit."""

    orthos: int
    of: int


class Part(NamedTuple):
    """Orthos in their order, and where the pages before and behind them are read from; None where there is none."""

    orthos: list[FoundOrtho]
    before: Position | None
    behind: Position | None
    cut: bool = False
    """whether it has fewer orthos than there are, as enough was filtered"""


def page(reader: Reader, query: OrthoQuery, limit: int, position: Position | None, budget: int | None = None) -> Part:
    """Up to `limit` orthos from a position on, or of those before it the last.

    About `budget` orthos are filtered (by default SCANNED_AT_ONCE), so the page may have fewer or none although there
    are more in that direction. Raises InvalidOrthoId, and NotFound where the ortho to share a line with is not stored.
    """
    back = position is not None and position.back
    read = ranges.read_back if back else ranges.read
    found: list[FoundOrtho] = []
    then: Position | None = None
    budget = SCANNED_AT_ONCE if budget is None else budget
    for selection in _listed(reader, selected(reader, query, position), back=back):
        part = read(reader, selection, limit - len(found), budget)
        budget -= part.scanned
        more = list(orthos(reader.tree, selection.sides, part.rows))
        found = more + found if back else found + more
        if part.following is not None:
            then = Position(selection.sides, part.following, behind=back, back=back)
            break
    turned = None if position is None else position._replace(back=not back)
    cut = then is not None and len(found) < limit
    return Part(found, then, turned, cut) if back else Part(found, turned, then, cut)


def _listed(reader: Reader, selections: list[ranges.Selection], *, back: bool) -> Iterator[ranges.Selection]:
    """The selections; the batches of a few are listed at once, as most shapes have few orthos that fit."""
    for begin in range(0, len(selections), SHAPES_AT_ONCE):
        few = selections[begin : begin + SHAPES_AT_ONCE]
        if not back:
            reader.list_ahead([each.span for each in few])
        yield from few


def selected(reader: Reader, query: OrthoQuery, position: Position | None = None) -> list[ranges.Selection]:
    """What to read of each shape from a position on, best shape first; the other way round where it goes back.

    Raises as `page`.
    """
    filters = _filters(reader, query)
    if filters is None or any(reader.tree.number(each) == -1 for each in query.starts_with):
        return []
    first = runs.key(query.starts_with)
    shapes = reader.shapes()
    if position is not None:
        ranked = geometry.best_first({*shapes, position.sides})
        place = ranked.index(position.sides)
        shapes = ranked[place::-1] if position.back else ranked[place:]
    selections = []
    for sides in fitting(shapes, query, filters):
        low, high = first, ranges.behind(first) if first else None
        if position is not None and position.sides == sides:
            low, high = (low, position.place) if position.back else (position.place, high)
        selections.append(ranges.Selection(sides, low, high, filters))
    return selections


def fitting(shapes: list[Sides], query: OrthoQuery, filters: tuple[Lines, ...]) -> list[Sides]:
    """The shapes that what is asked for may have."""
    return [
        sides
        for sides in shapes
        if query.shape in (None, sides)
        and volume(sides) >= (query.min_volume or 0)
        and all(each.fits(sides) for each in filters)
    ]


def _filters(reader: Reader, query: OrthoQuery) -> tuple[Lines, ...] | None:
    """What orthos are to have besides their place; None: there are none such. Raises as `page`."""
    tree = reader.tree
    filters: list[Lines] = []
    if query.contains:
        if (phrase := tree.find(query.contains)) == -1:
            return None
        filters.append(Lines.with_phrase(tree, phrase))
    if query.shares_line_with is not None:
        sides, row = stored(reader, query.shares_line_with)
        every, _ = runs.every_line(tree, sides, runs.words(tree, sides, row.reshape(1, -1)))
        filters.append(Lines.of(tree, np.unique(every), besides=(sides, row)))
    return (*filters,)


def stored(reader: Reader, id: str) -> tuple[Sides, Ids]:  # noqa: A002 - as people call it
    """The ortho with that id, as ranges.py has it. Raises InvalidOrthoId, and NotFound."""
    found = find(reader, id)
    if found is None:
        raise NotFound(what="ortho", name=id)
    return found


def find(reader: Reader, id: str) -> tuple[Sides, Ids] | None:  # noqa: A002
    """As `stored`; None where it is not there."""
    halves = checks.id_of(id)
    (begins,) = reader.phrases.with_hashes(np.array(halves[:1], np.uint64))
    where = checks.ranges([checks.CheckItem(halves, lines=tuple(begins))], reader.tree, reader.shapes())
    return ranges.find(reader, where).get(halves) if where else None


def behind(reader: Reader, id: str) -> Position:  # noqa: A002
    """Where the orthos behind the one of this id begin. Raises InvalidOrthoId, and NotFound."""
    sides, row = stored(reader, id)
    return Position(sides, ranges.key(reader.tree, row), behind=True)


def looked_through(reader: Reader, query: OrthoQuery, position: Position) -> Looked:
    """How much of what may fit lies before a position."""
    counted = tally.counted(reader.connection, reader.corpus.id)
    shapes = fitting(geometry.best_first({*counted, position.sides}), query, _filters(reader, query) or ())
    before = shapes[: shapes.index(position.sides)]
    part = batches.orthos_before(reader.connection, reader.corpus.id, position.sides, position.place)
    total, passed = (sum(counted[sides].orthos for sides in some if sides in counted) for some in (shapes, before))
    return Looked(passed + part, total)


def orthos(tree: Tree, sides: Sides, rows: Ids) -> Iterator[FoundOrtho]:
    """Orthos of one shape, with words instead of phrases."""
    ids = runs.id_texts(runs.ids(tree, sides, rows))
    versions = ranges.born(tree, sides, rows).tolist()
    for id_, box, born in zip(ids, runs.words(tree, sides, rows).tolist(), versions, strict=True):
        # A box has several words, so itemgetter gives a tuple; it takes a third of the time of a loop.
        yield FoundOrtho(id_, sides, itemgetter(*box)(tree.words), born)
