"""The state of one process: its settings, its connection pool and its caches of phrases."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from crochet_tasks.db import batches, best, corpora, sessions, texts
from crochet_tasks.db.cache import Cache, Locks
from crochet_tasks.db.sessions import Database
from crochet_tasks.db.texts import TextRow
from crochet_tasks.engine.best.faces import CELL_BYTES, MOST_CELLS, Faces
from crochet_tasks.engine.best.plan import Planner
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.engine.search import Bounds
from crochet_tasks.engine.text import sentences
from crochet_tasks.engine.tree import Tree
from crochet_tasks.errors import CrochetError
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import metrics

WAITED_SHARE = 50
"""a fiftieth of the cache is for what is waited on: a byte per phrase, where indexes and trees take about 50"""
FEWEST = 100
"""orthos that a search may find, however little is left of a budget"""
SHARES = 8
"""searches that share what is left of a budget: about as many as run at the same time"""


class Waited(NamedTuple):
    """The phrases that orthos wait on, of the batches up to an id."""

    last: int
    phrases: npt.NDArray[np.bool_]


@dataclass
class Process:
    """Settings, connection pool, and caches of the phrases of the corpora used last.

    CROCHET_WORKER_CACHE_BYTES is shared by indexes and trees, half and half, but for a little; searches for the best
    orthos may take half as much beside them. The last one of each is kept even where it alone is larger.
    """

    settings: Settings
    database: Database
    indexes: Cache[int, PhraseIndex] = field(init=False)
    """by corpus"""
    trees: Cache[tuple[int, int], Tree] = field(init=False)
    """by corpus and version"""
    waits: Cache[int, Waited] = field(init=False)
    """by corpus"""
    planners: Cache[tuple[int, int], Planner] = field(init=False)
    """by corpus and job that searches for its best orthos"""
    planning: Locks = field(default_factory=Locks)
    """of a job, held while its planner is used"""
    parsed: dict[int, list[list[str]]] = field(default_factory=dict)
    pending: dict[tuple[int, int, int], PhraseIndex] = field(default_factory=dict)
    budget: int | None = None
    """of the one corpus that this process works on (`crochet run --budget`)"""
    _ends: list[Callable[[], None]] = field(default_factory=list)
    _tenants: dict[int, int] = field(default_factory=dict)
    """by corpus"""
    _growing: Locks = field(default_factory=Locks)
    """of a corpus, held while a tree of it is made: threads of one process need the same one"""

    def __post_init__(self) -> None:
        most = self.settings.worker_cache_bytes
        self.indexes = Cache("index", max(1, most // 2), keeps_last=True)
        self.trees = Cache("tree", max(1, most // 2), keeps_last=True)
        self.waits = Cache("waited", max(1, most // WAITED_SHARE), keeps_last=True)
        self.planners = Cache("best", max(1, most // 2), keeps_last=True)

    @property
    def bounds(self) -> Bounds:
        """How large batches and results of searches may be."""
        return Bounds(self.settings.batch_orthos, self.settings.result_orthos)

    def search_bounds(self, budget: int | None, stored: int) -> Bounds:
        """As `bounds`, for a corpus with this budget (None: it has none) and so many orthos.

        Searches that run go on when it is spent, so a result is no larger than its share of what is left.
        """
        budgets = [each for each in (budget, self.budget) if each is not None]
        if not budgets:
            return self.bounds
        share = max(FEWEST, (min(budgets) - stored) // SHARES)
        return self.bounds._replace(result_orthos=min(self.settings.result_orthos, share))

    def at_end(self, stop: Callable[[], None]) -> None:
        """Register a function that stops a user of the pool, such as a thread, before the pool is closed."""
        self._ends.append(stop)

    def close(self) -> None:
        for stop in self._ends:
            stop()
        self.database.close()

    def tenant(self, corpus: int) -> int | None:
        """The number of a corpus' tenant; None where it is not known: the corpus, or the database, is gone."""
        found: int | None = self._tenants.get(corpus)
        if found is None:
            with contextlib.suppress(CrochetError), self.database.transaction() as connection:
                found = corpora.tenant_of(connection, corpus)
            if found is not None:
                self._tenants[corpus] = found
        return found

    def index(self, connection: Connection, corpus: int, version: int) -> PhraseIndex:
        """The corpus' phrase index, brought forward to `version` at least."""
        index = self.indexes.get(corpus) or PhraseIndex()
        metrics.LAG.set(max(0, version - index.version))
        self.indexes.looked_up(hits=index.version >= version, misses=index.version < version)
        if index.version < version:
            index = texts.bring_forward(connection, corpus, index)
            self.indexes.put(corpus, index, index.bytes)
            self._forget_deleted(connection)
        return index

    def _forget_deleted(self, connection: Connection) -> None:
        """Drop what is cached of corpora that are gone."""
        cached = {*self.indexes, *self.waits, *self._tenants, *(corpus for corpus, _ in (*self.trees, *self.planners))}
        for gone in cached - corpora.existing(connection, sorted(cached)):
            self._tenants.pop(gone, None)
            self.indexes.forget(gone)
            self.waits.forget(gone)
            for corpus, version in self.trees:
                if corpus == gone:
                    self.trees.forget((corpus, version))
            for corpus, job in self.planners:
                if corpus == gone:
                    self.planners.forget((corpus, job))

    def tree(self, connection: Connection, corpus: int, version: int) -> Tree:
        """The phrases of a version, numbered for searches and packed batches."""
        with self._growing.of(corpus):
            tree = self.trees.get((corpus, version))
            self.trees.looked_up(hits=tree is not None, misses=tree is None)
            if tree is None:
                tree = Tree.of(self.index(connection, corpus, version), version, self._older(corpus, version))
                self.trees.put((corpus, version), tree, tree.bytes)
            return tree

    def _older(self, corpus: int, version: int) -> Tree | None:
        """The youngest tree of an older version, if one is cached."""
        older = max((number for of, number in self.trees if of == corpus and number < version), default=0)
        return self.trees.get((corpus, older))

    def planner(self, connection: Connection, corpus: int, job: int, version: int) -> Planner:
        """What plans and does searches of a job, with what it has learned so far. The caller holds its lock."""
        planner = self.planners.get((corpus, job))
        self.planners.looked_up(hits=planner is not None, misses=planner is None)
        if planner is None:
            most = min(MOST_CELLS, self.planners.most // CELL_BYTES)
            planner = Planner(Faces(self.tree(connection, corpus, version), most))
        self.planners.put((corpus, job), planner, planner.faces.bytes)
        return planner

    def load_faces(self, connection: Connection, corpus: int, job: int, planner: Planner, sides: Sides) -> None:
        """Have a planner hold the stored orthos of a shape, all of which were found."""
        if not planner.faces.has(sides):
            planner.faces.put(sides, best.faces(connection, job, sides, len(planner.faces.tree.words)))
            self.planners.put((corpus, job), planner, planner.faces.bytes)

    def waited(
        self, connection: Connection, corpus: int, tree: Tree, seconds: float = math.inf
    ) -> npt.NDArray[np.bool_] | None:
        """Per node of the tree's phrase index: whether a stored ortho waits on it. Reads only batches it has not read.

        None where that takes more than `seconds`; the next call reads the rest.

        Raises StoreCorrupt where a batch has no remediation, or a damaged one: orthos would be missed.

        The caller holds the ORDER lock, and no search of the corpus is open: no batch with a lower id comes later, but
        of those that were merged, whose orthos it has.
        """
        last, before = self.waits.get(corpus) or Waited(0, np.zeros(0, np.bool_))
        # A newer tree was read for before where the transaction was rolled back: its phrases begin with this one's.
        waited = np.zeros(max(tree.size + 1, len(before)), np.bool_)
        waited[: len(before)] = before
        until, whole = time.monotonic() + seconds, True
        for batch, version, phrases in batches.waiting(connection, corpus, last):
            last, lines = batch, batches.unpacked_lines(batch, phrases, tree.limits[version] - 1)
            waited[tree.node[tree.renumbered(version, lines)]] = True
            if time.monotonic() > until:
                whole = False
                break
        self.waits.put(corpus, Waited(last, waited), len(waited))
        return waited[: tree.size + 1] if whole else None

    def pending_index(self, connection: Connection, text: TextRow, version: int) -> PhraseIndex:
        """Return the index with the ingested parts of an unfinished text. The caller holds the ORDER lock.

        After the commit it is cached for the next part. The key is the text, its `seq` (a new one when it is accepted
        again) and its number of ingested sentences.
        """
        index = self.pending.get((text.id, text.seq, text.sentences))
        if index is None:
            index = self.index(connection, text.corpus, version)
            index = texts.bring_forward(connection, text.corpus, index, pending=True)
        return index

    def sentences(self, connection: Connection, text: int) -> list[list[str]]:
        """Return the sentences of a text; those of the last text are cached, because it is ingested in parts."""
        parsed = self.parsed.get(text)
        if parsed is None:
            parsed = sentences(texts.body(connection, text))
            self.parsed = {text: parsed}
        return parsed


_process: Process | None = None


@contextlib.contextmanager
def open_process(settings: Settings, where: str | Database, *, threads: int = 1) -> Iterator[Process]:
    """Open this process' pool and caches for as long as the context lasts; `where` is a URL or a pool.

    `threads`: how many tasks it runs at the same time, so that its pool has connections for all of them.
    """
    global _process  # noqa: PLW0603 - the one global: a process has one pool, made after fork
    if isinstance(where, str):
        bounds = sessions.Bounds(settings.statement_timeout, settings.lock_timeout)
        database = Database(where, settings, bounds._replace(overflow=max(bounds.overflow, threads)))
    else:
        database = where
    outer = _process  # a test may open one within another
    _process = opened = Process(settings, database)
    try:
        yield opened
    finally:
        _process = outer
        opened.close()


def here() -> Process:
    """Return the open Process of this process: the way by which tasks get at it."""
    if _process is None:
        raise RuntimeError("no process is open here: work with the database inside `with open_process(settings, url):`")
    return _process
