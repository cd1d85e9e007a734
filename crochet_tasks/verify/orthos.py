"""The second part of `verify`: batches of orthos against the definition, wherever they are kept."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

from crochet_tasks.db import batches
from crochet_tasks.db.batches import Batch
from crochet_tasks.engine import geometry, runs
from crochet_tasks.engine.geometry import Sides, shape_name
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.search import closure
from crochet_tasks.engine.tree import Hashes
from crochet_tasks.errors import StoreCorrupt
from crochet_tasks.verify.context import Context, Problem
from crochet_tasks.verify.fingerprints import Fingerprints, differences

Shapes = Callable[[Iterable[Sides]], Iterable[Batch]]
"""reads all batches of some shapes"""


class Orthos:
    """Checks the batches of a corpus; memory holds those of one shape that overlap."""

    def __init__(self, context: Context, problem: Problem) -> None:
        self.context, self.tree, self.problem = context, context.tree, problem
        self.fingerprints = Fingerprints()

    def shape(self, sides: Sides, every: Iterable[Batch], *, waiting: bool) -> None:
        """Check all batches of a shape, in their order, and that no ortho is in them twice.

        `waiting`: also what they wait on.
        """
        overlapping = np.empty((0, runs.height(sides)), np.uint32)
        for batch in every:
            rows = self._rows(batch)
            if rows is None or not self._orthos(batch, rows, waiting=waiting):
                continue
            self.fingerprints.add(sides, runs.ids(self.tree, sides, rows))
            overlapping = runs.ascending(np.concatenate([_from(overlapping, rows[0]), rows]))
            twice = (overlapping[1:] == overlapping[:-1]).all(axis=1)
            if twice.any():
                first = self.context.drawn(overlapping[int(np.argmax(twice))])
                self.problem(
                    f"{shape_name(sides)}: {int(twice.sum())} orthos are stored more than once; "
                    f"{first} is in batch {batch.stored.id} and in one before it"
                )
                overlapping = overlapping[np.concatenate([[True], ~twice])]

    def _rows(self, batch: Batch) -> Ids | None:
        """The orthos of a batch in the numbering of the newest version; None where they cannot be read."""
        stored, name = batch.stored, _name(batch)
        if not self.context.bounds.allow(stored.sides):
            self.problem(f"{name} is beyond the limits of the corpus")
        if stored.numbering > self.context.version:
            self.problem(f"{name} has the phrase ids of version {stored.numbering}, there are {self.context.version}")
            return None
        try:
            rows = batches.unpacked(stored, batch.packed, self.tree)
        except StoreCorrupt as error:
            self.problem(str(error.context["problem"]))
            return None
        return self.tree.numbering(stored.numbering)[rows]

    def _orthos(self, batch: Batch, rows: Ids, *, waiting: bool) -> bool:
        """Check a batch's orthos against the definition; whether all their lines are phrases."""
        stored, tree = batch.stored, self.tree
        sides = stored.sides
        words = runs.words(tree, sides, rows)
        phrases, reads = runs.every_line(tree, sides, words)
        bad = ~reads
        bad[reads] = (tree.born[phrases[reads]] > stored.born).any(axis=1)
        self._report(batch, rows, bad, f"with a line that is no phrase of version {stored.born}")
        bad = np.zeros(len(rows), np.bool_)
        for shell in geometry.shells(sides):
            for one, other in itertools.combinations(shell, 2):
                bad |= words[:, one] == words[:, other]
        self._report(batch, rows, bad, "with a word twice in one shell")
        bad = np.zeros(len(rows), np.bool_)
        units = geometry.unit_cells(sides)
        for axis in range(1, len(sides)):
            if sides[axis] == sides[axis - 1]:
                bad |= words[:, units[axis]] < words[:, units[axis - 1]]
        self._report(batch, rows, bad, "not in canonical form")
        ends = [runs.key(runs.text(tree, sides, rows[end])) for end in (0, -1)]
        if ends != [stored.first, stored.last]:
            self.problem(f"{_name(batch)} is recorded from '{stored.first}' to '{stored.last}', it is {ends}")
        if waiting:
            self._remediation(batch, np.unique(phrases[reads]))
        return bool(reads.all())

    def _report(self, batch: Batch, rows: Ids, bad: npt.NDArray[np.bool_], how: str) -> None:
        if bad.any():
            first = self.context.drawn(rows[int(np.argmax(bad))])
            self.problem(f"{_name(batch)}: {int(bad.sum())} orthos {how}: {first}")

    def _remediation(self, batch: Batch, lines: Ids) -> None:
        """Whether a batch waits on all its lines, and on nothing else."""
        if batch.phrases is None:
            self.problem(f"{_name(batch)} waits on nothing: it has no remediation")
            return
        numbering = self.tree.numbering(batch.stored.numbering)
        try:
            waited = numbering[runs.unpack_set(batch.phrases, len(numbering))]
        except runs.DamagedRun as error:
            self.problem(f"the remediation of {_name(batch)} is damaged ({error})")
            return
        for one, other, what in (
            (lines, waited, "does not wait on {} of its lines"),
            (waited, lines, "waits on {} phrases that are no lines of it"),
        ):
            only = np.setdiff1d(one, other, assume_unique=True)
            if len(only):
                first = " ".join(self.tree.phrase(int(only[0])))
                self.problem(f"{_name(batch)} {what.format(len(only))}, such as '{first}'")

    # ── everything again ────────────────────────────────────────────────────────────────────

    def closure(self, stored: Shapes) -> int:
        """Search everything again and compare it with the batches that were checked; how many orthos there are."""
        afresh = Fingerprints()
        for sides, ids, _ in self._again():
            afresh.add(sides, ids)
        buckets = self.fingerprints.differing(afresh)
        if buckets:
            examples = differences(buckets, self._stored(stored(buckets)), self._again(), self.context.drawn)
            for sides in buckets:
                there, expected = self.fingerprints.count(sides), afresh.count(sides)
                self.problem(f"{shape_name(sides)}: {there} orthos stored, {expected} exist{examples[sides]}")
        return afresh.total

    def _stored(self, every: Iterable[Batch]) -> Iterator[tuple[Sides, Hashes, Ids]]:
        for batch in every:
            rows = self._rows(batch)
            if rows is not None:
                yield batch.stored.sides, runs.ids(self.tree, batch.stored.sides, rows), rows

    def _again(self) -> Iterator[tuple[Sides, Hashes, Ids]]:
        for sides, rows in closure(self.tree, self.context.bounds):
            yield sides, runs.ids(self.tree, sides, rows), rows


def _name(batch: Batch) -> str:
    return f"batch {batch.stored.id} ({shape_name(batch.stored.sides)})"


def _from(rows: Ids, row: Ids) -> Ids:
    """Those of these rows, ascending, that do not come before a row."""
    return rows[bisect.bisect_left(range(len(rows)), tuple(row), key=lambda at: tuple(rows[at])) :]
