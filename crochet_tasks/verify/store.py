"""The fsck: compares what the store contains with what the domain rules require.

It reads one snapshot, so searches may run meanwhile: what open work will find is not reported as missing.
Memory holds the phrase index, a batch and a few million ids at a time, never all orthos.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from crochet_tasks.db import Connection, batches, sessions, tally, verification
from crochet_tasks.db.batches import Batch
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.db.verification import OpenGrow
from crochet_tasks.engine import geometry
from crochet_tasks.engine.closure import closure
from crochet_tasks.engine.geometry import Cells, Sides, shape_name
from crochet_tasks.engine.phrases import Bools, Ints, PhraseIndex
from crochet_tasks.verify.context import Context, line_of, read_context
from crochet_tasks.verify.search import Fingerprints, Ids, differences, unguarded

MOST_PROBLEMS = 100
IDS_AT_ONCE = 2_000_000  # 32 MB, and as much again to sort them
BATCHES_AT_ONCE = 4

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
        store.work()
        for sides in store.stored:
            store.shape(sides)
        if closure:
            store.texts_and_waits()
            store.closure()
    return problem.lines()


class _Store:
    """The checks of what depends on the phrases: batches, remediations, work, counters."""

    def __init__(
        self, connection: Connection, corpus: Corpus, context: Context, problem: Callable[[str], None], report: Report
    ) -> None:
        self.connection = connection
        self.corpus = corpus
        self.context = context
        self.problem = problem
        self.report = report
        self.stored = verification.stored_shapes(connection, corpus.id)
        self.fingerprints = Fingerprints()
        self.open = verification.open_grows(connection, corpus.id)
        self.last_continued = self._last_continued()

    def _last_continued(self) -> Ints:
        """Per phrase: the last version that continued it and whose remediations are done; 0 where there is none."""
        context = self.context
        pending = verification.pending_remediations(self.connection, self.corpus.id)
        counts = np.ones(context.version + 2, np.bool_)
        counts[[version for version in pending if version <= context.version]] = False
        counts[context.version + 1 :] = False
        last = np.zeros(context.index.nodes, np.int32)
        children = np.flatnonzero(counts[context.born[1:]]) + 1
        np.maximum.at(last, context.index.parent[children], context.born[children])
        return last

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

    def work(self) -> None:
        known = verification.batch_ids(self.connection, self.corpus.id)
        for subject, item in self.open.items():
            if subject not in known:
                self.problem(f"work is open for batch {subject}, which does not exist")
            elif item.version > self.context.version:
                self.problem(
                    f"batch {subject}: its work waits for version {item.version}, there are {self.context.version}"
                )

    # ── batches ─────────────────────────────────────────────────────────────────────────────

    def shape(self, sides: Sides) -> None:
        """Check all batches of a shape, and that no ortho is in them twice."""
        count, number = self.stored[sides]
        passes = -(-count // IDS_AT_ONCE)
        for this in range(passes):
            ids: list[Ids] = []
            owners: list[int] = []
            for batch in batches.every(self.connection, self.corpus.id, sides):
                if not this:
                    self._remediation(batch)
                if this and not self._decodes(batch):
                    continue
                if not this and not self._orthos(batch):
                    continue
                hashed = geometry.ids(sides, batch.cells, self.context.index.hashes)
                if not this:
                    self.fingerprints.add(sides, hashed)
                ids.append(hashed[hashed[:, 0] % np.uint64(passes) == this])
                owners.append(batch.id)
            self._twice(sides, ids, owners)
        self.report(f"checked {shape_name(sides)}: {count} orthos in {number} batches")

    def _decodes(self, batch: Batch) -> bool:
        return int(batch.cells.max()) < len(self.context.index.vocabulary)

    def _orthos(self, batch: Batch) -> bool:
        """Check a batch's orthos against the definition; whether their words are known at all."""
        sides, cells, index = batch.sides, batch.cells, self.context.index
        name = f"batch {batch.id} ({shape_name(sides)})"
        if not self.corpus.limits.allow(sides):
            self.problem(f"{name} is beyond the limits of the corpus")
        if not self._decodes(batch):
            self.problem(f"{name} holds word id {int(cells.max())}, but there are {len(index.vocabulary)} words")
            return False
        if batch.born > self.context.version:
            self.problem(f"{name} was born in version {batch.born}, but there are {self.context.version}")
        high = index.limits[min(batch.born, self.context.version)]
        bad = np.zeros(cells.shape[1], np.bool_)
        for line in geometry.lines(sides):
            node = line_of(index, cells, line)
            bad |= (node < 0) | (node >= high)
        self._report(batch, bad, f"with a line that is no phrase of version {batch.born}")
        bad = np.zeros(cells.shape[1], np.bool_)
        for shell in geometry.shells(sides):
            for place, cell in enumerate(shell):
                for other in shell[:place]:
                    bad |= cells[cell] == cells[other]
        self._report(batch, bad, "with a word twice in one shell")
        bad = np.zeros(cells.shape[1], np.bool_)
        units = geometry.unit_cells(sides)
        for axis in range(1, len(sides)):
            if sides[axis] == sides[axis - 1]:
                bad |= index.rank[cells[units[axis]]] < index.rank[cells[units[axis - 1]]]
        self._report(batch, bad, "not in canonical form")
        return True

    def _report(self, batch: Batch, bad: Bools, how: str) -> None:
        if bad.any():
            first = self.context.drawn(batch.sides, batch.cells[:, int(np.argmax(bad))])
            self.problem(f"batch {batch.id} ({shape_name(batch.sides)}): {int(bad.sum())} orthos {how}: {first}")

    def _twice(self, sides: Sides, ids: list[Ids], owners: list[int]) -> None:
        """Report the ids that occur more than once."""
        if not ids:
            return
        halves = np.concatenate(ids)
        ends = np.cumsum([len(part) for part in ids])
        order = np.argsort(halves[:, 0], kind="stable")
        ordered = halves[order, 0]
        same = np.flatnonzero(ordered[1:] == ordered[:-1])
        same = same[halves[order[same], 1] == halves[order[same + 1], 1]]
        if len(same):
            places = order[[same[0], same[0] + 1]]
            one, other = (owners[int(np.searchsorted(ends, place, side="right"))] for place in places)
            where = f"twice in batch {one}" if one == other else f"in batch {one} and in batch {other}"
            name = geometry.id_text(halves[places[0]])
            self.problem(f"{shape_name(sides)}: {len(same)} orthos are stored more than once; {name} is {where}")

    # ── remediations ────────────────────────────────────────────────────────────────────────

    def _remediation(self, batch: Batch) -> None:
        name, item = f"batch {batch.id} ({shape_name(batch.sides)})", self.open.get(batch.id)
        count = batch.cells.shape[1]
        if item is not None and (item.sides, item.size) != (batch.sides, count):
            self.problem(f"{name}: its work is for {item.size} of {shape_name(item.sides)}, but it holds {count}")
        if item is not None and item.since != batch.searched:
            self.problem(f"{name}: it was searched up to version {batch.searched}, its work says {item.since}")
        if batch.phrases is None:
            if item is None:
                self.problem(f"{name} waits on nothing: it has neither a remediation nor open work")
            return
        if not self._phrases(name, batch.phrases, batch.searched):
            return
        if item is None and len(batch.phrases) and int(self.last_continued[batch.phrases].max()) > batch.searched:
            late = int(batch.phrases[np.argmax(self.last_continued[batch.phrases])])
            self.problem(
                f"{name} is due and has no open work: it waits on phrase {late} ({self._words(late)}), which version "
                f"{self.last_continued[late]} continued; it was searched up to {batch.searched}"
            )
        if item is not None and item.since:
            self._window(name, item, batch.phrases)

    def _phrases(self, name: str, phrases: Ints, searched: int) -> bool:
        if searched > self.context.version:
            self.problem(f"{name} was searched up to version {searched}, but there are {self.context.version}")
            return False
        if len(phrases) and (phrases[0] < 1 or phrases.max() >= self.context.index.limits[searched]):
            self.problem(f"{name} waits on phrases that version {searched} does not have")
            return False
        if (np.diff(phrases) <= 0).any():
            self.problem(f"{name} waits on phrases that are not ascending, each once")
            return False
        return True

    def _window(self, name: str, item: OpenGrow, phrases: Ints) -> None:
        """A batch is searched again only from the version on that made it due: none before may have done so."""
        limits = self.context.index.limits
        skipped = slice(limits[min(item.since, self.context.version)], limits[min(item.version, len(limits)) - 1])
        if np.isin(phrases, self.context.index.parent[skipped]).any():
            self.problem(f"{name}: its work begins with version {item.version}, but an earlier one made it due")

    def _words(self, phrase: int) -> str:
        return " ".join(self.context.index.phrase(phrase))

    # ── everything again ────────────────────────────────────────────────────────────────────

    def texts_and_waits(self) -> None:
        """Version by version: did it bring what its text says, and do the batches searched up to it wait on enough?"""
        searched = verification.searched(self.connection, self.corpus.id)
        for version, before, index in self.context.versions():
            self.context.compare_text(self.connection, self.problem, version, before, index)
            ids = searched.get(version, [])
            for first in range(0, len(ids), BATCHES_AT_ONCE):
                for batch in batches.read(self.connection, ids[first : first + BATCHES_AT_ONCE]):
                    self._waits(batch, index)
            if ids:
                self.report(f"searched the {len(ids)} batches again that were searched up to version {version}")

    def _waits(self, batch: Batch, index: PhraseIndex) -> None:
        name = f"batch {batch.id} ({shape_name(batch.sides)})"
        if not self._decodes(batch) or batch.phrases is None:
            return  # reported already
        if not self.context.exist(batch.sides, batch.cells, index):
            self.problem(f"{name} holds orthos younger than version {batch.searched}, up to which it was searched")
            return
        known = np.zeros(index.nodes, np.bool_)
        known[batch.phrases[batch.phrases < index.nodes]] = True
        missing = unguarded(index, batch, known, self.corpus.limits)
        if len(missing):
            first = int(missing[0])
            self.problem(
                f"{name} does not wait on {len(missing)} phrases that its search consults, "
                f"such as phrase {first} ({self._words(first)})"
            )

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
            stored = (
                (batch.sides, geometry.ids(batch.sides, batch.cells, self.context.index.hashes), batch.cells)
                for sides in buckets
                for batch in batches.every(self.connection, self.corpus.id, sides)
                if self._decodes(batch)
            )
            examples = differences(buckets, stored, self._again(), self.context.drawn)
            for sides in buckets:
                there, expected = self.fingerprints.count(sides), afresh.count(sides)
                self.problem(f"{shape_name(sides)}: {there} orthos stored, {expected} exist{examples[sides]}")

    def _again(self) -> Iterator[tuple[Sides, Ids, Cells]]:
        index = self.context.index
        for sides, cells in closure(index, self.context.version, self.corpus.limits):
            yield sides, geometry.ids(sides, cells, index.hashes), cells
