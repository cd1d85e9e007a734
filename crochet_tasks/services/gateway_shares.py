"""Connections are shared out evenly among the processes of a gateway, which all accept from one socket.

The kernel wakes all of them, and whoever is first takes what is there: of 50 clients that come at once 46 may be served
by one process, while the other core rests. So each process tells how many it has, and who has more than others leaves
the next ones to them for a moment; only for a moment, as the others may be busy, or not move at all.
"""

from __future__ import annotations

import ctypes
import mmap
import time
from typing import Any

AHEAD = 1
"""by which a process may have more connections than another and go on accepting"""
YIELD_SECONDS = 0.002
"""that it then leaves to the others"""
NONE_MORE = (1 << 31) - 1
"""what a process tells that takes none: it has not begun, is ending or gone"""


class Shares:
    """How many connections each process has, in memory that they share: to be made before they are forked."""

    def __init__(self, processes: int) -> None:
        self.counts = (ctypes.c_int * processes).from_buffer(mmap.mmap(-1, ctypes.sizeof(ctypes.c_int) * processes))
        self.counts[:] = [NONE_MORE] * processes
        self._taken: dict[int, Any] = {}

    def seat(self, worker: Any) -> None:
        """In the arbiter, before it forks this worker: give it a place that is free.

        Where there is none it shares the last, and only evenness suffers: Gunicorn may be told (TTIN) to have more.
        """
        free = (place for place in range(len(self.counts)) if place not in self._taken)
        place = next(free, len(self.counts) - 1)
        self._taken[place] = worker
        worker.share = Share(self, place)

    def left(self, worker: Any) -> None:
        """In the arbiter: this worker has ended. Nobody waits for it."""
        for place, each in list(self._taken.items()):
            if each is worker:
                del self._taken[place]
                self.counts[place] = NONE_MORE


class Share:
    """That of one process."""

    def __init__(self, shares: Shares, place: int) -> None:
        self._shares, self._place = shares, place
        self._until: float | None = None

    def tell(self, connections: int) -> None:
        self._shares.counts[self._place] = connections

    def leaves(self) -> bool:
        """Whether to leave to others what is there. Who has just done so takes what they have not taken."""
        waited, self._until = self._until is not None, None
        counts = self._shares.counts
        if waited or counts[self._place] <= min(counts) + AHEAD:
            return False
        self._until = time.monotonic() + YIELD_SECONDS
        return True

    def left(self) -> float | None:
        """Seconds for which it is left to others still: 0 where one may look again, None where nothing was left."""
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    def looked(self) -> None:
        """Nothing is there any more: others have taken it."""
        self._until = None
