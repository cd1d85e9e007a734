"""Boxes: their cells, shells and axes; limits; canonical form and ids.

Cells are numbered row-major over the canonical sides (last axis fastest). A set of orthos of one
shape is a matrix of word ids with a row per cell and a column per ortho.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Sides = tuple[int, ...]
Cells = npt.NDArray[np.integer]
"""Word ids of orthos of one shape, shape (cells, orthos)."""
Halves = npt.NDArray[np.uint64]
"""Ids in two halves, shape (orthos, 2); of words shape (2, words)."""
SHAPES_KEPT = 256
"""whose lines, shells and slabs are kept: of large ones they take 100 KB each, and there are thousands of shapes"""


class Limits(NamedTuple):
    """What of a corpus is searched; nothing else bounds a search."""

    max_axes: int = 3
    max_side: int = 8
    max_cells: int = 64

    def allow(self, sides: Sides) -> bool:
        return len(sides) <= self.max_axes and max(sides) <= self.max_side and math.prod(sides) <= self.max_cells


def pack_cells(cells: Cells) -> bytes:
    """Cells as they are stored and sent: all first cells, then all second cells, ...; little-endian."""
    return np.ascontiguousarray(cells, cells.dtype.newbyteorder("<")).tobytes()


def unpack_cells(value: bytes, count: int, width: int) -> Cells:
    """The inverse of `pack_cells`: a read-only matrix of shape (cells, orthos), `width` bytes per word."""
    return np.frombuffer(value, f"<u{width}").reshape(-1, count)


def volume(sides: Sides) -> int:
    """The score by which "best" is meant."""
    return math.prod(side - 1 for side in sides)


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


@dataclass(frozen=True)
class Slab:
    """How a box is lengthened along one axis: the new cells, in shell order, and what binds each of them.

    `child` are the canonical sides of the lengthened box: the axis moves to the end, because a child
    is accepted only where that axis leads. Per new cell i:
    `along[i]`: the cells of the parent whose line it continues, from the first on;
    `within[i]`: the earlier new cells that it follows within the slab, each with the axis along which it does;
    `shell[i]`: the parent's cells, `shell_new[i]`: the earlier new cells, from which its word must differ;
    `opens[i]`: the axes along which a later new cell follows it within the slab, each with the place in
    `within[i]` of the line that so goes on, or -1 where the line begins here.
    `ahead[i]`: the lines within the slab of which new cell i is the last but one, as their cells so far and the next.
    `needed[i]`: the (new cell, axis) links that cell i or a later one goes on from.
    `layout`: per cell of the child, which cell it is: c < parent's cells is the parent's, else new cell c - that.
    `unit`: the lengthened axis' unit cell (numbered like the layout).
    `rivals`: unit cells of the axes that are as long as the lengthened one and so come before it by their word.
    """

    child: Sides
    along: tuple[tuple[int, ...], ...]
    within: tuple[tuple[tuple[int, int], ...], ...]
    shell: tuple[tuple[int, ...], ...]
    shell_new: tuple[tuple[int, ...], ...]
    opens: tuple[tuple[tuple[int, int], ...], ...]
    ahead: tuple[tuple[tuple[int, ...], ...], ...]
    needed: tuple[frozenset[tuple[int, int]], ...]
    layout: tuple[int, ...]
    unit: int
    rivals: tuple[int, ...]


def slabs(sides: Sides, limits: Limits) -> tuple[Slab, ...]:
    """The ways in which orthos of a shape grow: one per axis that can become the leading one within the limits."""
    return tuple(
        slab(sides, axis)
        for axis, side in enumerate(sides)
        if side + 1 >= max(sides) and limits.allow((*sides[:axis], side + 1, *sides[axis + 1 :]))
    )


@functools.lru_cache(SHAPES_KEPT)
def slab(sides: Sides, axis: int) -> Slab:
    """The slab of one more step along `axis`; `axis == len(sides)` adds an axis (a box is one cell thick along it)."""
    thick = (*sides, 1) if axis == len(sides) else sides
    rest = (*thick[:axis], *thick[axis + 1 :])
    old = coordinates(thick)
    number = {at: cell for cell, at in enumerate(old)}
    order = sorted(coordinates(rest), key=lambda at: (sum(at), at))
    new = {(*at[:axis], thick[axis], *at[axis:]): i for i, at in enumerate(order)}

    def back(at: tuple[int, ...], along: int) -> tuple[int, ...]:
        return (*at[:along], at[along] - 1, *at[along + 1 :])

    within = [tuple((new[back(at, j)], j) for j in range(len(thick)) if j != axis and at[j] > 0) for at in new]
    followed = {link for cells in within for link in cells}
    numbers = {**number, **{at: len(old) + i for at, i in new.items()}}
    units = [tuple(int(j == other) for j in range(len(thick))) for other in range(len(thick))]
    return Slab(
        child=(*rest, thick[axis] + 1),
        along=tuple(tuple(number[(*at[:axis], step, *at[axis + 1 :])] for step in range(thick[axis])) for at in new),
        within=tuple(within),
        shell=tuple(tuple(cell for cell, other in enumerate(old) if sum(other) == sum(at)) for at in new),
        shell_new=tuple(
            tuple(j for other, j in new.items() if j < i and sum(other) == sum(at)) for at, i in new.items()
        ),
        opens=tuple(
            tuple(
                (j, before_axes.index(j) if j in before_axes else -1) for j in range(len(thick)) if (i, j) in followed
            )
            for i, before_axes in enumerate([j for _, j in cells] for cells in within)
        ),
        ahead=tuple(
            tuple(
                tuple(new[(*at[:j], step, *at[j + 1 :])] for step in range(at[j] + 2))
                for j in range(len(thick))
                if (i, j) in followed
            )
            for at, i in new.items()
        ),
        needed=tuple(frozenset(link for cells in within[i:] for link in cells) for i in range(len(within) + 1)),
        layout=tuple(numbers[(*at[:axis], at[-1], *at[axis:-1])] for at in coordinates((*rest, thick[axis] + 1))),
        unit=numbers[units[axis]],
        rivals=tuple(numbers[units[j]] for j in range(len(thick)) if j != axis and thick[j] == thick[axis] + 1),
    )


def canonical(sides: Sides, words: tuple[str, ...]) -> tuple[Sides, tuple[str, ...]]:
    """The canonical form of one box given in any order of its axes (1-domain, "Ortho")."""
    axes = sorted(range(len(sides)), key=lambda axis: (sides[axis], words[unit_cells(sides)[axis]]))
    box = np.arange(len(words)).reshape(sides).transpose(axes)
    return box.shape, tuple(words[cell] for cell in box.ravel())


def ids(sides: Sides, cells: Cells, word_hashes: Halves) -> Halves:
    """The 128-bit ids of orthos as two numbers each, shape (orthos, 2).

    `word_hashes`, shape (2, words), are 128 bits of each word itself, so an id depends on the sides
    and the words and on nothing else. Each half is a chain of multiply-xor-shift steps (the finaliser
    of MurmurHash3's 64-bit mix, after Appleby) over the sides and then the cells. It is made to tell
    orthos apart, not to withstand somebody who looks for a collision.
    """
    state = np.empty((2, cells.shape[1]), np.uint64)  # both halves at once: of a few orthos a call costs more than they
    state[:] = [[0x9E3779B97F4A7C15], [0x9E3779B97F4A7C16]]
    room = np.empty_like(state)
    for side in (len(sides), *sides):
        _stir(state, np.uint64(side), room)
    for column in cells:
        _stir(state, word_hashes.take(column, axis=1), room)
    return state.T


def _stir(state: Halves, value: Halves | np.uint64, room: Halves) -> None:
    state ^= value
    state ^= np.right_shift(state, np.uint64(33), out=room)
    state *= np.uint64(0xFF51AFD7ED558CCD)
    state ^= np.right_shift(state, np.uint64(29), out=room)
    state *= np.uint64(0xC4CEB9FE1A85EC53)
    state ^= np.right_shift(state, np.uint64(32), out=room)


def id_text(halves: Halves) -> str:
    """One id as people see it: 32 hexadecimal digits."""
    return id_texts(halves[None])[0]


def id_texts(ids: Halves) -> list[str]:
    """Ids, shape (orthos, 2), as people see them."""
    digits = ids.astype(">u8").tobytes().hex()
    return [digits[first : first + 32] for first in range(0, len(digits), 32)]


def tiles(sides: Sequence[int]) -> Iterator[tuple[str, list[range]]]:
    """A box as 2-D tiles of its last two axes: (label, cells row by row). Labels count along the other axes."""
    *outer, rows, columns = sides
    first = 0
    for layer in itertools.product(*map(range, outer)):
        label = f"layer {'.'.join(str(step + 1) for step in layer)}" if outer else ""
        yield label, [range(first + row * columns, first + (row + 1) * columns) for row in range(rows)]
        first += rows * columns
