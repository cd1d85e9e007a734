"""Whoever asks the same thing at the same time is answered by one look, which began after all of them had asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Looks(NamedTuple, Generic[V]):
    """The look at hand, and the next one, which waits for it."""

    running: Future[V] | None
    following: Future[V] | None


class Together(Generic[K, V]):
    """What dear looks go through that many poll. However many ask, two look at a thing at a time at the most: one is
    at it, and the other waits for it; nobody gets an answer that is older than their question.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looks: dict[K, _Looks[V]] = {}

    def ask(self, key: K, look: Callable[[], V]) -> V:
        """What `look` finds, or that of somebody else who asks the same; also what it raises."""
        with self._lock:
            running, following = self._looks.get(key) or _Looks(None, None)
            mine: Future[V] = Future()
            if following is None:
                self._looks[key] = _Looks(running, mine)
        if following is not None:
            return following.result()
        if running is not None:
            wait([running])
        with self._lock:
            self._looks[key] = _Looks(mine, None)  # who asks from now on has to wait for another one
        try:
            mine.set_result(look())
        except BaseException as error:  # noqa: BLE001 - it is raised below, and by all who wait for it
            mine.set_exception(error)
        with self._lock:
            following = self._looks[key].following
            if following is None:
                del self._looks[key]
            else:
                self._looks[key] = _Looks(None, following)
        return mine.result()
