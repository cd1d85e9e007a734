"""Orthos of one shape in alphabetical order, read from sorted batches whose ranges may overlap.

A position is a text: the words of an ortho, separated by spaces, or the beginning of such a text. As a space is less
than every character of a word, these texts compare as the orthos do, and those that begin with the words "the king"
lie from "the king" up to, not including, "the king!" (`behind`).
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from crochet_tasks.db.batches import Span, Stored
from crochet_tasks.engine import runs
from crochet_tasks.engine.geometry import Sides, shape_name
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.tree import Tree
from crochet_tasks.errors import StoreCorrupt
from crochet_tasks.query.filters import Lines, all_kept

PASSED_OVER = 8
"""to read the lines of a batch takes about this part of what its orthos take"""

READ_AT_ONCE = 8
"""batches in which ids are looked for at once"""
END_BITS = 16


class Source(Protocol):
    """Where the batches of a corpus come from, as one snapshot has them."""

    @property
    def tree(self) -> Tree:
        """The phrases of the snapshot's version; all rows that are read have its numbering."""
        ...

    def list_ahead(self, spans: Sequence[Span]) -> None:
        """List the batches of these spans at once: `batches` is called for some of them next."""
        ...

    def batches(self, span: Span, *, back: bool = False) -> Iterator[Stored]:
        """The batches that have orthos of a span, by their first ortho.

        With `back` by their last ortho, the last batch first.
        """
        ...

    def rows(self, batches: Sequence[Stored]) -> list[Ids]:
        """The orthos of each batch: lines along the leading axis, numbered as the tree."""
        ...

    def lines(self, batch: Stored) -> Ids:
        """All lines of its orthos, numbered as the tree: its remediation, which takes less to read than the orthos."""
        ...


class Selection(NamedTuple):
    """Orthos of a shape from position `low` up to `high` (None: to the end), those that all `filters` keep."""

    sides: Sides
    low: str
    high: str | None
    filters: tuple[Lines, ...] = ()

    @property
    def span(self) -> Span:
        return Span(self.sides, self.low, self.high)


class Found(NamedTuple):
    """Orthos of one shape in alphabetical order; `following`: the position of the next one, None where there is none.

    Read backwards, the next one is the last before them.
    `rows`: phrase ids of the lines along the leading axis, shape (orthos, lines), as engine/runs.py has them.
    """

    rows: Ids
    following: str | None
    scanned: int
    """what it took: orthos that were filtered, and a few for each batch that was passed over"""


def key(tree: Tree, lines: Iterable[int]) -> str:
    """The position of an ortho, given by its lines along the leading axis; of its first lines: where such begin."""
    return runs.key([word for phrase in lines for word in tree.phrase(int(phrase))])


def behind(words: str) -> str:
    """The position behind all orthos that begin with these words."""
    return f"{words}!"


def read(source: Source, selection: Selection, most: int, budget: int = 1 << 62) -> Found:
    """The first `most` orthos of a selection.

    About `budget` orthos are filtered at the most, so there may be fewer although there are more.
    """
    sides, low, high, filters = selection
    since = max((each.born for each in filters), default=0)
    rows = np.empty((0, runs.height(sides)), np.uint32)
    scanned = 0
    for batch in source.batches(selection.span):
        if len(rows) > most and key(source.tree, rows[most]) < batch.first:
            break
        if filters:
            if batch.numbering < since:
                continue
            if scanned >= budget and batch.first > low:
                # This batch and those behind it are not read: what lies before it is complete.
                complete = _place(source.tree, rows, batch.first)
                if complete <= most:
                    return Found(rows[:complete], batch.first, scanned)
                break
            if not _may_hold(source, batch, filters):
                scanned += 1 + batch.count // PASSED_OVER
                continue
        part = _part(source, batch, low, high)
        if filters:
            scanned += len(part)
            part = all_kept(filters, source.tree, sides, part)
        rows = _merged(rows, part[: most + 1])[: most + 1]
    following = key(source.tree, rows[most]) if len(rows) > most else None
    return Found(rows[:most], following, scanned)


def read_back(source: Source, selection: Selection, most: int, budget: int = 1 << 62) -> Found:
    """The last `most` orthos of a selection, in alphabetical order all the same: `read`, backwards."""
    sides, low, high, filters = selection
    since = max((each.born for each in filters), default=0)
    rows = np.empty((0, runs.height(sides)), np.uint32)
    scanned = 0
    for batch in source.batches(selection.span, back=True):
        if len(rows) > most and key(source.tree, rows[-most - 1]) > batch.last:
            break
        if filters:
            if batch.numbering < since:
                continue
            if scanned >= budget and (high is None or behind(batch.last) < high):
                # This batch and those before it are not read: what lies behind it is complete.
                complete = rows[_place(source.tree, rows, behind(batch.last)) :]
                if len(complete) <= most:
                    return Found(complete, batch.last, scanned)
                break
            if not _may_hold(source, batch, filters):
                scanned += 1 + batch.count // PASSED_OVER
                continue
        part = _part(source, batch, low, high)
        if filters:
            scanned += len(part)
            part = all_kept(filters, source.tree, sides, part)
        rows = _merged(part[-most - 1 :], rows)[-most - 1 :]
    following = key(source.tree, rows[-most - 1]) if len(rows) > most else None
    return Found(rows[max(0, len(rows) - most) :], following, scanned)


def _may_hold(source: Source, batch: Stored, filters: tuple[Lines, ...]) -> bool:
    """Whether a batch may hold orthos that all filters keep."""
    rare = [each for each in filters if each.rare]
    if not rare:
        return True
    lines = source.lines(batch)
    return all(each.may_hold(lines) for each in rare)


def _part(source: Source, batch: Stored, low: str, high: str | None) -> Ids:
    """The rows of a batch from `low` up to `high`."""
    (rows,) = source.rows([batch])
    begin = 0 if low <= batch.first else _place(source.tree, rows, low)
    end = len(rows) if high is None or batch.last < high else _place(source.tree, rows, high)
    return rows[begin:end]


def _place(tree: Tree, rows: Ids, position: str) -> int:
    """The place of the first row at a position or behind it."""
    return bisect.bisect_left(range(len(rows)), position, key=lambda place: key(tree, rows[place]))


def _merged(rows: Ids, others: Ids) -> Ids:
    if not len(rows) or not len(others):
        return others if len(others) else rows
    both = np.concatenate([rows, others])
    if tuple(rows[-1]) < tuple(others[0]):
        return both
    return both[np.lexsort(both.T[::-1])]


# ── one by one ──────────────────────────────────────────────────────────────────────────────────


class Range(NamedTuple):
    """The orthos of a shape whose first lines along the leading axis are these phrases."""

    sides: Sides
    lines: tuple[int, ...]


def find(source: Source, wanted: dict[Range, set[tuple[int, int]]]) -> dict[tuple[int, int], tuple[Sides, Ids]]:
    """Of the ids that are searched for in each range those that are stored there, with their shape and row."""
    found: dict[tuple[int, int], tuple[Sides, Ids]] = {}
    ids = {halves for each in wanted.values() for halves in each}
    ends = np.zeros(1 << END_BITS, np.bool_)  # most others differ from all that are searched for in these bits
    ends[[half & (len(ends) - 1) for _, half in ids]] = True
    for sides, where in _batches_of(source, wanted):
        while few := [*itertools.islice(where, READ_AT_ONCE)]:
            every = source.rows([batch for batch, _ in few])
            rows = np.concatenate([_that_begin(rows, here) for (_, here), rows in zip(few, every, strict=True)])
            there = runs.ids(source.tree, sides, rows)
            alike = np.flatnonzero(ends[there[:, 1] & np.uint64(len(ends) - 1)])
            for place, halves in zip(alike.tolist(), map(tuple, there[alike].tolist()), strict=True):
                if halves in ids:
                    found[halves] = sides, rows[place]
    return found


def _batches_of(
    source: Source, wanted: Iterable[Range]
) -> Iterator[tuple[Sides, Iterator[tuple[Stored, list[Range]]]]]:
    """Per shape of these ranges the batches that may have orthos of some of them, and of which."""
    keys = {lines: key(source.tree, lines) for lines in {each.lines for each in wanted}}
    by_sides: dict[Sides, list[tuple[str, Range]]] = defaultdict(list)
    for place in sorted((keys[each.lines], each) for each in wanted):
        by_sides[place[1].sides].append(place)
    spans = [Span(sides, ordered[0][0], behind(ordered[-1][0])) for sides, ordered in by_sides.items()]
    source.list_ahead(spans)
    for span in spans:
        yield span.sides, _in(source.batches(span), by_sides[span.sides])


def _in(batches: Iterator[Stored], ordered: list[tuple[str, Range]]) -> Iterator[tuple[Stored, list[Range]]]:
    """Of the batches of a shape those that may have orthos of ranges, and of which; `ordered`: by their positions."""
    lows = [low for low, _ in ordered]
    for batch in batches:
        begin = bisect.bisect_right(lows, batch.first, key=behind)
        if here := ordered[begin : bisect.bisect_right(lows, batch.last)]:
            yield batch, [one for _, one in here]


def _that_begin(rows: Ids, ranges: list[Range]) -> Ids:
    """The rows of a batch that are in some ranges of its shape."""
    wanted = [np.array([one.lines for one in group], np.uint32) for group in _by_length(ranges)]
    begin, end = np.concatenate([_between(rows, lines) for lines in wanted], axis=1)
    number = end - begin
    places = np.arange(number.sum()) + np.repeat(begin - (np.cumsum(number) - number), number)
    found: Ids = rows.take(places, axis=0)
    return found


def _by_length(ranges: list[Range]) -> list[list[Range]]:
    """The ranges with one line each, and those with more."""
    lengths = sorted({len(one.lines) for one in ranges})
    return [[one for one in ranges if len(one.lines) == length] for length in lengths]


def _between(rows: Ids, lines: Ids) -> npt.NDArray[np.intp]:
    """Where the rows that begin with some lines begin and end, shape (2, beginnings); `lines`: (beginnings, lines)."""
    begin = rows[:, 0].searchsorted(lines[:, 0])
    end = rows[:, 0].searchsorted(lines[:, 0], "right")
    for place in range(len(lines)) if lines.shape[1] > 1 else ():
        for column in range(1, lines.shape[1]):
            there = rows[begin[place] : end[place], column]
            line = lines[place, column]
            begin[place], end[place] = (
                begin[place] + there.searchsorted(line),
                begin[place] + there.searchsorted(line, "right"),
            )
    return np.stack([begin, end])


# ── many at once ────────────────────────────────────────────────────────────────────────────────


def born(tree: Tree, sides: Sides, rows: Ids) -> npt.NDArray[np.int32]:
    """Per ortho: the version of its youngest line. Raises StoreCorrupt where a line is no phrase."""
    lines, read = runs.every_line(tree, sides, runs.words(tree, sides, rows))
    if not read.all():
        raise StoreCorrupt(problem=f"a {shape_name(sides)} has a line that is no phrase; see 'crochet verify'")
    youngest: npt.NDArray[np.int32] = tree.born.take(lines).max(axis=1)
    return youngest
