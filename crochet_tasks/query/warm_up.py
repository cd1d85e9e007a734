"""Warms the caches for a corpus in a background thread, so that requests need not wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from cachetools import LRUCache

from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
"""the least time between two warm-ups of a growing corpus"""
CORPORA_KEPT = 10_000
"""for which the last warm-up is remembered"""


class WarmUp:
    """Warms one corpus after the other. Its thread ends when there is nothing left to do."""

    def __init__(self, process: Process, warm: Callable[[Corpus, Callable[[], bool]], None]) -> None:
        self._warm = warm
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._queued: dict[int, Corpus] = {}
        self._done: LRUCache[int, tuple[str, float]] = LRUCache(CORPORA_KEPT)
        """per corpus: the tag and the time of its last warm-up"""
        process.at_end(self.close)

    def close(self) -> None:
        """Stop: clear the queue and wait for the running warm-up."""
        self._stopped.set()
        with self._lock:
            self._queued.clear()
            thread = self._thread
        if thread is not None:
            thread.join()

    def ask(self, corpus: Corpus, tag: str, *, lacks: bool = False) -> None:
        """Queue a warm-up of this corpus unless one was done at `tag`; `lacks`: queue it even then."""
        with self._lock:
            at, when = self._done.get(corpus.id) or ("", 0.0)
            if self._stopped.is_set() or (at == tag and not lacks) or time.monotonic() - when < EVERY_SECONDS:
                return
            self._done[corpus.id] = tag, time.monotonic()
            self._queued[corpus.id] = corpus
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="warming", daemon=True)
                self._thread.start()

    def forget(self, corpus: int) -> None:
        with self._lock:
            self._done.pop(corpus, None)
            self._queued.pop(corpus, None)

    def _run(self) -> None:
        while (corpus := self._next()) is not None:
            try:
                self._warm(corpus, self._stopped.is_set)
            except Exception as error:  # noqa: BLE001 - requests fill the caches then
                log.info("not_read_ahead", extra={"corpus": corpus.id, "error": str(error)})

    def _next(self) -> Corpus | None:
        with self._lock:
            if not self._queued:
                self._thread = None
                return None
            return self._queued.pop(next(iter(self._queued)))
