"""Growing orthos: the children of a batch, many boxes at once.

`grow` lengthens every ortho of a batch along every axis that can lead. `Lengthening` is the kernel, which
`seeds` uses too: it fills the new cells of whole arrays of boxes, one cell after the other in shell order.
Per cell and box the shortest of the word lists that bind it proposes and the others validate: count /
propose / validate, as in worst-case optimal joins (Ngo, Re, Rudra, "Skew strikes back", 2013).

A search is a pure function of the index, its input and the two versions: run twice it gives the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from crochet_tasks.engine.geometry import Cells, Limits, Sides, Slab, slabs, volume
from crochet_tasks.engine.phrases import Bools, Ints, Longs, PhraseIndex
from crochet_tasks.engine.window import Window, window

CANDIDATES_AT_ONCE = 131_072  # keeps the arrays of one step in the processor's cache (docs/adr/0003)
ROWS_AT_ONCE = 16_384
FIRST_ROWS = 2_048


class Bounds(NamedTuple):
    """How much one search hands back at the most; what is left over becomes work of its own."""

    batch_orthos: int = 32_768
    result_bytes: int = 4_000_000
    candidates: int = 50_000_000


@dataclass(frozen=True)
class Found:
    """What a search found.

    `batches`: (sides, cells) with up to `batch_orthos` orthos each, cells of shape (cells, orthos).
    `consulted`: the phrases whose continuations mattered, int32, ascending, each once.
    `done`: how much of the input (orthos of a batch, start pairs of a seed) was searched. What comes after it
    is left over, because the result was large enough.
    """

    batches: list[tuple[Sides, Cells]]
    consulted: Ints
    done: int


def grow(
    index: PhraseIndex,
    sides: Sides,
    cells: Cells,
    since: int,
    upto: int,
    limits: Limits,
    bounds: Bounds = Bounds(),
) -> Found:
    """The children of a batch that hold a line born in (since, upto], and the phrases consulted for them.

    `cells`: word ids, shape (cells, orthos), of orthos that exist at `upto` and, unless `since` is 0, were
    searched up to `since` before: then only those children and phrases are given that came since.
    """
    harvest = Harvest(bounds)
    consulted, done = grow_into(harvest, index, sides, cells, since, upto, limits)
    return Found(harvest.batches(), consulted, done)


def grow_into(
    harvest: Harvest, index: PhraseIndex, sides: Sides, cells: Cells, since: int, upto: int, limits: Limits
) -> tuple[Ints, int]:
    """`grow` for several batches that share a harvest: (consulted, done) of this one."""
    kernels = [Lengthening(window(index, since, upto), how) for how in slabs(sides, limits)]
    cells = cells.astype(index.cell_type, copy=False)

    def search(rows: slice) -> None:
        consulted = [kernel.consulted.copy() for kernel in kernels]
        try:
            for kernel in kernels:
                for child in kernel.children(cells[:, rows]):
                    harvest.add(kernel.how.child, child)
        except TooMuchError:  # these rows will be searched again, maybe not by this search
            for kernel, before in zip(kernels, consulted, strict=True):
                kernel.consulted = before
            raise

    done = harvest.reap(search, cells.shape[1], FIRST_ROWS, lambda: sum(kernel.candidates for kernel in kernels))
    consulted = np.zeros(index.nodes, np.bool_)
    for kernel in kernels:
        consulted |= kernel.consulted
    return np.flatnonzero(consulted).astype(np.int32), done


class TooMuchError(Exception):
    """A slice yields more than a result may hold."""


class Harvest:
    """Collects what a search finds, and says when it is enough."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.room = bounds.result_bytes
        self._floor: int | None = None
        self._blocks: dict[Sides, list[Cells]] = {}

    def add(self, sides: Sides, cells: Cells) -> None:
        if cells.shape[1]:
            self._blocks.setdefault(sides, []).append(cells)
            self.room -= cells.nbytes
            if self._floor is not None and self.room < self._floor:
                raise TooMuchError

    @property
    def full(self) -> bool:
        return self.room <= 0

    def reap(self, search: Callable[[slice], None], length: int, rows: int, candidates: Callable[[], int]) -> int:
        """Run `search` over slices of range(length) until all is done or the result is large enough; how far it came.

        The first slice has `rows`, the others follow what the last one yielded. A slice that yields far too much all
        the same is taken back and tried again as a smaller one: only a single row's yield is kept whatever its size.
        Unless the harvest is full from the start, one slice at least is done.
        """
        done = 0
        while done < length and not self.full and (not done or candidates() < self.bounds.candidates):
            before, blocks = self.room, {sides: len(found) for sides, found in self._blocks.items()}
            self._floor = self.room - 2 * self.bounds.result_bytes if rows > 1 else None
            try:
                search(slice(done, done + rows))
            except TooMuchError:
                self.room = before
                self._blocks = {sides: self._blocks[sides][:number] for sides, number in blocks.items()}
                rows = max(1, rows // 8)
                continue
            finally:
                self._floor = None
            done = min(length, done + rows)
            wanted = rows * self.bounds.result_bytes // (4 * (before - self.room) + 1)
            rows = max(1, min(wanted, 2 * rows, ROWS_AT_ONCE))
        return done

    def take(self) -> tuple[Sides, Cells] | None:
        """Take out all orthos of the shape with the smallest volume. Searching them adds to larger shapes only."""
        if not self._blocks:
            return None
        sides = min(self._blocks, key=lambda sides: (volume(sides), sides))
        return sides, np.concatenate(self._blocks.pop(sides), axis=1)

    def batches(self) -> list[tuple[Sides, Cells]]:
        """Take out everything, cut into batches."""
        found: list[tuple[Sides, Cells]] = []
        while (taken := self.take()) is not None:
            found += [(taken[0], cells) for cells in cut(taken[1], self.bounds.batch_orthos)]
        return found


def cut(cells: Cells, size: int) -> list[Cells]:
    """Orthos of one shape as batches of up to `size`."""
    return [cells[:, first : first + size] for first in range(0, cells.shape[1], size)]


class _Block(NamedTuple):
    """Partly filled slabs: whose (`row`), the words so far, the lines still open, and which hold something new.

    `open[cell, axis]`: the phrase that the line within the slab along that axis makes up to that new cell.
    """

    row: Longs
    words: tuple[Ints, ...]
    open: dict[tuple[int, int], Ints]
    new: Bools | None

    def take(self, rows: Longs | slice) -> _Block:
        return _Block(
            self.row[rows],
            tuple(word[rows] for word in self.words),
            {link: node[rows] for link, node in self.open.items()},
            None if self.new is None else self.new[rows],
        )


class _Parents(NamedTuple):
    """The boxes that are lengthened, only those that can be.

    `lines[i]`: per box the phrase that new cell i continues. `hope[i]`: per box whether cell i or a later one
    can bring something new (empty where everything is new).
    """

    cells: Cells
    lines: list[Ints]
    hope: list[Bools]


class Lengthening:
    """Lengthens boxes of one shape along one axis; notes the phrases consulted and counts the candidates."""

    def __init__(self, window: Window, how: Slab) -> None:
        self.window = window
        self.how = how
        self.consulted: Bools = np.zeros(window.index.nodes, np.bool_)
        self.candidates = 0

    def children(self, cells: Cells) -> Iterator[Cells]:
        """The lengthened boxes, in canonical form and in the order of their parents, in blocks of bounded size."""
        parents = self._parents(cells)
        rows = parents.cells.shape[1]
        if not rows:
            return
        new = None if self.window.everything_new else np.zeros(rows, np.bool_)
        for block in self._fill(parents, _Block(np.arange(rows), (), {}, new)):
            child = np.empty((len(self.how.layout), len(block.row)), cells.dtype)
            for to, cell in enumerate(self.how.layout):
                if cell < len(cells):
                    parents.cells[cell].take(block.row, out=child[to], mode="clip")  # "clip" skips a copy, no more
                else:
                    child[to] = block.words[cell - len(cells)]
            yield child

    # ── which boxes can be lengthened ───────────────────────────────────────────────────────

    def _parents(self, cells: Cells) -> _Parents:
        rows = self._leading(cells)
        if not self.window.everything_new:
            rows = self._promising(cells, rows)
        rows, lines = self._going_on(cells, rows)
        hope: list[Bools] = []
        if not self.window.everything_new:
            hope = self._hope(lines)
            due = np.flatnonzero(hope[0])
            rows, lines, hope = rows[due], [line[due] for line in lines], [flag[due] for flag in hope]
        for node in lines:
            self.consulted[node] = True
        return _Parents(cells[:, rows] if len(rows) < cells.shape[1] else cells, lines, hope)

    def _leading(self, cells: Cells) -> Longs:
        """The boxes whose lengthened axis will be the child's leading one, as far as the box alone can tell."""
        rows = np.arange(cells.shape[1])
        if self.how.unit < len(cells):
            rank = self.window.index.rank
            for rival in self.how.rivals:
                rows = rows[rank.take(cells[self.how.unit, rows]) > rank.take(cells[rival, rows])]
        return rows

    def _promising(self, cells: Cells, rows: Longs) -> Longs:
        """The boxes that the window's sketches do not rule out: all that `_hope` would keep, and a few more.

        This is where a replay leaves most of a batch behind, so it looks at words only and looks up no phrase.
        """
        sketch = self.window.sketch(len(self.how.along[0]))
        lines = [sketch.slots([cells[cell].take(rows) for cell in along]) for along in self.how.along]
        promising = np.zeros(len(rows), np.bool_)
        for line, ahead in zip(lines, self.how.ahead, strict=True):
            promising |= sketch.continued.take(line)
            for chain in ahead:
                signatures = sketch.signatures(len(chain))
                bits = [signature.take(lines[cell]) for signature, cell in zip(signatures, chain, strict=True)]
                promising |= np.bitwise_and.reduce(bits) != 0
        return rows[promising]

    def _going_on(self, cells: Cells, rows: Longs) -> tuple[Longs, list[Ints]]:
        """The boxes all of whose lines have a continuation, and those lines.

        Where one line has none the box waits on that line alone.
        """
        index = self.window.index
        lines: list[Ints] = []
        for along in self.how.along:
            node = index.single.take(cells[along[0]].take(rows))
            for cell in along[1:]:
                node = index.find(node, cells[cell].take(rows))
            alive = index.after.count.take(node) > 0
            if not alive.all():
                self.consulted[node[~alive]] = True
                rows, node, lines = rows[alive], node[alive], [line[alive] for line in lines]
            lines.append(node)
        return rows, lines

    def _hope(self, lines: list[Ints]) -> list[Bools]:
        """Per new cell, per box: can this cell or a later one complete a line born in the window?"""
        hope: list[Bools] = []
        for node, ahead in zip(reversed(lines), reversed(self.how.ahead), strict=True):
            hopes = self.window.continued.take(node)
            for cells in ahead:
                for places in self.window.signatures(len(cells)):
                    bits = [place.take(lines[cell]) for place, cell in zip(places, cells, strict=True)]
                    hopes |= np.bitwise_and.reduce(bits) != 0
            hope.append(hopes | hope[-1] if hope else hopes)
        return hope[::-1]

    # ── filling the slab ────────────────────────────────────────────────────────────────────

    def _fill(self, parents: _Parents, block: _Block) -> Iterator[_Block]:
        """All ways to fill the cells of the slab that are still empty, depth first in pieces of bounded size."""
        step = len(block.words)
        if step == len(parents.lines):
            yield block if block.new is None else block.take(np.flatnonzero(block.new))
            return
        if block.new is not None and step:
            block = self._with_hope(parents, block)
        if not len(block.row):
            return
        index = self.window.index
        asked = [parents.lines[step].take(block.row), *(block.open[link] for link in self.how.within[step])]
        for node in asked[1:]:
            self.consulted[node] = True
        counts = [index.after.count.take(node) for node in asked]
        fewest = np.minimum.reduce(counts)
        total = int(fewest.sum())
        if total > CANDIDATES_AT_ONCE and len(block.row) > 1:
            half = len(block.row) // 2
            yield from self._fill(parents, block.take(slice(None, half)))
            yield from self._fill(parents, block.take(slice(half, None)))
            return
        self.candidates += total
        chosen = _chosen(counts)
        proposer = asked[0] if chosen is None else np.choose(chosen, asked)
        place, at = index.after.expand(proposer)
        word = index.after.word.take(place)
        phrases: list[Ints] = []
        for j in range(1, len(asked)):
            # The list that proposed stands in for the one whose place it took: list 0 or list j.
            validator = asked[j] if chosen is None else np.where(chosen == j, asked[0], asked[j])
            hit, phrase = index.hits(validator.take(at), word)
            at, place, word = at.take(hit), place.take(hit), word.take(hit)
            phrases = [*(other.take(hit) for other in phrases), phrase]
        phrases.insert(0, index.after.phrase.take(place))
        fine = self._fine(parents, block, at, word, phrases)
        if fine is not None:
            hit = np.flatnonzero(fine)
            at, word, phrases = at.take(hit), word.take(hit), [phrase.take(hit) for phrase in phrases]
        yield from self._fill(parents, self._next(block, at, word, phrases, chosen))

    def _with_hope(self, parents: _Parents, block: _Block) -> _Block:
        """The part of a block that can still come to hold something new."""
        assert block.new is not None
        hope = block.new | parents.hope[len(block.words)].take(block.row)
        for node in block.open.values():
            hope |= self.window.continued.take(node)
        return block.take(np.flatnonzero(hope))

    def _fine(self, parents: _Parents, block: _Block, at: Longs, word: Ints, phrases: list[Ints]) -> Bools | None:
        """Which candidates differ from their shell, are visible, and leave the lengthened axis leading."""
        step, how, index = len(block.words), self.how, self.window.index
        tests: list[Bools] = []
        row = block.row.take(at)
        tests += [parents.cells[cell].take(row) != word for cell in how.shell[step]]
        tests += [block.words[cell].take(at) != word for cell in how.shell_new[step]]
        if self.window.hides:
            tests += [phrase < self.window.high for phrase in phrases]
        if how.unit == len(parents.cells) + step:
            rank = index.rank.take(word)
            tests += [rank > index.rank.take(parents.cells[rival].take(row)) for rival in how.rivals]
        fine: Bools | None = np.logical_and.reduce(tests) if tests else None
        return fine

    def _next(self, block: _Block, at: Longs, word: Ints, phrases: list[Ints], chosen: Longs | None) -> _Block:
        """The block with one more cell filled.

        `phrases[j]` was found by list j; where list j proposed, list 0 stood in its place, and the other way round.
        """
        step, how, index = len(block.words), self.how, self.window.index
        new = None
        if block.new is not None:
            new = block.new.take(at)
            for phrase in phrases:
                new |= phrase >= self.window.low
        still_open = {link: node.take(at) for link, node in block.open.items() if link in how.needed[step + 1]}
        for axis, line in how.opens[step]:
            if line < 0:
                still_open[step, axis] = index.single.take(word)
            else:
                assert chosen is not None
                still_open[step, axis] = np.where(chosen.take(at) == line + 1, phrases[0], phrases[line + 1])
        return _Block(block.row.take(at), (*(other.take(at) for other in block.words), word), still_open, new)


def _chosen(counts: list[Ints]) -> Longs | None:
    """Per row which list is the shortest; None where there is only one."""
    if len(counts) == 1:
        return None
    if len(counts) == 2:
        return (counts[1] < counts[0]).astype(np.int64)
    chosen: Longs = np.argmin(counts, axis=0)
    return chosen
