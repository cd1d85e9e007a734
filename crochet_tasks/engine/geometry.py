"""Boxes: their cells, lines, shells and axes; limits; canonical form; the order of shapes.

Cells are numbered row-major over the canonical sides (last axis fastest).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

Sides = tuple[int, ...]
SHAPES_KEPT = 256
"""whose tables are kept: of large ones they take 100 KB each, and there are thousands of shapes"""


class Limits(NamedTuple):
    """What of a corpus is searched; nothing else bounds a search."""

    max_axes: int = 3
    max_side: int = 8
    max_cells: int = 64

    def allow(self, sides: Sides) -> bool:
        return len(sides) <= self.max_axes and max(sides) <= self.max_side and math.prod(sides) <= self.max_cells


def volume(sides: Sides) -> int:
    """The score by which "best" is meant."""
    return math.prod(side - 1 for side in sides)


def best_first(shapes: Iterable[Sides]) -> list[Sides]:
    """Shapes in the order of orthos: larger volume first, then more cells, then by sides."""
    return sorted(shapes, key=lambda sides: (-volume(sides), -math.prod(sides), sides))


def shape_name(sides: Sides) -> str:
    return "x".join(map(str, sides))


@functools.lru_cache(SHAPES_KEPT)
def coordinates(sides: Sides) -> tuple[tuple[int, ...], ...]:
    """The coordinates of every cell, in the order of the cells."""
    return tuple(itertools.product(*map(range, sides)))


@functools.lru_cache(SHAPES_KEPT)
def lines(sides: Sides) -> tuple[tuple[int, ...], ...]:
    """Every line of a box along every axis, as the cells it runs through."""
    number = {at: cell for cell, at in enumerate(coordinates(sides))}
    return tuple(
        tuple(number[(*at[:axis], step, *at[axis + 1 :])] for step in range(side))
        for axis, side in enumerate(sides)
        for at in coordinates(sides)
        if at[axis] == 0
    )


@functools.lru_cache(SHAPES_KEPT)
def shells(sides: Sides) -> tuple[tuple[int, ...], ...]:
    """The cells of each shell (same coordinate sum), from the origin outwards."""
    found: list[list[int]] = [[] for _ in range(sum(sides) - len(sides) + 1)]
    for cell, at in enumerate(coordinates(sides)):
        found[sum(at)].append(cell)
    return tuple(map(tuple, found))


@functools.lru_cache(SHAPES_KEPT)
def unit_cells(sides: Sides) -> tuple[int, ...]:
    """Per axis: the cell one step from the origin along it."""
    return tuple(math.prod(sides[axis + 1 :]) for axis in range(len(sides)))


def canonical(sides: Sides, words: tuple[str, ...]) -> tuple[Sides, tuple[str, ...]]:
    """The canonical form of one box given in any order of its axes (1-domain, "Ortho")."""
    axes = sorted(range(len(sides)), key=lambda axis: (sides[axis], words[unit_cells(sides)[axis]]))
    box = np.arange(len(words)).reshape(sides).transpose(axes)
    return box.shape, tuple(words[cell] for cell in box.ravel())


def tiles(sides: Sequence[int]) -> Iterator[tuple[str, list[range]]]:
    """A box as 2-D tiles of its last two axes: (label, cells row by row). Labels count along the other axes."""
    *outer, rows, columns = sides
    first = 0
    for layer in itertools.product(*map(range, outer)):
        label = f"layer {'.'.join(str(step + 1) for step in layer)}" if outer else ""
        yield label, [range(first + row * columns, first + (row + 1) * columns) for row in range(rows)]
        first += rows * columns
