"""Reads ahead, in a thread of its own, what requests for a corpus will need: so no request waits for it."""

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
"""a corpus that grows is read again so often, at the most"""
CORPORA_KEPT = 10_000
"""of which it is known that they were read"""


class Warming:
    """Warms one corpus after the other. Its thread ends when there is nothing left to do."""

    def __init__(self, process: Process, warm: Callable[[Corpus, Callable[[], bool]], None]) -> None:
        self._warm = warm
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._wanted: dict[int, Corpus] = {}
        self._done: LRUCache[int, tuple[str, float]] = LRUCache(CORPORA_KEPT)
        """per corpus the tag at which it was read, and when"""
        process.at_end(self.close)

    def close(self) -> None:
        """Read no more, and wait for what is being read."""
        self._stopped.set()
        with self._lock:
            self._wanted.clear()
            thread = self._thread
        if thread is not None:
            thread.join()

    def ask(self, corpus: Corpus, tag: str, *, lacks: bool = False) -> None:
        """Warm this corpus, which is at `tag`, unless that was done; `lacks`: warm it even then."""
        with self._lock:
            at, when = self._done.get(corpus.id) or ("", 0.0)
            if self._stopped.is_set() or (at == tag and not lacks) or time.monotonic() - when < EVERY_SECONDS:
                return
            self._done[corpus.id] = tag, time.monotonic()
            self._wanted[corpus.id] = corpus
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="warming", daemon=True)
                self._thread.start()

    def forget(self, corpus: int) -> None:
        with self._lock:
            self._done.pop(corpus, None)
            self._wanted.pop(corpus, None)

    def _run(self) -> None:
        while (corpus := self._next()) is not None:
            try:
                self._warm(corpus, self._stopped.is_set)
            except Exception as error:  # noqa: BLE001 - requests read it themselves then
                log.info("not_read_ahead", extra={"corpus": corpus.id, "error": str(error)})

    def _next(self) -> Corpus | None:
        with self._lock:
            if not self._wanted:
                self._thread = None
                return None
            return self._wanted.pop(next(iter(self._wanted)))
