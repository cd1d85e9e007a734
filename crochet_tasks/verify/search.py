"""The part of `verify` that searches: comparing closures, and what batches have to wait on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from crochet_tasks.db.batches import Batch
from crochet_tasks.engine.geometry import Cells, Limits, Sides, slabs
from crochet_tasks.engine.growth import ROWS_AT_ONCE, Lengthening
from crochet_tasks.engine.phrases import Bools, PhraseIndex
from crochet_tasks.engine.window import window

Ids = npt.NDArray[np.uint64]
"""128-bit ids of orthos as two numbers each, shape (orthos, 2)."""

BUCKETS = 1024
EXAMPLES = 3


class Fingerprints:
    """Per shape a fingerprint of a set of orthos: per bucket of ids, their number and two sums."""

    def __init__(self) -> None:
        self._of: dict[Sides, npt.NDArray[np.uint64]] = {}

    def add(self, sides: Sides, ids: Ids) -> None:
        print_ = self._of.setdefault(sides, np.zeros((3, BUCKETS), np.uint64))
        bucket = buckets_of(ids)
        print_[0] += np.bincount(bucket, minlength=BUCKETS).astype(np.uint64)
        np.add.at(print_[1], bucket, ids[:, 0])
        np.add.at(print_[2], bucket, ids[:, 1])

    def count(self, sides: Sides) -> int:
        return int(self._of[sides][0].sum()) if sides in self._of else 0

    @property
    def total(self) -> int:
        return sum(map(self.count, self._of))

    def differing(self, other: Fingerprints) -> dict[Sides, int]:
        """The shapes whose sets differ, each with the first bucket in which they do."""
        nothing = np.zeros((3, BUCKETS), np.uint64)
        found: dict[Sides, int] = {}
        for sides in sorted({*self._of, *other._of}):
            differs = (self._of.get(sides, nothing) != other._of.get(sides, nothing)).any(axis=0)
            if differs.any():
                found[sides] = int(np.argmax(differs))
        return found


def buckets_of(ids: Ids) -> npt.NDArray[np.int64]:
    return (ids[:, 0] >> np.uint64(54)).astype(np.int64)


def differences(
    buckets: dict[Sides, int],
    stored: Iterable[tuple[Sides, Ids, Cells]],
    afresh: Iterable[tuple[Sides, Ids, Cells]],
    drawn: Callable[[Sides, Cells], str],
) -> dict[Sides, str]:
    """Per shape: a few orthos of one bucket that only one of the two sets contains, as text."""
    there, expected = _inside(buckets, stored), _inside(buckets, afresh)
    examples: dict[Sides, str] = {}
    for sides in buckets:
        parts = []
        for name, (these, cells), (those, _) in (
            ("missing", expected[sides], there[sides]),
            ("surplus", there[sides], expected[sides]),
        ):
            only = np.flatnonzero(~np.isin(these, those))[:EXAMPLES]
            parts += [f"; {name}: " + ", ".join(drawn(sides, cells[:, at]) for at in only)] if len(only) else []
        examples[sides] = "".join(parts) or "; some are stored more than once"
    return examples


def _inside(
    buckets: dict[Sides, int], orthos: Iterable[tuple[Sides, Ids, Cells]]
) -> dict[Sides, tuple[npt.NDArray[np.uint64], Cells]]:
    """The orthos in the bucket of their shape, as (first half of the id, words)."""
    kept: dict[Sides, list[tuple[Ids, Cells]]] = {sides: [] for sides in buckets}
    for sides, ids, cells in orthos:
        if sides in buckets:
            inside = np.flatnonzero(buckets_of(ids) == buckets[sides])
            kept[sides].append((ids[inside, 0], cells[:, inside].astype(np.uint32)))
    return {
        sides: (np.concatenate([ids for ids, _ in parts]), np.concatenate([cells for _, cells in parts], axis=1))
        if parts
        else (np.empty(0, np.uint64), np.empty((0, 0), np.uint32))
        for sides, parts in kept.items()
    }


def unguarded(index: PhraseIndex, batch: Batch, known: Bools, limits: Limits) -> npt.NDArray[np.int64]:
    """The phrases that a search of a batch consults and that it should therefore wait on, but does not.

    `index`: just the phrases of the version up to which the batch was searched; `known`: per phrase, whether the
    batch waits on it. A box of which some line has no continuation needs to wait on one such line only, on any.
    """
    view = window(index, 0, index.version)
    missing = np.zeros(index.nodes, np.bool_)
    cells: Cells = batch.cells.astype(index.cell_type, copy=False)
    for how in slabs(batch.sides, limits):
        guarded = np.zeros(cells.shape[1], np.bool_)
        for along in how.along:
            node = index.single.take(cells[along[0]])
            for cell in along[1:]:
                node = index.find(node, cells[cell])
            guarded |= known.take(node) & (index.after.count.take(node) == 0)
        kernel = Lengthening(view, how)
        rest: Cells = cells[:, ~guarded]
        for first in range(0, rest.shape[1], ROWS_AT_ONCE):
            piece: Cells = rest[:, first : first + ROWS_AT_ONCE]
            for _ in kernel.children(piece):
                pass
        missing |= kernel.consulted & ~known
    return np.flatnonzero(missing)
