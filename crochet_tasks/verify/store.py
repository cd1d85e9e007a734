"""The fsck: compares what the store contains with what the domain rules require.

It reads one snapshot, so searches may run meanwhile: what open work will find is not reported as missing.
Memory holds the phrases, and the batches of one shape that overlap, never all orthos.
"""

from __future__ import annotations

from collections.abc import Callable

from crochet_tasks.db import Connection, batches, sessions, tally, texts, verification, windows
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.db.texts import TextRow
from crochet_tasks.db.windows import Window
from crochet_tasks.engine import runs
from crochet_tasks.engine.geometry import shape_name
from crochet_tasks.engine.text import READING
from crochet_tasks.errors import StoreCorrupt
from crochet_tasks.verify.context import Context, read_context
from crochet_tasks.verify.orthos import Orthos

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
        rows = texts.all_of(connection, corpus.id)
        context = read_context(connection, corpus, rows, problem)
        if context is None:
            report("the texts and phrases are damaged: what depends on them was not checked")
            return problem.lines()
        report(f"checked the phrases of version {context.version}: {context.index.nodes - 1}")
        store = _Store(connection, corpus, context, problem, report)
        store.counters()
        store.windows()
        store.shapes()
        if closure:
            store.texts(rows)
            store.closure(sum(row.state in ("accepted", "ingested") for row in rows))
    return problem.lines()


class _Store:
    """The checks of what depends on the phrases: batches, remediations, windows, counters."""

    def __init__(
        self, connection: Connection, corpus: Corpus, context: Context, problem: Callable[[str], None], report: Report
    ) -> None:
        self.connection = connection
        self.corpus = corpus
        self.context = context
        self.problem = problem
        self.report = report
        self.stored = verification.stored_shapes(connection, corpus.id)
        self.orthos = Orthos(context, problem)

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
            self._due(window)
        pending = verification.pending_remediations(self.connection, self.corpus.id)
        if sorted({*range(1, reached + 1), *pending}) != list(range(1, self.context.version + 1)):
            self.problem(f"the windows reach to version {reached} of {self.context.version}, and no work leads on")

    def _due(self, window: Window) -> None:
        """Whether the due phrases of a window are those that its searches share out."""
        if window.due is None or window.version > self.context.version:
            return
        try:
            due = runs.unpack_set(window.due, self.context.index.limits[window.version] - 1)
        except runs.DamagedRun as error:
            self.problem(f"the window of version {window.version} is damaged ({error})")
            return
        if len(due) != window.starts:
            self.problem(f"the window of version {window.version} records {window.starts} starts, and has {len(due)}")

    def shapes(self) -> None:
        for sides, (count, number) in self.stored.items():
            self.orthos.shape(sides, batches.every(self.connection, self.corpus.id, sides), waiting=True)
            self.report(f"checked {shape_name(sides)}: {count} orthos in {number} batches")

    def texts(self, rows: list[TextRow]) -> None:
        """Compare the phrases with the texts, unless other rules read these: their words are not those of today's."""
        of = {row.version: row for row in rows}
        for version, before, index in self.context.versions() if self.corpus.reading == READING else ():
            row = of[version]
            try:
                body = texts.body(self.connection, row.id)
            except StoreCorrupt:  # reported with the texts
                continue
            name = f"text {row.id} ({row.title})"
            self.context.compare_text(self.problem, name, body, version, before, index)

    def closure(self, waiting_texts: int) -> None:
        left = verification.unfinished(self.connection, self.corpus.id) + waiting_texts
        if left:
            self.report(f"the closure cannot be compared yet: {left} pieces of work are open, failed or dropped")
            return
        total = self.orthos.closure(
            lambda shapes: (
                batch for sides in shapes for batch in batches.every(self.connection, self.corpus.id, sides)
            )
        )
        self.report(f"searched everything again: {total} orthos")
