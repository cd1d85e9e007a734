"""Seeds: playing the empty ortho finds the boxes whose sides are all 2. They depend on word pairs only.

When most pairs are new every box is enumerated: a pair is lengthened into a square, a square into a cube, and
so on, a new axis at a time. When few are new the work has to follow those: a box belongs to its lowest-numbered
new pair; the search starts from that pair in each place it can have in the box, fills the rest, and refuses
other new pairs with a lower number. So each box comes once either way.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from crochet_tasks.engine.geometry import Cells, Limits, Sides, lines, shells, slab, unit_cells
from crochet_tasks.engine.growth import CANDIDATES_AT_ONCE, Bounds, Found, Harvest, Lengthening
from crochet_tasks.engine.phrases import Bools, Ints, Longs, PhraseIndex
from crochet_tasks.engine.window import Window, window

COST_OF_A_PART = 1_000_000
FIRST_PAIRS = 16
PIECES = 64
ALL_PIECES = range(PIECES)
MOSTLY_NEW = 0.25  # from this share of new pairs on, enumerating everything is quicker (docs/adr/0003)


def seed(
    index: PhraseIndex,
    since: int,
    upto: int,
    limits: Limits,
    first: int = 0,
    last: int | None = None,
    bounds: Bounds = Bounds(),
) -> Found:
    """The boxes with all sides 2 that hold a pair born in (since, upto], at the places [first, last).

    A start pair has PIECES places: what it yields is cut by one of the box's other words, because a pair of two
    frequent words can begin millions of boxes.

    Seeds consult nothing: every new version is seeded anew, at a cost that follows its new pairs.
    """
    harvest = Harvest(bounds)
    done = seed_into(harvest, index, since, upto, limits, first, last)
    return Found(harvest.batches(), np.empty(0, np.int32), done)


def seed_into(
    harvest: Harvest, index: PhraseIndex, since: int, upto: int, limits: Limits, first: int, last: int | None
) -> int:
    """`seed` into a given harvest; how many places of the part were searched."""
    view = window(index, since, upto)
    pairs = _start_pairs(view)
    last = len(pairs) * PIECES if last is None else last
    cubes = [(2,) * axes for axes in range(2, limits.max_axes + 1) if limits.allow((2,) * axes)]
    finder = _FromEverything(view, upto, cubes) if _mostly_new(view) else _FromNewPairs(view, cubes)

    def search(rows: slice) -> None:
        for some, pieces in _pieces(first + rows.start, min(first + rows.stop, last)):
            for sides, cells in finder.boxes(pairs[some], pieces):
                harvest.add(sides, cells.astype(index.cell_type, copy=False))

    return harvest.reap(search, last - first, FIRST_PAIRS * PIECES, lambda: finder.candidates)


def _pieces(first: int, last: int) -> Iterator[tuple[slice, range]]:
    """Places as whole pairs where possible: (start pairs, which pieces of each)."""
    while first < last:
        pair, piece = divmod(first, PIECES)
        whole = (last - first) // PIECES if piece == 0 else 0
        if whole:
            yield slice(pair, pair + whole), ALL_PIECES
            first += whole * PIECES
        else:
            end = min(last, (pair + 1) * PIECES)
            yield slice(pair, pair + 1), range(piece, piece + end - first)
            first = end


def _in_pieces(word: Cells, pieces: range) -> Bools:
    place = word % PIECES
    return (place >= pieces.start) & (place < pieces.stop)


def seed_parts(index: PhraseIndex, since: int, upto: int) -> list[tuple[int, int]]:
    """How a seed is cut into parts that cost about the same: the places [first, last) of each."""
    view = window(index, since, upto)
    pairs = _start_pairs(view)
    count = index.after.count.astype(np.int64)
    one, other = count[index.parent[pairs]], count[index.single[index.word[pairs]]]
    cost = np.cumsum(1 + one * np.minimum(other, 64))
    whole = int(cost[-1]) if len(pairs) else 0
    cuts = np.searchsorted(cost, np.arange(COST_OF_A_PART, whole, COST_OF_A_PART)) + 1
    ends = sorted({0, *map(int, cuts), len(pairs)})
    return list(itertools.pairwise(end * PIECES for end in ends))


def _start_pairs(window: Window) -> Ints:
    """The pairs that a seed starts from, in the order by which its parts are cut."""
    if not _mostly_new(window):
        return _pairs(window, window.low)
    pairs, parent, word = _pairs(window, 0), window.index.parent, window.index.word
    return pairs[np.lexsort((word[pairs], word[parent[pairs]]))]


def _mostly_new(window: Window) -> bool:
    return len(_pairs(window, window.low)) >= MOSTLY_NEW * len(_pairs(window, 0))


def _pairs(window: Window, low: int) -> Ints:
    parent = window.index.parent
    among = parent[low : window.high]
    return (low + np.flatnonzero((among > 0) & (parent[among] == 0))).astype(np.int32)


class _FromEverything:
    """Enumerates every box from its pair at the origin, a new axis at a time, and keeps those with something new."""

    def __init__(self, window: Window, upto: int, cubes: list[Sides]) -> None:
        self.window = window
        everything = Window(window.index, 0, upto)
        self.kernels = [Lengthening(everything, slab(sides[1:], len(sides) - 1)) for sides in cubes]

    @property
    def candidates(self) -> int:
        return sum(kernel.candidates for kernel in self.kernels)

    def boxes(self, pairs: Ints, pieces: range) -> Iterator[tuple[Sides, Cells]]:
        index = self.window.index
        start = np.stack([index.word[index.parent[pairs]], index.word[pairs]])
        yield from self._raised(start, self.kernels, pieces)

    def _raised(self, cells: Cells, kernels: list[Lengthening], pieces: range) -> Iterator[tuple[Sides, Cells]]:
        if not kernels:
            return
        sides = kernels[0].how.child
        for raised in kernels[0].children(cells):
            if pieces != ALL_PIECES:
                raised = raised[:, _in_pieces(raised[1], pieces)]  # noqa: PLW2901 - the part of it that is asked for
            yield sides, raised if self.window.everything_new else raised[:, self._new(sides, raised)]
            yield from self._raised(raised, kernels[1:], ALL_PIECES)

    def _new(self, sides: Sides, cells: Cells) -> Bools:
        index = self.window.index
        new = np.zeros(cells.shape[1], np.bool_)
        for one, other in lines(sides):
            new |= index.find(index.single.take(cells[one]), cells[other]) >= self.window.low
        return new


@dataclass(frozen=True)
class _Partial:
    """Boxes that are filled in part: the words per cell filled so far, and the pair each started from.

    Only boxes are wanted whose word in cell `cut` lies in one of `pieces`.
    """

    cells: dict[int, Ints]
    start: Ints
    cut: int
    pieces: range

    def take(self, rows: Longs | slice) -> _Partial:
        cells = {cell: word[rows] for cell, word in self.cells.items()}
        return dataclasses.replace(self, cells=cells, start=self.start[rows])


class _FromNewPairs:
    """Finds the boxes that belong to given new pairs."""

    def __init__(self, window: Window, cubes: list[Sides]) -> None:
        self.window = window
        self.cubes = cubes
        self.candidates = 0

    def boxes(self, pairs: Ints, pieces: range) -> Iterator[tuple[Sides, Cells]]:
        index = self.window.index
        for sides in self.cubes:
            for place, (one, other) in enumerate(lines(sides)):
                cut = min({0, 1, 2} - {one, other})
                start = _Partial({one: index.word[index.parent[pairs]], other: index.word[pairs]}, pairs, cut, pieces)
                for full in self._fill(sides, place, start):
                    yield sides, np.stack([full.cells[cell] for cell in range(2 ** len(sides))])

    def _fill(self, sides: Sides, place: int, box: _Partial) -> Iterator[_Partial]:
        """All ways to fill the empty cells of boxes whose pair in `place` is their lowest-numbered new one."""
        if not len(box.start):
            return
        if len(box.cells) == 2 ** len(sides):
            yield box
            return
        # The next cell is the one that has the fewest candidates over all boxes.
        total, cell = min(
            (int(np.minimum.reduce(self._counts(sides, box, cell)).sum()), cell)
            for cell in range(2 ** len(sides))
            if cell not in box.cells and self._pairs_of(sides, box, cell)
        )
        if total > CANDIDATES_AT_ONCE and len(box.start) > 1:
            half = len(box.start) // 2
            yield from self._fill(sides, place, box.take(slice(None, half)))
            yield from self._fill(sides, place, box.take(slice(half, None)))
            return
        self.candidates += total
        at, word = self._propose(sides, box, cell)
        if cell == box.cut and box.pieces != ALL_PIECES:
            wanted = _in_pieces(word, box.pieces)
            at, word = at[wanted], word[wanted]
        for number, before, after in self._pairs_of(sides, box, cell):
            index = self.window.index
            first = word if before == cell else box.cells[before].take(at)
            second = word if after == cell else box.cells[after].take(at)
            hit, pair = index.hits(index.single.take(first), second)
            start = box.start.take(at.take(hit))
            # A new pair with a lower number would own the box; of one pair in two places, the first place does.
            owned = (pair < self.window.low) | (pair > start) | ((pair == start) & (number > place))
            hit = hit[owned & (pair < self.window.high)]
            at, word = at.take(hit), word.take(hit)
        fits = self._fits(sides, box, cell, at, word)
        at, word = at[fits], word[fits]
        cells = {**{other: words.take(at) for other, words in box.cells.items()}, cell: word}
        yield from self._fill(sides, place, dataclasses.replace(box, cells=cells, start=box.start.take(at)))

    def _pairs_of(self, sides: Sides, box: _Partial, cell: int) -> list[tuple[int, int, int]]:
        """The pairs that bind an empty cell to filled ones: (place in the box, cell before, cell after)."""
        return [
            (number, one, other)
            for number, (one, other) in enumerate(lines(sides))
            if (one == cell and other in box.cells) or (other == cell and one in box.cells)
        ]

    def _counts(self, sides: Sides, box: _Partial, cell: int) -> list[Ints]:
        index = self.window.index
        return [
            index.after.count.take(index.single.take(box.cells[one]))
            if other == cell
            else index.before.count.take(box.cells[other])
            for _, one, other in self._pairs_of(sides, box, cell)
        ]

    def _propose(self, sides: Sides, box: _Partial, cell: int) -> tuple[Longs, Ints]:
        """Per box the words of the shortest list that binds the cell: (which box, word)."""
        index = self.window.index
        shortest = np.argmin(self._counts(sides, box, cell), axis=0)
        ats: list[Longs] = []
        words: list[Ints] = []
        for j, (_, one, other) in enumerate(self._pairs_of(sides, box, cell)):
            rows = np.flatnonzero(shortest == j)
            if other == cell:
                lists, owner = index.after, index.single.take(box.cells[one].take(rows))
            else:
                lists, owner = index.before, box.cells[other].take(rows)
            place, at = lists.expand(owner)
            ats.append(rows.take(at))
            words.append(lists.word.take(place))
        return np.concatenate(ats), np.concatenate(words)

    def _fits(self, sides: Sides, box: _Partial, cell: int, at: Longs, word: Ints) -> Bools:
        """Whether the word differs from its shell and keeps the axes in canonical order."""
        rank, units = self.window.index.rank, unit_cells(sides)
        shell = next(shell for shell in shells(sides) if cell in shell)
        fits = np.ones(len(word), np.bool_)
        for other in shell:
            if other in box.cells:
                fits &= box.cells[other].take(at) != word
                if cell in units and units.index(other) < units.index(cell):
                    fits &= rank.take(box.cells[other].take(at)) < rank.take(word)
                elif cell in units:
                    fits &= rank.take(box.cells[other].take(at)) > rank.take(word)
        return fits
