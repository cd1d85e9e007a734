"""The census: a relay counts the rows of the store every few seconds and sets its gauges, in a thread of its own.

A failed or slow census affects nothing else. Several relays count the same: combine them with max, not with sum.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from operator import attrgetter

from crochet_tasks import publish
from crochet_tasks.db import Connection, SQLAlchemyError, tally, upkeep
from crochet_tasks.db.process import Process
from crochet_tasks.db.tally import Census
from crochet_tasks.errors import CrochetError
from crochet_tasks.telemetry import instruments, labels, metrics
from crochet_tasks.telemetry.instruments import Metric

log = logging.getLogger(__name__)

PAUSE_SECONDS = 5.0
SHARE = 0.05
"""of the time that counting may take: after a slow census the next one is later"""
MOST_SECONDS = 5.0
"""that one of its statements may take"""
SIZE_SECONDS = 60.0
"""between two readings of sizes, which walk through the files of the database"""

Labels = tuple[str, ...]


class CensusThread:
    """Takes a census every few seconds where metrics are recorded."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._stopped = threading.Event()
        self._shown: dict[Metric, set[Labels]] = {}
        self._closed: dict[int, int] = {}
        """per corpus the version up to which it is known to have been closed"""
        self._began = False
        self._open_since: dict[int, float] = {}
        self._sized = -SIZE_SECONDS
        if instruments.recorded():
            thread = threading.Thread(target=self.run, name="census", daemon=True)
            process.at_end(lambda: self._end(thread))
            thread.start()

    def _end(self, thread: threading.Thread) -> None:
        self._stopped.set()
        thread.join(MOST_SECONDS)

    def run(self) -> None:
        """Take one census after the other until the process ends, whatever happens to one of them."""
        logged = False
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                self.count()
            except (CrochetError, SQLAlchemyError) as error:
                metrics.CENSUS_FAILED.add()
                log.debug("census_failed", extra={"error": str(error)})
            except Exception:  # a bug: this thread is the only one that counts
                metrics.CENSUS_FAILED.add()
                log.log(logging.DEBUG if logged else logging.ERROR, "census_failed", exc_info=True)
                logged = True
            self._stopped.wait(max(PAUSE_SECONDS, (time.monotonic() - began) / SHARE))

    def count(self) -> None:
        """Take a census and set its metrics."""
        database, settings = self._process.database, self._process.settings
        began = time.monotonic()
        with database.snapshot() as connection:
            counted = tally.census(connection, settings.lease, MOST_SECONDS)
            closed = self._newly_closed(counted)
            ages = [age for corpus, since, upto in closed for age in tally.ages(connection, corpus, since, upto)]
            if began - self._sized >= SIZE_SECONDS:
                self._show_sizes(connection)
                self._sized = began
            self._show_server(connection)
        metrics.CENSUS_SECONDS.observe(time.monotonic() - began)
        self._show_work(counted)
        self._show_store(counted)
        self._record_closed(counted)
        for age in ages:
            metrics.TEXT_CLOSED.observe(age)
        metrics.CENSUS_READ_AT.set(time.time())

    # ── gauges ──────────────────────────────────────────────────────────────────────────────────

    def _show(self, gauge: Metric, values: Mapping[Labels, float]) -> None:
        """Set a gauge to these values, and to 0 where it had a value before and has none now."""
        names = gauge.labels
        shown = self._shown.setdefault(gauge, set())
        for key in {*shown, *values}:
            gauge.set(values.get(key, 0), **dict(zip(names, key, strict=True)))
        shown.update(values)

    def _show_sizes(self, connection: Connection) -> None:
        metrics.DATABASE_BYTES.set(tally.database_bytes(connection))
        sizes = upkeep.table_sizes(connection)
        parts: dict[Labels, float] = {(size.name, "table"): size.table for size in sizes}
        parts |= {(size.name, "indexes"): size.indexes for size in sizes}
        self._show(metrics.TABLE_BYTES, parts)
        self._show(metrics.TABLE_DEAD_ROWS, {(size.name,): size.dead for size in sizes})

    def _show_server(self, connection: Connection) -> None:
        transactions = upkeep.transactions(connection)
        metrics.TRANSACTION_AGE.set(max((each.age for each in transactions), default=0.0))
        metrics.TRANSACTION_IDLE.set(max((each.idle for each in transactions), default=0.0))
        server = upkeep.server_use(connection)
        metrics.SERVER_CONNECTIONS.set(server.connections)
        metrics.SERVER_CONNECTIONS_LIMIT.set(server.limit)
        metrics.REPLICATION_BEHIND.set(server.behind)

    def _show_work(self, counted: Census) -> None:
        # Zeros, so that a dashboard shows no work as 0 and not as nothing.
        opened: Counter[Labels] = Counter({(kind, state): 0 for kind in publish.TASKS for state in tally.OPEN})
        failed: Counter[Labels] = Counter()
        overdue: Counter[Labels] = Counter({(kind,): 0 for kind in publish.TASKS})
        tried: Counter[Labels] = Counter({(kind,): 0 for kind in publish.TASKS})
        oldest: dict[Labels, float] = dict.fromkeys(tried, 0.0)
        for group in counted.work:
            if group.state == "failed":
                failed[group.kind,] += group.number
                continue
            opened[group.kind, group.state] += group.number
            overdue[group.kind,] += group.overdue
            tried[group.kind,] += group.tried
            oldest[group.kind,] = max(oldest.get((group.kind,), 0.0), group.oldest)
        self._show(metrics.OPEN, opened)
        self._show(metrics.DEAD, failed)
        self._show(metrics.OVERDUE, overdue)
        self._show(metrics.RETRYING, tried)
        self._show(metrics.OLDEST, oldest)

    def _show_store(self, counted: Census) -> None:
        orthos: Counter[Labels] = Counter()
        batches: Counter[Labels] = Counter()
        for sides, number, of_batches in counted.orthos:
            orthos[labels.shape(sides),] += number
            batches[labels.shape(sides),] += of_batches
        self._show(metrics.STORED_ORTHOS, orthos)
        self._show(metrics.STORED_BATCHES, batches)
        self._show(metrics.WAITING, {(state,): number for state, number in counted.texts.items()})
        metrics.OLDEST_TEXT.set(counted.oldest_text)
        metrics.CORPORA.set(len(counted.corpora))
        metrics.VERSIONS.set(sum(corpus.version for corpus in counted.corpora))
        metrics.DEAD_LETTERS.set(counted.dead_letters)
        versions = {corpus.id: corpus.version for corpus in counted.corpora}
        # Work held by a spent budget lags on purpose.
        behind = ((group.corpus, group.version) for group in counted.work if group.state != "held")
        lags = (versions.get(corpus, 0) - version + 1 for corpus, version in behind if version is not None)
        metrics.CLOSURE_LAG.set(max(lags, default=0))

    # ── closing ─────────────────────────────────────────────────────────────────────────────────

    def _newly_closed(self, counted: Census) -> Iterable[tuple[int, int, int]]:
        """(corpus, since, upto): versions of corpora that had work at this relay's last census and have none now."""
        busy = {group.corpus for group in counted.work if group.unclosed}
        return [
            (corpus.id, since, corpus.version)
            for corpus in counted.corpora
            if corpus.id not in busy
            and (since := self._closed.get(corpus.id, self._known(corpus.version))) < corpus.version
        ]

    def _known(self, version: int) -> int:
        """Return up to which version a corpus without an entry was closed: 0, but at the first census its version."""
        return 0 if self._began else version

    def _record_closed(self, counted: Census) -> None:
        """Record which versions are closed. Those closed before this relay's first census are not known."""
        busy: dict[int, int | None] = {}
        for group in filter(attrgetter("unclosed"), counted.work):
            lowest = busy.get(group.corpus)
            busy[group.corpus] = min(filter(None, (lowest, group.version)), default=None)
        now = time.monotonic()
        self._open_since = {corpus: self._open_since.get(corpus, now) for corpus in busy}
        closed = {}
        for corpus in counted.corpora:
            lowest = busy.get(corpus.id)
            first = corpus.version if lowest is None else lowest - 1
            open_from = self._closed.get(corpus.id, self._known(first))
            closed[corpus.id] = open_from if corpus.id in busy else corpus.version
        self._closed, self._began = closed, True
        metrics.UNCLOSED.set(len(busy))
        metrics.UNCLOSED_AGE.set(max((now - since for since in self._open_since.values()), default=0.0))
