"""Checks whether orthos are stored: parses the ids and boxes of a request and finds where they could be stored."""

from __future__ import annotations

import enum
import functools
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from crochet_tasks.engine import geometry, runs
from crochet_tasks.engine.geometry import Limits, Sides
from crochet_tasks.engine.text import normalised
from crochet_tasks.engine.tree import Tree
from crochet_tasks.errors import InvalidOrthoId, InvalidRequest
from crochet_tasks.query.ranges import Range
from crochet_tasks.query.store import Phrases

Grid: TypeAlias = "Sequence[str | Grid]"
"""A box as nested lists of words, one level per axis, the axes in any order."""

Id: TypeAlias = "tuple[int, int]"
"""the two halves of an ortho's id"""

_Box: TypeAlias = "tuple[Sides, tuple[str, ...]]"
"""sides and words as in the request"""

MOST_AXES, MOST_CELLS = 8, 1024
CELLS_AT_ONCE = 1 << 16
"""of all boxes of one check: 1000 of them may have 64 each"""


class Reason(enum.StrEnum):
    """Why an item of a check is not stored."""

    MALFORMED_ID = "malformed_id"
    """an id has 32 hexadecimal digits"""
    NOT_A_BOX = "not_a_box"
    """a box has two or more axes, each side at least 2, and a word in every cell"""
    SHELL = "shell"
    """cells equally far from the origin hold the same word"""
    LIMITS = "limits"
    """it is larger than the corpus' limits allow"""
    LINE = "line"
    """a line is no phrase of the corpus"""
    NOT_FOUND = "not_found"
    """no such ortho is stored; a box with this reason is an ortho that has not been found yet"""


class CheckItem(NamedTuple):
    """One parsed item of a check: its id, or the reason why it has none."""

    id: Id | None
    sides: Sides | None = None
    words: tuple[str, ...] | None = None
    """in canonical form, row-major"""
    reason: Reason | None = None
    """why it cannot be stored; None where it has to be looked up"""
    lines: tuple[int, ...] = ()
    """phrases: of a box that is an ortho its lines along the leading axis, of an id those that it can begin with"""


_is_id = re.compile(r"[0-9a-f]{32}").fullmatch


def id_of(text: str) -> Id:
    """An id of 32 hexadecimal digits; raises InvalidOrthoId."""
    halves = _halves(text)
    if halves is None:
        raise InvalidOrthoId(id=text[:64])
    return halves


def _halves(text: str) -> Id | None:
    return (int(text[:16], 16), int(text[16:], 16)) if _is_id(text) else None


def id_text(halves: Id) -> str:
    return f"{halves[0]:016x}{halves[1]:016x}"


def read(items: Sequence[str | Grid], phrases: Phrases, limits: Limits) -> list[CheckItem]:
    """Parse the items of a check, by the phrases alone. All boxes of one shape are compared with them at once.

    Raises InvalidRequest if the boxes have more than CELLS_AT_ONCE cells.
    """
    boxes = [None if isinstance(item, str) else _box(item) for item in items]
    cells = sum(len(box[1]) for box in boxes if box is not None)
    if cells > CELLS_AT_ONCE:
        raise InvalidRequest(problem=f"the boxes have {cells} cells in total; check at most {CELLS_AT_ONCE} at once")
    ids = [_halves(item) if isinstance(item, str) else None for item in items]
    begins = iter(phrases.with_hashes(np.array([each[0] for each in ids if each is not None], np.uint64)))
    parsed = [
        _id(halves, begins) if isinstance(item, str) else _canonical(box, limits)
        for item, halves, box in zip(items, ids, boxes, strict=True)
    ]
    by_sides: dict[Sides, list[int]] = defaultdict(list)
    for place, item in enumerate(parsed):
        if item.sides is not None:
            by_sides[item.sides].append(place)
    for sides, places in by_sides.items():
        every = _orthos(phrases.tree, sides, [parsed[place].words or () for place in places])
        for place, ortho in zip(places, every, strict=True):
            here = parsed[place]
            parsed[place] = (
                here._replace(reason=Reason.LINE) if ortho is None else here._replace(id=ortho[0], lines=ortho[1])
            )
    return parsed


def ranges(items: Iterable[CheckItem], tree: Tree, shapes: Sequence[Sides]) -> dict[Range, set[Id]]:
    """Where the items that have to be looked up can be stored, of these shapes."""
    where: dict[Range, set[Id]] = defaultdict(set)
    for item in items:
        if item.id is None or item.reason is not None:
            continue
        if item.sides is not None:
            where[Range(item.sides, item.lines)].add(item.id)
            continue
        for phrase in item.lines:
            length = tree.length(phrase)
            for sides in shapes:
                if sides[-1] == length:
                    where[Range(sides, (phrase,))].add(item.id)
    return where


def _id(halves: Id | None, begins: Iterator[list[int]]) -> CheckItem:
    """`halves`: None of what is no id; `begins`: per id in turn the phrases that it can begin with."""
    if halves is None:
        return CheckItem(None, reason=Reason.MALFORMED_ID)
    lines = tuple(next(begins))
    return CheckItem(halves, reason=None if lines else _NOT_FOUND, lines=lines)


_NOT_FOUND = Reason.NOT_FOUND
"""a constant: looking up an enum member takes as long as the rest of `_id`"""


def _canonical(box: _Box | None, limits: Limits) -> CheckItem:
    if box is None:
        return CheckItem(None, reason=Reason.NOT_A_BOX)
    box_sides, cells = box
    axes = tuple(
        sorted(range(len(box_sides)), key=lambda axis: (box_sides[axis], cells[geometry.unit_cells(box_sides)[axis]]))
    )
    sides = tuple(box_sides[axis] for axis in axes)
    if not limits.allow(sides):  # first: the rest is computed once per shape and cached
        return CheckItem(None, reason=Reason.LIMITS)
    words = tuple(cells[cell] for cell in _transposed(box_sides, axes))
    if any(len({words[cell] for cell in shell}) < len(shell) for shell in geometry.shells(sides)):
        return CheckItem(None, reason=Reason.SHELL)
    return CheckItem(None, sides, words)


@functools.lru_cache(geometry.SHAPES_KEPT)
def _transposed(sides: Sides, axes: tuple[int, ...]) -> list[int]:
    """Per cell of a box with its axes in that order: which cell of the box as it was it is."""
    order: list[int] = np.arange(math.prod(sides)).reshape(sides).transpose(axes).ravel().tolist()
    return order


def _box(grid: Grid) -> _Box | None:
    """The sides and words of nested lists; None where they are no box."""
    sides: list[int] = []
    level: list[Any] = [grid]
    while level and all(isinstance(part, list | tuple) for part in level):
        lengths = {len(part) for part in level}
        sides.append(next(iter(lengths)))
        if len(lengths) > 1 or sides[-1] < 2 or len(sides) > MOST_AXES or len(level) * sides[-1] > MOST_CELLS:
            return None
        level = list(itertools.chain.from_iterable(level))
    if len(sides) < 2 or not all(isinstance(word, str) for word in level):
        return None
    return tuple(sides), tuple(map(normalised, level))


def _orthos(tree: Tree, sides: Sides, boxes: Sequence[tuple[str, ...]]) -> list[tuple[Id, tuple[int, ...]] | None]:
    """Per box its id and the phrases along its leading axis; None where a line of it is no phrase."""
    words = np.array([[tree.number(word) for word in box] for box in boxes], np.int64)
    known = np.flatnonzero((words >= 0).all(axis=1))
    phrases, read = runs.every_line(tree, sides, words[known].astype(np.uint32))
    rows = np.ascontiguousarray(phrases[read, : runs.height(sides)])
    found: list[tuple[Id, tuple[int, ...]] | None] = [None] * len(boxes)
    for place, halves, row in zip(
        known[read].tolist(), runs.ids(tree, sides, rows).tolist(), rows.tolist(), strict=True
    ):
        found[place] = (halves[0], halves[1]), tuple(row)
    return found
