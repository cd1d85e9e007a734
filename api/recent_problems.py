"""Which problems a process of the API has answered lately."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable

MINUTES = 15
"""for which problems are counted"""


class RecentProblems:
    """Problems by code, of the last MINUTES."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._slots: deque[tuple[int, Counter[str]]] = deque(maxlen=MINUTES)
        """by the minute of the clock; codes are those of errors, so their number is bounded"""

    def add(self, code: str) -> None:
        minute = int(self._clock() // 60)
        with self._lock:
            if not self._slots or self._slots[-1][0] != minute:
                self._slots.append((minute, Counter()))
            self._slots[-1][1][code] += 1

    def counts(self) -> dict[str, int]:
        """The most frequent first."""
        oldest = int(self._clock() // 60) - MINUTES + 1
        total: Counter[str] = Counter()
        with self._lock:
            for minute, counted in self._slots:
                if minute >= oldest:
                    total.update(counted)
        return dict(total.most_common())
