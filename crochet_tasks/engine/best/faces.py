"""Searching one shape: its orthos as stacks of faces, in parts that can be done anywhere and in any order.

A box of sides (layers, *face) is so many faces one above the other; its lines along the axis of the stack are phrases,
the *columns*. A face with one axis is a phrase; those with more axes must have been listed before (`Faces.put`). Each
ortho is found once: of the axes of one length, the word of each one's unit cell is lower than that of the next, the
axis of the stack first, then the axes of the face from its last to its first. Words are compared by their ids.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from crochet_tasks.engine import packing, stacks
from crochet_tasks.engine.geometry import SHAPES_KEPT, Sides, coordinates
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.stacks import Tables, Trie
from crochet_tasks.engine.tree import Tree

Flag = npt.NDArray[np.uint8]
"""one number: set to 1 it ends the parts that look at it"""
CELL_BYTES = 12
"""that a cell of a face takes in memory"""
MOST_CELLS = 40_000_000
"""of the faces that are held in memory at once"""
TRIES_KEPT = 6


class Way(NamedTuple):
    """How a shape is searched: as so many layers of a face."""

    layers: int
    face: Sides

    @property
    def sides(self) -> Sides:
        return tuple(sorted((self.layers, *self.face)))


def way(sides: Sides) -> Way:
    """Along the shortest side: the larger faces are, the fewer there are."""
    return Way(sides[0], sides[1:])


def other_way(sides: Sides) -> Way:
    """Along the longest side: another search with other faces, which must find the same."""
    return Way(sides[-1], sides[:-1])


class Part(NamedTuple):
    """The starts [first, last) of a way. `enough`: end with the first ortho. `keep`: how many orthos are handed back;
    None: all.
    """

    way: Way
    first: int
    last: int
    enough: bool = False
    keep: int | None = None


class Outcome(NamedTuple):
    """What a part found: `layers`: how many stacks of 2, 3, … layers fitted; the last number is that of the orthos.

    `boxes`: the first ones in alphabetical order, in canonical form. `reached`: the starts before it are done.
    """

    part: Part
    reached: int
    layers: tuple[int, ...]
    visits: int
    boxes: Ids


class Search:
    """The search of one way: what its parts share. `starts` (uint32, shape (starts, 2)): pairs of first words."""

    def __init__(self, way: Way, faces: Trie, columns: Trie) -> None:
        self.way, self.faces, self._columns = way, faces, columns
        self.tables = tables(way)
        self.starts = stacks.starts(faces, columns)

    def parts(self, number: int, *, enough: bool = False, keep: int | None = None) -> list[Part]:
        """All starts, cut by the number of pairs that can follow."""
        if not len(self.starts):
            return []
        after = np.diff(self.faces.first).astype(np.float64)
        cost = np.cumsum(after[self.starts[:, 0]] * after[self.starts[:, 1]] + 1)
        cuts = np.searchsorted(cost, cost[-1] * np.arange(1, number) / number).tolist()
        edges = sorted({0, *cuts, len(self.starts)})
        return [Part(self.way, first, last, enough, keep) for first, last in itertools.pairwise(edges)]

    def run(self, part: Part, stop: Flag) -> Outcome:
        """Do a part, or as much of it as its result can hold. Pure, but for `stop`."""
        found, visits, _, reached = stacks.stack(
            self.faces,
            self._columns,
            self.tables,
            self.starts,
            part.first,
            part.last,
            stop,
            keep=part.keep != 0,
            enough=int(part.enough),
            room=max(1, ROOM // math.prod(self.way.sides)),
        )
        boxes = canonical(found, self.way)[: part.keep]
        cells = self.tables.cells
        return Outcome(part, reached, tuple(visits[cells - 1 :: cells].tolist()), int(visits.sum()), boxes)

    def thinned(self, stop: Flag, *, visits: int, rates: list[float] | None, due: list[float]) -> tuple[Counts, bool]:
        """How many fitted per level, in a search that follows a share of them; and whether it came to its end."""
        _, counts, _, reached = stacks.stack(
            self.faces,
            self._columns,
            self.tables,
            self.starts,
            0,
            len(self.starts),
            stop,
            keep=False,
            visits=visits,
            rates=rates,
            due=due,
        )
        return counts.astype(np.float64), reached == len(self.starts)


Counts = npt.NDArray[np.float64]
ROOM = 2_000_000
"""cells of the boxes after which a part hands back what it has"""


class Faces:
    """What the searches of a tree are made of. `put` and `search` are for one thread."""

    def __init__(self, tree: Tree, most_cells: int = MOST_CELLS) -> None:
        self.tree, self._most_cells = tree, most_cells
        self._listed: dict[Sides, Ids] = {}
        self._tries: dict[tuple[Sides, bool], Trie] = {}

    @property
    def bytes(self) -> int:
        """About what it holds in memory, beside the tree."""
        tries = sum(trie.bytes for trie in self._tries.values())
        return tries + sum(boxes.nbytes for boxes in self._listed.values())

    def phrases(self, words: int) -> Ids:
        """All phrases of so many words, ascending; shape (phrases, words)."""
        tree = self.tree
        low, high = tree.levels[words - 1 : words + 1] if words < len(tree.levels) else (0, 0)
        rows = np.empty((high - low, words), np.uint32)
        phrase: npt.NDArray[np.integer] = np.arange(low, high)
        for place in range(words - 1, -1, -1):
            rows[:, place] = tree.word[phrase]
            phrase = tree.parent[phrase]
        return rows

    def has(self, face: Sides) -> bool:
        return len(face) == 1 or face in self._listed

    def fits(self, face: Sides, count: float) -> bool:
        """Whether so many orthos of a shape can be held as faces."""
        return count * turns(face) * math.prod(face) <= self._most_cells

    def put(self, face: Sides, boxes: Ids) -> None:
        """Hold all orthos of a shape, in canonical form."""
        self._listed[face] = boxes

    def count(self, face: Sides) -> int:
        """How many faces, in all turns of their axes."""
        return len(self.phrases(face[0])) if len(face) == 1 else len(self._listed[face]) * turns(face)

    def search(self, way: Way) -> Search:
        return Search(way, self._trie(way.face), self._trie((way.layers,), pairs=True))

    def _trie(self, face: Sides, *, pairs: bool = False) -> Trie:
        trie = self._tries.pop((face, pairs), None)
        if trie is None:
            rows = self.phrases(face[0]) if len(face) == 1 else turned(self._listed[face], face)
            trie = Trie(len(self.tree.words), rows, pairs=pairs)
        while len(self._tries) >= TRIES_KEPT:
            del self._tries[next(iter(self._tries))]
        self._tries[face, pairs] = trie
        return trie


# ── geometry ────────────────────────────────────────────────────────────────────────────────────


@functools.lru_cache(SHAPES_KEPT)
def tables(way: Way) -> Tables:
    """The shells and the order of the axes as the kernel reads them."""
    layers, face = way
    cells = math.prod(face)
    distance = [sum(at) for at in coordinates(face)]
    lower = [-1] * cells
    for axis, side in enumerate(face):
        next_one = next((other for other in range(axis + 1, len(face)) if face[other] == side), None)
        if next_one is not None:
            lower[_unit(face, axis)] = _unit(face, next_one)
        elif side == layers:
            lower[_unit(face, axis)] = cells  # the unit cell of the stack: the first of the second layer
    clashes = [
        [cells + other for other in range(cell) if distance[other] + 1 == distance[cell]] for cell in range(cells)
    ]
    clashes += [[other for other in range(cell) if distance[other] == distance[cell] + 1] for cell in range(cells)]
    for layer in range(2, layers):
        clashes += [
            [
                below * cells + other
                for below in range(layer)
                for other in range(cells)
                if below + distance[other] == layer + distance[cell]
            ]
            for cell in range(cells)
        ]
    return Tables(cells, layers, lower, clashes)


def _unit(sides: Sides, axis: int) -> int:
    """The cell one step from the origin along an axis."""
    return math.prod(sides[axis + 1 :])


def canonical(boxes: Ids, way: Way) -> Ids:
    """Boxes as a search finds them, in their canonical form and in alphabetical order."""
    sides, last = (way.layers, *way.face), len(way.face)
    axes = sorted(range(last + 1), key=lambda axis: (sides[axis], axis and last + 1 - axis))
    return ordered(boxes.reshape(-1, *sides).transpose(0, *(1 + axis for axis in axes)).reshape(boxes.shape))


def turns(sides: Sides) -> int:
    """In how many orders the axes of a canonical box can be while its sides ascend."""
    return math.prod(math.factorial(sides.count(side)) for side in set(sides))


def turned(boxes: Ids, sides: Sides) -> Ids:
    """Canonical boxes in all these orders of their axes, ascending."""
    every = [
        boxes.reshape(-1, *sides).transpose(0, *(1 + axis for axis in axes)).reshape(boxes.shape)
        for axes in itertools.permutations(range(len(sides)))
        if tuple(sides[axis] for axis in axes) == sides
    ]
    return ordered(np.concatenate(every))


def ordered(rows: Ids) -> Ids:
    rows = np.ascontiguousarray(rows)
    return np.ascontiguousarray(rows[packing.ordered(rows)])
