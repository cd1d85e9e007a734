"""The whole pipeline in one process: do the work of a corpus until none is left."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait

from crochet_tasks import app, merging, publish
from crochet_tasks.db import Connection, corpora, publishing, tally
from crochet_tasks.db.audit import AT_ONCE
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.process import Process
from crochet_tasks.db.sessions import Database
from crochet_tasks.embedded import store
from crochet_tasks.engine import geometry
from crochet_tasks.errors import DiskNearlyFull, ProcessExhausted
from crochet_tasks.operate.retention import Retention
from crochet_tasks.operate.sealing import Sealer
from crochet_tasks.retry import Policy, temporary
from crochet_tasks.schemas.progress import EndReason, Outcome, RunProgress
from crochet_tasks.settings import Settings

POLL_SECONDS = 0.25
"""between two polls of the progress, at least …"""
POLL_SHARE = 50
"""… and at least so many times as long as the last poll took"""
WORKERS = max(2, len(os.sched_getaffinity(0)))
"""threads that work at the same time, one per core: searches hold no GIL. At least two: while one waits for Postgres
the other one computes (docs/adr/0006)"""
WITHOUT_EFFECT = 2 * WORKERS
"""give up after more consecutive errors than these that changed no work item (two may be of the same item)"""
OUTAGE = Policy(attempts=6)
"""for temporary errors: they are retried for some 3 s, then raised"""
RETENTION_SECONDS = 1.0
"""for how long the end of a run deletes old rows"""
ALIVE_SECONDS = 1.0
"""between two checks that the threads live, while pieces of work take longer"""


# ── the work ────────────────────────────────────────────────────────────────────────────────────


def close(
    process: Process,
    corpus: Corpus,
    *,
    budget: int | None = None,
    progress: Callable[[RunProgress], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Do the open work of a corpus, including that of a killed process, until the corpus is closed.

    Once `budget` orthos are stored no more searches are started; waiting texts still become versions. `stopped` is
    called between two pieces of work. Permanent failures stay in the store and the rest goes on; a
    temporary error is retried for a few seconds, then raised. A nearly full disk ends it before the database fails.
    Raises ProcessExhausted when a thread dies.
    """
    app.app.conf.task_always_eager = True  # this process does its work itself, whatever broker there is
    process.budget = budget
    poll = _Poll(process.database, corpus.id, progress)
    crew = _Crew(process, corpus.id, poll, budget, stopped)
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="work", initializer=crew.register_thread) as pool:
        while crew.begin_work(pool):
            crew.collect_results()
            poll.if_due()
    process.budget = None
    if crew.ended is not EndReason.DISK:
        merging.merge_all(corpus.id, lambda: stopped() or not _roomy(process.settings))
        Retention(process.database, process.settings).sweep(RETENTION_SECONDS)
        sealer = Sealer(process.database)
        sealer.seal(now=True)  # takes note of what is there, which the next call seals
        while sealer.seal(now=True) >= AT_ONCE:
            pass
    last = poll()
    ended = EndReason.CLOSED if last.work.open == 0 else crew.ended or _why(process.database, corpus.id)
    return Outcome(ended, last, crew.search_seconds, crew.failure)


def _roomy(settings: Settings) -> bool:
    try:
        store.check_space(settings)
    except DiskNearlyFull:
        return False
    return True


def _why(database: Database, corpus: int) -> EndReason:
    """Why there was nothing to take up although there is open work."""
    with database.transaction() as connection:
        if tally.spent(connection, corpus):
            return EndReason.BUDGET
        return EndReason.ELSEWHERE if publishing.any_published(connection, corpus) else EndReason.WAITING


class _Crew:
    """The worker threads of a corpus, each with one piece of work at a time."""

    def __init__(
        self, process: Process, corpus: int, poll: _Poll, budget: int | None, stopped: Callable[[], bool]
    ) -> None:
        self.ended: EndReason | None = None
        self.search_seconds = 0.0
        self.failure: Exception | None = None
        self._database, self._settings, self._corpus, self._poll = process.database, process.settings, corpus, poll
        self._budget, self._stopped = budget, stopped
        self._threads: list[threading.Thread] = []
        self._running: dict[Future[Item | None], float] = {}
        self._nothing = False
        """the last query found no work; a running task may write some"""
        self._reopen = True
        """published and unfinished work must be released as soon as no task runs"""
        self._outages = self._without_effect = 0
        self._failed = poll().work.failed

    def register_thread(self) -> None:
        """Register the calling thread of the pool, so that its death is detected."""
        self._threads.append(threading.current_thread())

    def begin_work(self, pool: Executor) -> bool:
        """Start as many tasks as allowed; return False when none runs and none is left to start."""
        if self._reopen and not self._running:
            publish.release_unfinished(self._corpus)
            self._reopen = self._nothing = False
        if self.ended is None and self._stopped():
            self.ended = EndReason.STOPPED
        if self.ended is None and not self._reopen and not self._nothing:
            self._begin_as_many_as_allowed(pool)
        return bool(self._running)

    def _begin_as_many_as_allowed(self, pool: Executor) -> None:
        try:
            store.check_space(self._settings)
        except DiskNearlyFull as full:
            self.ended, self.failure = EndReason.DISK, full
            return
        room = self._room()
        if room == 0 and not self._running:
            self.ended = EndReason.BUDGET
        while len(self._running) < room:
            self._running[_submit(pool, self._corpus)] = time.perf_counter()

    def _room(self) -> int:
        """Return how many tasks may run. With a spent budget only one, of an ordered stage."""
        if self._budget is None:
            return WORKERS
        with self._database.transaction() as connection:
            if tally.total(connection, self._corpus) < self._budget:
                return WORKERS
            return 1 if not self._running and publishing.ordered_waits(connection, self._corpus) else 0

    def collect_results(self) -> None:
        """Wait for a piece to end, for a second at most; raise its error if the rest cannot go on."""
        finished = wait(self._running, ALIVE_SECONDS, FIRST_COMPLETED).done
        if not all(thread.is_alive() for thread in self._threads):  # its piece never ends
            raise ProcessExhausted
        if not finished:
            return
        # A task that found no work may have queried before another that ends with it wrote some, also by failing.
        self._nothing = all(done.exception() is None and not done.result() for done in finished)
        for done in finished:
            began = self._running.pop(done)
            error = done.exception()
            if error is not None:
                self._handle(error)
                continue
            if item := done.result():  # one that found nothing to do does not show that an outage is over
                self._outages = 0
                if item.kind == "search":
                    self.search_seconds += (time.perf_counter() - began) / WORKERS

    def _handle(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            raise error
        if temporary(error):
            self._outages, self._reopen = self._outages + 1, True
            if self._outages >= OUTAGE.attempts:
                raise error
            time.sleep(OUTAGE.pause(self._outages))
            return
        # It was recorded with its work item or text, and the rest goes on.
        before, self._failed = self._failed, self._poll().work.failed
        self._without_effect = self._without_effect + 1 if self._failed == before else 0
        if self._without_effect > WITHOUT_EFFECT:
            raise error
        self.failure = self.failure or error


def _submit(pool: Executor, corpus: int) -> Future[Item | None]:
    try:
        return pool.submit(publish.publish_next, corpus)
    except (MemoryError, RuntimeError) as error:  # "can't start new thread"
        raise ProcessExhausted from error


class _Poll:
    """Reads the progress of a corpus from the store, seldom enough to cost nothing, and reports it."""

    def __init__(self, database: Database, corpus: int, progress: Callable[[RunProgress], None]) -> None:
        self._database, self._corpus, self._progress = database, corpus, progress
        self._next = 0.0

    def if_due(self) -> None:
        if time.monotonic() >= self._next:
            self()

    def __call__(self) -> RunProgress:
        began = time.monotonic()
        with self._database.transaction() as connection:
            found = read_progress(connection, self._corpus)
        now = time.monotonic()
        self._next = now + max(POLL_SECONDS, POLL_SHARE * (now - began))
        self._progress(found)
        return found


def read_progress(connection: Connection, corpus: int) -> RunProgress:
    """Return the progress of a corpus."""
    counted = {sides: change.orthos for sides, change in tally.counted(connection, corpus).items() if change.orthos}
    return RunProgress(
        version=corpora.version(connection, corpus),
        work=tally.states(connection, corpus),
        orthos={sides: counted[sides] for sides in geometry.best_first(counted)},
    )
