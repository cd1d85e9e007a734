"""How boxes are lengthened, as tables for the kernel: made from geometry alone, the same code for every shape."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from crochet_tasks.engine.geometry import SHAPES_KEPT, Limits, Sides, coordinates
from crochet_tasks.engine.kernel import Plan


@dataclass(frozen=True)
class Slab:
    """One more layer of cells of a box, at the end of an axis or (`back`) before its origin.

    `child`: the sides of the lengthened box, that axis moved to the end. New cells are numbered row-major over the
    other axes, so new cell i ends (or begins) line i of the child. Cells of the box are numbered row-major too; with
    `back` those of a line count from its end, because it is read backward.
    `along[i]`: the cells of the box whose line new cell i continues, from the first on; `beside[i]`: the new cells that
    come right before it within the slab; `old[i]`, `new[i]`: cells of the box and of the slab in its shell.
    `unit`: the lengthened axis' unit cell where the box has it, else -1: then new cell 0 is it. `rivals`: unit cells of
    the axes that are as long as the lengthened one and lead unless its unit word is larger (canonical form).
    """

    child: Sides
    lead: bool
    along: tuple[tuple[int, ...], ...]
    beside: tuple[tuple[int, ...], ...]
    old: tuple[tuple[int, ...], ...]
    new: tuple[tuple[int, ...], ...]
    lines: tuple[tuple[int, ...], ...]
    """the lines within the slab of three and more cells"""
    unit: int
    rivals: tuple[int, ...]


@functools.lru_cache(SHAPES_KEPT)
def slab(sides: Sides, axis: int, *, back: bool = False) -> Slab:
    """The slab of one more step along `axis`; `axis == len(sides)` adds an axis (a box is one cell thick along it)."""
    thick = (*sides, 1) if axis == len(sides) else sides
    length, rest = thick[axis], (*thick[:axis], *thick[axis + 1 :])
    number = {
        (*at[:axis], length - 1 - at[axis], *at[axis + 1 :]) if back else at: i
        for i, at in enumerate(coordinates(thick))
    }
    new = coordinates(rest)
    step = -1 if back else length
    shell = [sum(at) + step for at in new]
    units = [number.get(tuple(int(j == other) for j in range(len(thick))), -1) for other in range(len(thick))]
    towards = range(length - 1, -1, -1) if back else range(length)
    return Slab(
        child=(*rest, length + 1),
        lead=axis == len(sides) - 1,
        along=tuple(tuple(number[(*at[:axis], step, *at[axis:])] for step in towards) for at in new),
        beside=tuple(tuple(new.index(before) for before in _before(at)) for at in new),
        old=tuple(tuple(cell for other, cell in number.items() if sum(other) == one) for one in shell),
        new=tuple(tuple(j for j, other in enumerate(shell) if other == one and j != i) for i, one in enumerate(shell)),
        lines=tuple(
            tuple(new.index((*at[:j], step, *at[j + 1 :])) for step in range(side))
            for j, side in enumerate(rest)
            if side > 2
            for at in new
            if at[j] == 0
        ),
        unit=units[axis],
        rivals=() if back else tuple(units[j] for j in range(len(thick)) if j != axis and thick[j] == length + 1),
    )


def _before(at: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return ((*at[:j], step - 1, *at[j + 1 :]) for j, step in enumerate(at) if step)


@functools.lru_cache(SHAPES_KEPT)
def plan(sides: Sides, axis: int, *, back: bool = False, canonical: bool = True) -> Plan:
    """The tables of a slab. With `canonical`, only children are made whose lengthened axis leads."""
    how = slab(sides, axis, back=back)
    rivals = how.rivals if canonical else ()
    side, rows = sides[-1], len(coordinates(sides)) // sides[-1]
    wanted = {cell for cells in how.old for cell in cells} | ({how.unit, *rivals} - {-1} if rivals else set())
    if not how.lead:
        wanted |= {cell for cells in how.along for cell in cells}
    pool: list[int] = []
    places = []
    for line in how.lines:
        places.append(len(pool))
        pool += line
    if canonical:
        steps = [step for first in range(len(how.along)) for step in _filling(how, first, places, pool, rivals)]
    else:
        steps = list(_in_order(how, pool)) * len(how.along)
    return Plan(
        side=side,
        rows=rows,
        thick=len(how.along[0]),
        lead=how.lead,
        unit=how.unit,
        along=[cell for cells in how.along for cell in cells],
        walk=[max([side - cell % side for cell in wanted if cell // side == row], default=0) for row in range(rows)],
        rivals=rivals,
        steps=steps,
        pool=pool,
        slots=len(how.along) * len(how.child),
    )


def _in_order(how: Slab, pool: list[int]) -> Iterator[list[int]]:
    """The steps that fill the slab cell after cell: every line within it is followed from its first word on."""
    rest = how.child[:-1]
    axes = len(how.child)
    for cell, at in enumerate(coordinates(rest)):
        place = len(pool)
        links: list[int] = []
        tests: list[int] = []
        for axis, side in enumerate(rest):
            before = cell - math.prod(rest[axis + 1 :])
            if side > 2:
                links += [before * axes + axis if at[axis] else -1, cell * axes + axis]
            elif at[axis]:
                tests.append(2 * before + 1)
        same = [j for j in how.new[cell] if j < cell]
        pool += [*tests, *how.old[cell], *same, *links]
        yield [cell, 0, place, len(tests), len(how.old[cell]), len(same), 0, len(links) // 2]


def _filling(how: Slab, first: int, places: list[int], pool: list[int], rivals: tuple[int, ...]) -> Iterator[list[int]]:
    """The steps that fill the slab from one cell on: next is the cell with most neighbours that are filled."""
    count = len(how.along)
    neighbours = [{*how.beside[i], *(j for j in range(count) if i in how.beside[j])} for i in range(count)]
    filled: list[int] = []
    while len(filled) < count:
        left = [i for i in range(count) if i not in filled]
        cell = max(left, key=lambda i: (len(neighbours[i] & {*filled}), -i)) if filled else first
        tests = [2 * j + int(j in how.beside[cell]) for j in filled if j in neighbours[cell]]
        same = [j for j in how.new[cell] if j in filled]
        filled.append(cell)
        ended = [k for k, line in enumerate(how.lines) if cell in line and {*line} <= {*filled}]
        at = len(pool)
        pool += [*tests, *how.old[cell], *same]
        for k in ended:
            pool += [places[k], len(how.lines[k])]
        unit = bool(rivals) and how.unit < 0 and cell == 0
        yield [cell, int(unit), at, len(tests), len(how.old[cell]), len(same), len(ended), 0]


def growths(sides: Sides, limits: Limits) -> Iterator[tuple[int, Sides]]:
    """The ways in which orthos of a shape grow to canonical children: (axis, sides of the child).

    An axis is lengthened only where it becomes the leading one, and an axis is added only to a box of sides 2 (or to
    its first line): so every ortho has one parent, itself without the last slab of its leading axis.
    """
    largest = max(sides)
    for axis in range(len(sides)):
        child = (*sides[:axis], *sides[axis + 1 :], sides[axis] + 1)
        if len(sides) > 1 and child[-1] >= largest and limits.allow(child):
            yield axis, child
    if largest == 2 and limits.allow((*sides, 2)):
        yield len(sides), (*sides, 2)
