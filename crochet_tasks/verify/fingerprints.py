"""Comparing two sets of orthos that are too large for memory: the part of `verify` that searches again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from crochet_tasks.engine import runs
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.tree import Hashes

BUCKETS = 1024
EXAMPLES = 3


class Fingerprints:
    """Per shape a fingerprint of a set of orthos: per bucket of ids, their number and two sums."""

    def __init__(self) -> None:
        self._of: dict[Sides, npt.NDArray[np.uint64]] = {}

    def add(self, sides: Sides, ids: Hashes) -> None:
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


def buckets_of(ids: Hashes) -> npt.NDArray[np.int64]:
    return (ids[:, 1] >> np.uint64(54)).astype(np.int64)


def differences(
    buckets: dict[Sides, int],
    stored: Iterable[tuple[Sides, Hashes, Ids]],
    afresh: Iterable[tuple[Sides, Hashes, Ids]],
    drawn: Callable[[Ids], str],
) -> dict[Sides, str]:
    """Per shape: a few orthos of one bucket that only one of the two sets contains, as text."""
    there, expected = _inside(buckets, stored), _inside(buckets, afresh)
    examples: dict[Sides, str] = {}
    for sides in buckets:
        parts = []
        for name, (these, rows), (those, _) in (
            ("missing", expected[sides], there[sides]),
            ("surplus", there[sides], expected[sides]),
        ):
            only = np.flatnonzero(~np.isin(these, those))[:EXAMPLES]
            parts += [f"; {name}: " + ", ".join(drawn(rows[at]) for at in only)] if len(only) else []
        examples[sides] = "".join(parts) or "; some are stored more than once"
    return examples


def _inside(buckets: dict[Sides, int], orthos: Iterable[tuple[Sides, Hashes, Ids]]) -> dict[Sides, tuple[Hashes, Ids]]:
    """The orthos in the bucket of their shape, as (second half of the id, lines)."""
    kept: dict[Sides, list[tuple[Hashes, Ids]]] = {sides: [] for sides in buckets}
    for sides, ids, rows in orthos:
        if sides in buckets:
            inside = np.flatnonzero(buckets_of(ids) == buckets[sides])
            kept[sides].append((ids[inside, 1], rows[inside]))
    return {
        sides: (np.concatenate([ids for ids, _ in parts]), np.concatenate([rows for _, rows in parts]))
        if parts
        else (np.empty(0, np.uint64), np.empty((0, runs.height(sides)), np.uint32))
        for sides, parts in kept.items()
    }
