"""Is this ortho stored? Boxes and ids as people give them, what they come to, and the exact answer."""

from __future__ import annotations

import enum
import functools
import hashlib
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from sqlalchemy import Connection

from crochet_tasks.engine import geometry
from crochet_tasks.engine.geometry import Limits, Sides
from crochet_tasks.engine.phrases import Bools, Ints, Longs, PhraseIndex
from crochet_tasks.engine.text import normalised
from crochet_tasks.finding_store import Halves, Ref, Sorted, Store
from crochet_tasks.request_errors import InvalidOrthoId, InvalidRequest

Grid: TypeAlias = "Sequence[str | Grid]"
"""A box as nested lists of words, one level per axis, the axes in any order."""

_Box: TypeAlias = "tuple[Sides, tuple[str, ...]]"
"""sides and words as they were given"""

MOST_AXES, MOST_CELLS = 8, 1024
CELLS_AT_ONCE = 1 << 16
"""of all boxes of a question: 1000 of them may have 64 each"""


class Reason(enum.StrEnum):
    """Why what was asked for is not stored."""

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
    """no such ortho is stored; if it was given as a box it is one, and has not been found yet"""


class Asked(NamedTuple):
    """What an item of a question comes to: an id in two halves, unless it can have none."""

    id: tuple[int, int] | None
    sides: Sides | None = None
    words: tuple[str, ...] | None = None
    """in canonical form, row-major"""
    reason: Reason | None = None
    """why it is no ortho; None for an id, as far as is known without looking"""


def halves_of(text: str) -> tuple[int, int]:
    """An id in two halves; raises InvalidOrthoId."""
    if not re.fullmatch(r"[0-9a-f]{32}", text):
        raise InvalidOrthoId(id=text[:64])
    return int(text[:16], 16), int(text[16:], 16)


def read(items: Sequence[str | Grid], index: PhraseIndex, version: int, limits: Limits) -> list[Asked]:
    """What each item comes to at a version. Boxes of one shape are held against the phrases all at once.

    Raises InvalidRequest where they have more cells than are looked at for one question.
    """
    boxes = [None if isinstance(item, str) else _box(item) for item in items]
    cells = sum(len(box[1]) for box in boxes if box is not None)
    if cells > CELLS_AT_ONCE:
        raise InvalidRequest(problem=f"the boxes have {cells} cells together; ask for at most {CELLS_AT_ONCE} at once")
    asked = [_read(item, box, limits) for item, box in zip(items, boxes, strict=True)]
    by_sides: dict[Sides, list[int]] = defaultdict(list)
    for place, one in enumerate(asked):
        if one.sides is not None:
            by_sides[one.sides].append(place)
    for sides, places in by_sides.items():
        alike = [words for place in places if (words := asked[place].words) is not None]
        reads = lines_read(index, version, sides, alike)
        for place, halves, good in zip(places, _ids(sides, alike), reads.tolist(), strict=True):
            asked[place] = asked[place]._replace(id=halves, reason=None if good else Reason.LINE)
    return asked


def _read(item: str | Grid, box: _Box | None, limits: Limits) -> Asked:
    if isinstance(item, str):
        try:
            return Asked(halves_of(item))
        except InvalidOrthoId:
            return Asked(None, reason=Reason.MALFORMED_ID)
    if box is None:
        return Asked(None, reason=Reason.NOT_A_BOX)
    given, cells = box
    axes = tuple(sorted(range(len(given)), key=lambda axis: (given[axis], cells[geometry.unit_cells(given)[axis]])))
    sides = tuple(given[axis] for axis in axes)
    if not limits.allow(sides):  # first: what follows is worked out once per shape and kept
        return Asked(None, reason=Reason.LIMITS)
    words = tuple(cells[cell] for cell in _transposed(given, axes))
    if any(len({words[cell] for cell in shell}) < len(shell) for shell in geometry.shells(sides)):
        return Asked(None, reason=Reason.SHELL)
    return Asked(None, sides, words)


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


def lines_read(index: PhraseIndex, version: int, sides: Sides, boxes: Sequence[tuple[str, ...]]) -> Bools:
    """Per box: whether every line of it is a phrase born at `version` or before."""
    words = np.array([[index.number(word) for word in box] for box in boxes], np.int64)
    reads: Bools = np.all(words >= 0, axis=1)
    cells = np.maximum(words, 0).reshape(-1, *sides)
    for axis, side in enumerate(sides, start=1):
        node: Ints = np.zeros(words.size // side, np.int32)
        for step in range(side):  # all lines along the axis at once
            node = index.find(node, cells.take(step, axis).ravel())
            good = (node >= 0) & (node < index.limits[version])
            reads &= good.reshape(len(boxes), -1).all(axis=1)
            node = np.maximum(node, 0)
    return reads


def _ids(sides: Sides, boxes: Sequence[tuple[str, ...]]) -> list[tuple[int, int]]:
    """Ids of boxes in canonical form, also of words that the corpus does not know."""
    words = {word: place for place, word in enumerate(dict.fromkeys(itertools.chain.from_iterable(boxes)))}
    # As PhraseIndex.hashes; half a surrogate, which is in no text, has no UTF-8 form but must not be an error.
    digests = b"".join(hashlib.blake2b(w.encode("utf-8", "surrogatepass"), digest_size=16).digest() for w in words)
    hashes = np.frombuffer(digests, "<u8").reshape(-1, 2).T.copy()
    cells = np.array([[words[word] for word in box] for box in boxes], np.int64).T
    return [(first, second) for first, second in geometry.ids(sides, cells, hashes).tolist()]


@dataclass(frozen=True)
class Place:
    """Where an ortho is stored."""

    batch: Sorted
    place: int


def stored(
    store: Store, connection: Connection, refs: Sequence[Ref], index: PhraseIndex, ids: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], Place]:
    """Which of these ids are stored in these batches, and where. Exact; stops when all have been found."""
    wanted = np.array(sorted(set(ids)), np.uint64).reshape(-1, 2)
    found: dict[tuple[int, int], Place] = {}
    likely: list[_Likely] = []
    seen = np.zeros(len(wanted), np.bool_)
    for _, batch in store.sorted(connection, refs, index) if len(wanted) else ():
        some = _likely(batch, wanted)
        if len(some.asked):
            likely.append(some)
            seen[some.asked] = True
            if seen.all():
                found |= _same(likely, wanted, index.hashes)
                if len(found) == len(wanted):
                    return found
                likely, seen = [], np.array([(first, second) in found for first, second in wanted.tolist()])
    return found | _same(likely, wanted, index.hashes)


class _Likely(NamedTuple):
    """Places in a batch whose ids have the first halves of ids that are asked for; which those are."""

    batch: Sorted
    asked: Longs
    places: Longs


def _likely(batch: Sorted, wanted: Halves) -> _Likely:
    begin = np.searchsorted(batch.first, wanted[:, 0])
    asked = np.flatnonzero(batch.first[np.minimum(begin, batch.size - 1)] == wanted[:, 0])
    places = begin[asked]
    every = [(asked, places)]
    while len(asked):  # first halves may be equal, whole ids are not
        more = batch.first[np.minimum(places + 1, batch.size - 1)] == wanted[asked, 0]
        more &= places + 1 < batch.size
        asked, places = asked[more], places[more] + 1
        every.append((asked, places))
    return _Likely(batch, *map(np.concatenate, zip(*every, strict=True)))


def _same(likely: list[_Likely], wanted: Halves, hashes: Halves) -> dict[tuple[int, int], Place]:
    """Those of them whose whole ids are asked for; worked out per shape, as most batches hold few of them."""
    found = {}
    for sides, group in itertools.groupby(sorted(likely, key=_sides_of), _sides_of):
        of_shape = list(group)
        cells = np.concatenate([each.batch.cells[:, each.places] for each in of_shape], axis=1)
        asked = np.concatenate([each.asked for each in of_shape])
        same = (geometry.ids(sides, cells, hashes)[:, 1] == wanted[asked, 1]).tolist()
        places = ((each.batch, place) for each in of_shape for place in each.places.tolist())
        for (first, second), place, is_same in zip(wanted[asked].tolist(), places, same, strict=True):
            if is_same:
                found[first, second] = Place(*place)
    return found


def _sides_of(each: _Likely) -> Sides:
    return each.batch.sides
