"""Shapes in the order of orthos: which would be better than a given one, and which are parts of which.

A shape is the sides of an ortho, ascending. Its *key* is (volume, cells), by which orthos are compared first. A shape
contains another one if it has an ortho of that shape as a part: then it is empty where the other one is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from crochet_tasks.engine.geometry import Sides, volume

Key = tuple[int, int]
NOTHING: Key = (0, 0)
"""less than the key of every shape"""
MOST_SHAPES = 2_000
"""that are looked at for an upper bound"""


class Scope(NamedTuple):
    """Which shapes are searched; None: any number."""

    max_axes: int | None = 3
    max_side: int = 8
    max_cells: int | None = 64

    def allow(self, sides: Sides) -> bool:
        return (
            (self.max_axes is None or len(sides) <= self.max_axes)
            and max(sides) <= self.max_side
            and (self.max_cells is None or math.prod(sides) <= self.max_cells)
        )


def key(sides: Sides) -> Key:
    return volume(sides), math.prod(sides)


def contains(sides: Sides, part: Sides) -> bool:
    """Whether an ortho of these sides has parts of those; a part may also be a phrase, of one side."""
    rest = sides[len(sides) - len(part) :]  # both ascend: the longest sides fit, or none do
    return len(part) <= len(sides) and all(mine >= its for mine, its in zip(rest, part, strict=True))


def smaller(sides: Sides) -> Iterator[Sides]:
    """The shapes with one layer less."""
    for side in sorted(set(sides)):
        rest = list(sides)
        rest.remove(side)
        if side > 2:
            rest.append(side - 1)
        if len(rest) > 1:
            yield tuple(sorted(rest))


def larger(sides: Sides, scope: Scope) -> Iterator[Sides]:
    """The shapes of the scope with one layer more."""
    for side in (1, *sorted(set(sides))):
        rest = list(sides)
        if side > 1:
            rest.remove(side)
        found = tuple(sorted([*rest, side + 1]))
        if scope.allow(found):
            yield found


def better(than: Key, scope: Scope) -> list[Sides]:
    """The minimal shapes of the scope with a larger key: each other one contains one of them."""
    found: list[Sides] = []

    def extend(core: Sides) -> None:
        """Try the sides longer than 2 with as many axes of side 2 as they need."""
        least = max(0, 2 - len(core))
        if volume(core) == than[0]:
            least = max(least, (than[1] // math.prod(core)).bit_length())  # 2 ** least * cells > than[1]
        if volume(core) >= than[0]:
            sides = (2,) * least + core
            if scope.allow(sides) and all(key(part) <= than for part in smaller(sides)):
                found.append(sides)
        if volume(core) <= than[0]:
            for side in range(core[-1] if core else 3, scope.max_side + 1):
                if not scope.allow((*core, side)):
                    break
                extend((*core, side))
                if volume((*core, side)) > than[0]:
                    break  # a longer side contains this one

    if scope.max_side > 1:
        extend(())
    return sorted(found)


def equal(to: Key, scope: Scope) -> list[Sides]:
    """The shapes of the scope with just this key."""
    found: list[Sides] = []

    def extend(core: Sides) -> None:
        twos, rest = divmod(to[1], math.prod(core))
        if volume(core) == to[0] and not rest and twos & (twos - 1) == 0:
            sides = (2,) * (twos.bit_length() - 1) + core
            if len(sides) > 1 and scope.allow(sides):
                found.append(sides)
        for side in range(core[-1] if core else 3, scope.max_side + 1):
            if volume((*core, side)) > to[0] or not scope.allow((*core, side)):
                break
            if to[0] % volume((*core, side)) == 0:
                extend((*core, side))

    extend(())
    return sorted(found)


def largest_part(sides: Sides, below: Key | None) -> Sides | None:
    """The best part of a shape whose key is below another one; the shape itself where that is."""
    todo, met = [sides], {sides}
    fitting: list[Sides] = []
    while todo:
        one = todo.pop()
        if below is None or key(one) < below:
            fitting.append(one)  # its own parts are worse
            continue
        new = set(smaller(one)) - met
        met |= new
        todo += new
    return max(fitting, key=lambda one: (key(one), one), default=None)


def bound(targets: list[Sides], scope: Scope, covered: Callable[[Sides], bool], below: Key | None) -> Key | None:
    """The largest key of a shape that contains a target, is not covered, and is below a key; None: not known.

    Where there may be any number of axes or cells there may be no bound yet.
    """
    todo, met = list(targets), set(targets)
    largest = NOTHING
    while todo:
        one = todo.pop()
        largest = max(largest, key(one))
        new = {more for more in larger(one, scope) if more not in met and not covered(more)}
        if below is not None:
            new = {more for more in new if key(more) < below}
        met |= new
        todo += new
        if len(met) > MOST_SHAPES:
            return None
    return largest
