"""What was used last, as much of it as there is room for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """The values used last, as many as fit into so many bytes. Safe to be used by several threads."""

    def __init__(self, most: int, *, least: int = 0) -> None:
        """`least`: so many are kept even where they are too large."""
        self.most, self.least = most, least
        self.bytes = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        return next(iter(self.several([key]).values()), None)

    def several(self, keys: Iterable[K]) -> dict[K, V]:
        """What is kept of these."""
        with self._lock:
            found = {key: self._kept[key][0] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
        return found

    def put(self, key: K, value: V, size: int) -> None:
        with self._lock:
            self._drop(key)
            if size > self.most and not self.least:
                return
            self._kept[key] = value, size
            self.bytes += size
            while self.bytes > self.most and len(self._kept) > self.least:
                self._drop(next(iter(self._kept)))

    def forget(self, gone: Callable[[K], bool]) -> None:
        with self._lock:
            for key in [key for key in self._kept if gone(key)]:
                self._drop(key)

    def __len__(self) -> int:
        return len(self._kept)

    def _drop(self, key: K) -> None:
        self.bytes -= self._kept.pop(key, (None, 0))[1]
