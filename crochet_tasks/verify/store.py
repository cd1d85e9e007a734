"""The fsck: compares what the store contains with what the domain rules require.

It reads one snapshot, so searches may run meanwhile: what open work will find is not reported as missing.
Memory holds the phrases, and the batches of one shape that overlap, never all orthos.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from crochet_tasks.db import Connection, batches, sessions, tally, verification, windows
from crochet_tasks.db.batches import Batch
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine import geometry, runs
from crochet_tasks.engine.geometry import Sides, shape_name
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.search import closure
from crochet_tasks.engine.tree import Hashes
from crochet_tasks.errors import StoreCorrupt
from crochet_tasks.verify.context import Context, read_context
from crochet_tasks.verify.fingerprints import Fingerprints, differences

MOST_PROBLEMS = 100

Report = Callable[[str], None]


class Problems:
    """The first MOST_PROBLEMS problems, and the number of the others."""

    def __init__(self) -> None:
        self._first: list[str] = []
        self._more = 0

    def __call__(self, problem: str) -> None:
        if len(self._first) < MOST_PROBLEMS:
            self._first.append(problem)
        else:
            self._more += 1

    def lines(self) -> list[str]:
        return [*self._first, f"and {self._more} more problems"] if self._more else self._first


def verify(process: Process, corpus: Corpus, *, closure: bool, progress: Report | None = None) -> list[str]:
    """What is wrong with a corpus in the store, one problem per entry, in words; empty: nothing is.

    `closure` searches everything again and compares, which takes as long as the first search did. It is left
    out, and `progress` says so, while work is open: then it is not known yet what the store must hold.
    """
    report = progress or (lambda _: None)
    problem = Problems()
    with process.database.snapshot() as connection:
        # Searching again leaves the connection idle for longer than a forgotten transaction may be.
        sessions.may_idle(connection)
        context = read_context(connection, corpus, problem)
        if context is None:
            report("the texts and phrases are damaged: what depends on them was not checked")
            return problem.lines()
        report(f"checked the phrases of version {context.version}: {context.index.nodes - 1}")
        store = _Store(connection, corpus, context, problem, report)
        store.counters()
        store.windows()
        for sides in store.stored:
            store.shape(sides)
        if closure:
            for version, before, index in context.versions():
                context.compare_text(connection, problem, version, before, index)
            store.closure()
    return problem.lines()


class _Store:
    """The checks of what depends on the phrases: batches, remediations, windows, counters."""

    def __init__(
        self, connection: Connection, corpus: Corpus, context: Context, problem: Callable[[str], None], report: Report
    ) -> None:
        self.connection = connection
        self.corpus = corpus
        self.context = context
        self.tree = context.tree
        self.problem = problem
        self.report = report
        self.stored = verification.stored_shapes(connection, corpus.id)
        self.fingerprints = Fingerprints()

    # ── without reading batches ─────────────────────────────────────────────────────────────

    def counters(self) -> None:
        counted = tally.counted(self.connection, self.corpus.id)
        for sides in sorted({*counted, *self.stored}):
            recorded = tuple(counted.get(sides, (0, 0)))
            there = self.stored.get(sides, (0, 0))
            if recorded != there:
                self.problem(
                    f"{shape_name(sides)}: the counters say {recorded[0]} orthos in {recorded[1]} batches, "
                    f"but {there[0]} in {there[1]} are stored"
                )

    def windows(self) -> None:
        """Whether the windows cover every version once, but for those whose remediations are still to be done."""
        reached = 0
        for window in windows.every(self.connection, self.corpus.id):
            if window.since != reached:
                self.problem(f"the window of version {window.version} begins after {window.since}, not {reached}")
            reached = window.version
        pending = verification.pending_remediations(self.connection, self.corpus.id)
        if sorted({*range(1, reached + 1), *pending}) != list(range(1, self.context.version + 1)):
            self.problem(f"the windows reach to version {reached} of {self.context.version}, and no work leads on")

    # ── batches ─────────────────────────────────────────────────────────────────────────────

    def shape(self, sides: Sides) -> None:
        """Check all batches of a shape, and that no ortho is in them twice."""
        count, number = self.stored[sides]
        overlapping = np.empty((0, runs.height(sides)), np.uint32)
        for batch in batches.every(self.connection, self.corpus.id, sides):
            rows = self._rows(batch)
            if rows is None or not self._orthos(batch, rows):
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
        self.report(f"checked {shape_name(sides)}: {count} orthos in {number} batches")

    def _rows(self, batch: Batch) -> Ids | None:
        """The orthos of a batch in the numbering of the newest version; None where they cannot be read."""
        stored, name = batch.stored, _name(batch)
        if not self.corpus.limits.allow(stored.sides):
            self.problem(f"{name} is beyond the limits of the corpus")
        if stored.numbering > self.context.version:
            self.problem(f"{name} has the phrase ids of version {stored.numbering}, there are {self.context.version}")
            return None
        try:
            rows = batches.unpacked(stored, batch.packed, self.tree)
        except StoreCorrupt as error:
            self.problem(str(error))
            return None
        return self.tree.numbering(stored.numbering)[rows]

    def _orthos(self, batch: Batch, rows: Ids) -> bool:
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

    def closure(self) -> None:
        left = verification.unfinished(self.connection, self.corpus.id) + self.context.waiting_texts
        if left:
            self.report(f"the closure cannot be compared yet: {left} pieces of work are open, failed or dropped")
            return
        afresh = Fingerprints()
        for sides, ids, _ in self._again():
            afresh.add(sides, ids)
        self.report(f"searched everything again: {afresh.total} orthos")
        buckets = self.fingerprints.differing(afresh)
        if buckets:
            examples = differences(buckets, self._stored(buckets), self._again(), self.context.drawn)
            for sides in buckets:
                there, expected = self.fingerprints.count(sides), afresh.count(sides)
                self.problem(f"{shape_name(sides)}: {there} orthos stored, {expected} exist{examples[sides]}")

    def _stored(self, shapes: dict[Sides, int]) -> Iterator[tuple[Sides, Hashes, Ids]]:
        for sides in shapes:
            for batch in batches.every(self.connection, self.corpus.id, sides):
                rows = self._rows(batch)
                if rows is not None:
                    yield sides, runs.ids(self.tree, sides, rows), rows

    def _again(self) -> Iterator[tuple[Sides, Hashes, Ids]]:
        for sides, rows in closure(self.tree, self.corpus.limits):
            yield sides, runs.ids(self.tree, sides, rows), rows


def _name(batch: Batch) -> str:
    return f"batch {batch.stored.id} ({shape_name(batch.stored.sides)})"


def _from(rows: Ids, row: Ids) -> Ids:
    """Those of these rows, ascending, that do not come before a row."""
    return rows[bisect.bisect_left(range(len(rows)), tuple(row), key=lambda at: tuple(rows[at])) :]
