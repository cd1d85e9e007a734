"""Checks whether orthos are stored: parses the ids and boxes of a request and looks them up."""

from __future__ import annotations

import enum
import functools
import hashlib
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from crochet_tasks.db import Connection
from crochet_tasks.engine import geometry
from crochet_tasks.engine.geometry import Halves, Limits, Sides
from crochet_tasks.engine.phrases import Bools, Ints, Longs, PhraseIndex
from crochet_tasks.engine.text import normalised
from crochet_tasks.errors import InvalidOrthoId, InvalidRequest
from crochet_tasks.query.batches_cache import Ref, Sorted, Store
from crochet_tasks.query.runs import NO_RUNS, Runs

Grid: TypeAlias = "Sequence[str | Grid]"
"""A box as nested lists of words, one level per axis, the axes in any order."""

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

    id: str | None
    sides: Sides | None = None
    words: tuple[str, ...] | None = None
    """in canonical form, row-major"""
    reason: Reason | None = None
    """why it is no ortho; None for an id that has to be looked up"""


_is_id = re.compile(r"[0-9a-f]{32}").fullmatch


def halves_of(text: str) -> Halves:
    """An id in two halves, shape (1, 2); raises InvalidOrthoId."""
    if not _is_id(text):
        raise InvalidOrthoId(id=text[:64])
    return halves([text])


def halves(ids: Sequence[str]) -> Halves:
    """Ids, each of 32 hexadecimal digits, in two halves: shape (ids, 2). In the same order, if any."""
    return np.frombuffer(bytes.fromhex("".join(ids)), ">u8").astype(np.uint64).reshape(-1, 2)


def read(items: Sequence[str | Grid], index: PhraseIndex, version: int, limits: Limits) -> list[CheckItem]:
    """Parse the items of a check at a version. All boxes of one shape are compared with the phrases at once.

    Raises InvalidRequest if the boxes have more than CELLS_AT_ONCE cells.
    """
    boxes = [None if isinstance(item, str) else _box(item) for item in items]
    cells = sum(len(box[1]) for box in boxes if box is not None)
    if cells > CELLS_AT_ONCE:
        raise InvalidRequest(problem=f"the boxes have {cells} cells in total; check at most {CELLS_AT_ONCE} at once")
    parsed = [_read(item, box, limits) for item, box in zip(items, boxes, strict=True)]
    by_sides: dict[Sides, list[int]] = defaultdict(list)
    for place, item in enumerate(parsed):
        if item.sides is not None:
            by_sides[item.sides].append(place)
    for sides, places in by_sides.items():
        boxes_of_shape = [words for place in places if (words := parsed[place].words) is not None]
        reads = lines_read(index, version, sides, boxes_of_shape)
        for place, name, good in zip(places, _ids(sides, boxes_of_shape), reads.tolist(), strict=True):
            parsed[place] = parsed[place]._replace(id=name, reason=None if good else Reason.LINE)
    return parsed


def _read(item: str | Grid, box: _Box | None, limits: Limits) -> CheckItem:
    if isinstance(item, str):
        return CheckItem(item) if _is_id(item) else CheckItem(None, reason=Reason.MALFORMED_ID)
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


def _ids(sides: Sides, boxes: Sequence[tuple[str, ...]]) -> list[str]:
    """Ids of boxes in canonical form, also of words that the corpus does not know."""
    words = {word: place for place, word in enumerate(dict.fromkeys(itertools.chain.from_iterable(boxes)))}
    # As PhraseIndex.hashes; half a surrogate, which is in no text, has no UTF-8 form but must not be an error.
    digests = b"".join(hashlib.blake2b(w.encode("utf-8", "surrogatepass"), digest_size=16).digest() for w in words)
    hashes = np.frombuffer(digests, "<u8").reshape(-1, 2).T.copy()
    cells = np.array([[words[word] for word in box] for box in boxes], np.int64).T
    return geometry.id_texts(geometry.ids(sides, cells, hashes))


class Found(NamedTuple):
    """Where ids are stored: per id the number of its batch and its place there; -1 where it is nowhere."""

    batches: list[Sorted]
    batch: Longs
    place: Longs

    @property
    def there(self) -> Bools:
        return self.batch >= 0


def stored(
    store: Store, connection: Connection, refs: Sequence[Ref], index: PhraseIndex, ids: Halves, runs: Runs = NO_RUNS
) -> Found:
    """Which of these ids (shape (ids, 2)) are stored in these batches. Exact; stops when all have been found.

    Looks up all ids in the runs first, then those not found there in each batch that is in no run.
    """
    found = Found([], np.full(len(ids), -1), np.full(len(ids), -1))
    listed = {ref.id for ref in refs}
    by_batch = {each.ref.id: each for run in runs.every for each in run.find(ids) if each.ref.id in listed}
    batches = store.sorted(connection, [each.ref for each in by_batch.values()], index)
    _verify(found, [_Candidates(batch, *by_batch[ref.id][1:]) for ref, batch in batches], ids, index.hashes)
    left = np.flatnonzero(~found.there)
    candidates: list[_Candidates] = []
    missing = np.ones(len(left), np.bool_)
    first = ids[left, 0]
    for _, batch in store.sorted(connection, runs.lacks(refs), index) if len(left) else ():
        # Most batches have none of the ids, so a batch without a hit costs no more than this.
        begin = batch.first.searchsorted(first)
        hit = batch.first.take(begin, mode="clip") == first
        if not hit.any():
            continue
        candidates.append(_candidates(batch, ids, left[hit], begin[hit]))
        missing &= ~hit
        if not missing.any():
            _verify(found, candidates, ids, index.hashes)
            candidates, missing = [], ~found.there[left]
            if not missing.any():
                return found
    _verify(found, candidates, ids, index.hashes)
    return found


def in_runs(runs: Runs, refs: Sequence[Ref], ids: Halves) -> Bools:
    """Per id whether the runs have its first 32 bits in one of these batches. Reads nothing; true of 1 in 500 others
    where the runs hold 8 million orthos, which is as many as memory has room for by default.
    """
    there = np.zeros(len(ids), np.bool_)
    listed = {ref.id for ref in refs}
    for candidate in itertools.chain.from_iterable(run.find(ids) for run in runs.every):
        if candidate.ref.id in listed:
            there[candidate.queried] = True
    return there


class _Candidates(NamedTuple):
    """Places in a batch that may hold ids of a lookup; `queried`: which ids."""

    batch: Sorted
    queried: Longs
    places: Longs


def _candidates(batch: Sorted, ids: Halves, queried: Longs, places: Longs) -> _Candidates:
    """`places`: the first with the first halves of those ids. They may be equal, whole ids are not."""
    every = [(queried, places)]
    while batch.twins and len(queried):
        more = batch.first.take(places + 1, mode="clip") == ids[queried, 0]
        more &= places + 1 < batch.size
        queried, places = queried[more], places[more] + 1
        every.append((queried, places))
    return _Candidates(batch, *map(np.concatenate, zip(*every, strict=True)))


def _verify(found: Found, candidates: list[_Candidates], ids: Halves, hashes: Halves) -> None:
    """Record in `found` the candidates whose whole ids match; computed per shape, as most batches have few."""
    for sides, group in itertools.groupby(sorted(candidates, key=_sides_of), _sides_of):
        of_shape = list(group)
        cells = np.concatenate([each.batch.cells[:, each.places] for each in of_shape], axis=1)
        queried = np.concatenate([each.queried for each in of_shape])
        place = np.concatenate([each.places for each in of_shape])
        batch = np.repeat(np.arange(len(of_shape)), [len(each.places) for each in of_shape]) + len(found.batches)
        same = (geometry.ids(sides, cells, hashes) == ids[queried]).all(axis=1)
        found.batch[queried[same]], found.place[queried[same]] = batch[same], place[same]
        found.batches.extend(each.batch for each in of_shape)


def _sides_of(each: _Candidates) -> Sides:
    return each.batch.sides
