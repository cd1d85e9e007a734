"""What one process holds while it lives: its settings, its connection pool and the phrase indexes it works with."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cachetools import LRUCache
from sqlalchemy import Connection

from crochet_tasks.db import corpora, texts
from crochet_tasks.db.sessions import Bounds, Database
from crochet_tasks.db.texts import TextRow
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.engine.text import sentences
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import metrics


@dataclass
class Process:
    """What one process holds: its settings, its pool, and the phrase indexes of the corpora that it worked on last."""

    settings: Settings
    database: Database
    indexes: LRUCache[int, PhraseIndex] = field(init=False)
    """by corpus; CROCHET_WORKER_CACHE_BYTES in all, and the last one even where it alone is larger"""
    parsed: dict[int, list[list[str]]] = field(default_factory=dict)
    pending: dict[tuple[int, int, int], PhraseIndex] = field(default_factory=dict)
    _ends: list[Callable[[], None]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        most = self.settings.worker_cache_bytes
        self.indexes = LRUCache(most, getsizeof=lambda index: min(index.bytes, most))

    def at_end(self, stop: Callable[[], None]) -> None:
        """Have something that uses the pool, such as a thread, stopped before the pool is closed."""
        self._ends.append(stop)

    def close(self) -> None:
        for stop in self._ends:
            stop()
        self.database.close()

    def index(self, connection: Connection, corpus: int, version: int) -> PhraseIndex:
        """The corpus' phrase index, brought forward to `version` at least."""
        with self._lock:
            index = self.indexes.get(corpus) or PhraseIndex()
        metrics.LAG.set(max(0, version - index.version))
        metrics.CACHE.add(cache="index", outcome="miss" if index.version < version else "hit")
        if index.version < version:
            index = texts.bring_forward(connection, corpus, index)
            there = corpora.existing(connection, [*self.indexes])
            with self._lock:
                self.indexes[corpus] = index
                for deleted in {*self.indexes} - there - {corpus}:
                    del self.indexes[deleted]
                metrics.CACHE_BYTES.set(self.indexes.currsize, cache="index")
        return index

    def pending_index(self, connection: Connection, text: TextRow, version: int) -> PhraseIndex:
        """The index with what has come in of the text that is being ingested. The caller holds the ORDER lock.

        It is kept for the next part, under the text, its place in line (a new one when it is given again) and how far
        it is, once that is committed: so it cannot be taken for another's.
        """
        index = self.pending.get((text.id, text.seq, text.sentences))
        if index is None:
            index = self.index(connection, text.corpus, version)
            index = texts.bring_forward(connection, text.corpus, index, pending=True)
        return index

    def sentences(self, connection: Connection, text: int) -> list[list[str]]:
        """The sentences of a text; those of the last one are kept, because a big text is ingested in parts."""
        parsed = self.parsed.get(text)
        if parsed is None:
            parsed = sentences(texts.body(connection, text))
            self.parsed = {text: parsed}
        return parsed


_process: Process | None = None


@contextlib.contextmanager
def open_process(settings: Settings, where: str | Database, *, threads: int = 1) -> Iterator[Process]:
    """Open what this process works with, for as long as the context lasts; `where` is a URL or a pool.

    `threads`: how many tasks it runs at the same time, so that its pool has connections for all of them.
    """
    global _process  # noqa: PLW0603 - the one global: a process has one pool, made after fork
    if isinstance(where, str):
        bounds = Bounds(settings.statement_timeout, settings.lock_timeout)
        database = Database(where, settings, bounds._replace(more=max(bounds.more, threads)))
    else:
        database = where
    _process = opened = Process(settings, database)
    try:
        yield opened
    finally:
        _process = None
        opened.close()


def here() -> Process:
    """What this process holds; tasks find it here."""
    if _process is None:
        raise RuntimeError("no process is open here: work with the database inside `with open_process(settings, url):`")
    return _process
