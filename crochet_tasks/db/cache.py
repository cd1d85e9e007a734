"""Caches bounded by bytes, with their size as a metric, and locks for filling them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from cachetools import LRUCache

from crochet_tasks.telemetry import metrics

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Locks:
    """A lock per key, such as a corpus: only threads that do the same read wait for each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: weakref.WeakValueDictionary[Hashable, threading.Lock] = weakref.WeakValueDictionary()

    def of(self, key: Hashable) -> threading.Lock:
        """The key's lock, which exists as long as a thread refers to it."""
        with self._lock:
            lock = self._of.get(key)
            if lock is None:
                lock = self._of[key] = threading.Lock()
            return lock


class Cache(Generic[K, V]):
    """An LRU cache of at most `most` bytes. `keeps_last`: the newest value is cached however large it is.

    Callers pass the size of each value, because measuring an index or a batch takes a while.
    """

    def __init__(self, name: str, most: int, *, keeps_last: bool = False) -> None:
        """`name` is the metric's label."""
        self.name, self.most = name, most
        self.hits = self.misses = 0
        self._keeps_last = keeps_last
        self._lock = threading.Lock()
        self._kept: LRUCache[K, tuple[V, int]] = LRUCache(most, getsizeof=lambda entry: min(entry[1], most))

    @property
    def bytes(self) -> int:
        return int(self._kept.currsize)

    def get(self, key: K) -> V | None:
        with self._lock:
            entry = self._kept.get(key)
        return None if entry is None else entry[0]

    def looked_up(self, *, hits: int = 0, misses: int = 0) -> None:
        """Count look-ups. Callers say what is a hit: an index that is cached, but too old, is none."""
        with self._lock:
            self.hits += hits
            self.misses += misses
        for outcome, number in (("hit", hits), ("miss", misses)):
            if number:
                metrics.CACHE.add(number, cache=self.name, outcome=outcome)

    def put(self, key: K, value: V, size: int) -> None:
        with self._lock:
            self._kept.pop(key, None)
            if size <= self.most or self._keeps_last:
                self._kept[key] = value, size
            self._measure()

    def forget(self, key: K) -> None:
        with self._lock:
            self._kept.pop(key, None)
            self._measure()

    def __iter__(self) -> Iterator[K]:
        """The keys that are there now."""
        with self._lock:
            keys = [*self._kept]
        return iter(keys)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._measure()

    def __len__(self) -> int:
        return len(self._kept)

    def _measure(self) -> None:
        metrics.CACHE_BYTES.set(self._kept.currsize, cache=self.name)
