"""How boxes are lengthened, as tables for the kernel: made from geometry alone, the same code for every shape."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from crochet_tasks.engine.geometry import SHAPES_KEPT, Limits, Sides, coordinates
from crochet_tasks.engine.kernel import Plan

NEXT, EMIT, KEEP = range(3)
"""what comes after a step: see `Then` in kernel.pyx"""
AMID, LOOKED_UP, AT_HAND = range(3)
"""how a line takes up a cell: see `Ends` there"""


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
    cells = range(len(how.along))
    # Cells that depend on all layers but the last one; a new axis can go on in so many ways that it is not worth it.
    shared = canonical and axis < len(sides)
    common = tuple(i for i in cells if shared and all(cell % side + 1 < side for cell in how.along[i]))
    last = tuple(i for i in cells if i not in common)
    places = []
    for line in how.lines:
        places.append(len(pool))
        pool += line
    filling = functools.partial(_filling, how, places=places, pool=pool, ranked=bool(rivals))
    if canonical or len(sides) > 1:
        steps = [step for first in cells for step in filling(first, cells)]
    else:
        steps = [*filling(None, cells)] * len(cells)
    if common:
        # What many boxes have in common is filled before their last layers are known: `apart` is compared then.
        early = [[c for c in old if c % side + 1 < side] for old in how.old]
        for first in cells:
            group = list(filling(first, common, old=early) if first in common else filling(first, last, common))
            steps += group + group[:1] * (len(cells) - len(group))
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
        slots=len(how.along) * len(how.lines),
        order=[*common, *last],
        common=len(common),
        apart=[(i, c) for i in common for c in how.old[i] if c % side + 1 == side],
    )


def _filling(
    how: Slab,
    first: int | None,
    cells: Sequence[int],
    filled: Iterable[int] = (),
    *,
    old: Sequence[Sequence[int]] | None = None,
    places: list[int],
    pool: list[int],
    ranked: bool,
) -> Iterator[list[int]]:
    """The steps that fill cells of the slab from one on: next is the cell with most neighbours that are filled.

    Or in their order, where there is no first one: so every line within the slab is followed from its first word on.
    """
    count = len(how.along)
    neighbours = [{*how.beside[i], *(j for j in range(count) if i in how.beside[j])} for i in range(count)]
    filled, left, at_hand = [*filled], [*cells], set[tuple[int, int]]()
    while left:
        if first is None or len(left) < len(cells):
            cell = max(left, key=lambda i: (first is not None and len(neighbours[i] & {*filled}), -i))
        else:
            cell = first
        left.remove(cell)
        tests = [2 * j + int(j in how.beside[cell]) for j in filled if j in neighbours[cell]]
        before = (old or how.old)[cell]
        same = [j for j in how.new[cell] if j in filled]
        filled.append(cell)
        lines = []
        for k, line in enumerate(how.lines):
            known = [*itertools.takewhile(filled.__contains__, line)]
            if cell in known and len(known) > (2 if first is not None else 1):
                ends = AMID if cell != known[-1] else AT_HAND if (k, len(known) - 1) in at_hand else LOOKED_UP
                at_hand.add((k, len(known)))
                slot = k * len(how.along) + len(known) - 1
                lines += [places[k], len(known), ends, slot - 1, slot]
        at = len(pool)
        pool += [*tests, *before, *same, *lines]
        unit = ranked and how.unit < 0 and cell == 0
        then = NEXT if left else EMIT if len(filled) == count else KEEP
        yield [cell, int(unit), at, len(tests), len(before), len(same), len(lines) // 5, then]


def growths(sides: Sides, limits: Limits, tied: int = 0) -> Iterator[tuple[int, Sides, int]]:
    """The ways in which orthos of a shape grow to canonical children: (axis, sides of the child, its `tied`).

    An axis is lengthened only where it becomes the leading one, and an axis is added only to a box of sides 2 (or to
    its first line): so every ortho has one parent, itself without the last slab of its leading axis.

    `tied`: of the axes that are one shorter than the leading one, those before number `tied` cannot catch up with it.
    They were as long as it, and come before it, because their unit words are smaller.
    """
    largest = max(sides)
    for axis in range(len(sides)):
        child = (*sides[:axis], *sides[axis + 1 :], sides[axis] + 1)
        beaten = axis < tied and sides[axis] + 1 == largest
        if len(sides) > 1 and child[-1] >= largest and not beaten and limits.allow(child):
            yield axis, child, axis if child[-1] - 1 in child[:axis] else 0
    if largest == 2 and limits.allow((*sides, 2)):
        yield len(sides), (*sides, 2), 0
