"""Exports as streams: few at a time, each for a bounded time, and only while its key is valid.

Each occupies a thread and a snapshot of the database for as long as the client reads.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from crochet_tasks.errors import TooBusy, Unavailable

log = logging.getLogger(__name__)

EXPORTS, OF_ONE_TENANT = 2, 1
"""at the same time, in one process; so one place is left for other tenants"""
SECONDS = 600.0
"""that one may take"""
CHECK_SECONDS = 5.0
"""between two checks whether its key is still valid"""
BUSY_SECONDS = 10


class StreamAborted(ConnectionResetError):
    """An export is cut. The server closes the connection, so the client sees that the end is missing."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.ECONNRESET, why)


class ExportSlots:
    """Limits concurrent exports, in all and per tenant."""

    def __init__(self, most: int = EXPORTS, of_one: int = OF_ONE_TENANT) -> None:
        self._most, self._of_one = most, of_one
        self.taken: Counter[int] = Counter()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def slot(self, tenant: int) -> Iterator[None]:
        """Take a slot; raises TooBusy if none is free."""
        with self._lock:
            if self.taken.total() >= self._most or self.taken[tenant] >= self._of_one:
                raise TooBusy(what=f"{self.taken.total()} exports run already", seconds=BUSY_SECONDS)
            self.taken[tenant] += 1
        try:
            yield
        finally:
            with self._lock:
                self.taken -= Counter([tenant])  # leaves no entry of a tenant that has none


def bounded(parts: Iterator[bytes], may: Callable[[], bool]) -> Iterator[bytes]:
    """The parts, for SECONDS and while `may()`; raises StreamAborted after that."""
    began = checked = time.monotonic()
    for part in parts:
        now = time.monotonic()
        if now - began > SECONDS:
            log.warning("export_broken_off", extra={"seconds": SECONDS})
            raise StreamAborted("it took too long")
        if now - checked >= CHECK_SECONDS:
            checked = now
            if not _may(may):
                raise StreamAborted("its key is not valid any more")
        if part:
            yield part


def _may(may: Callable[[], bool]) -> bool:
    try:
        return may()
    except Unavailable:  # the next check decides
        return True
