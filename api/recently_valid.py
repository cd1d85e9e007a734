"""Which keys and tokens were valid lately: only the others wait for a turn to be looked up."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator

from api.problems import RETRY_SECONDS
from crochet_tasks.errors import TooBusy

UNKNOWN_LOOKUPS = 2
"""concurrent database lookups of keys and tokens that are not in RecentlyValid"""
LOOKUP_WAIT_SECONDS = 1.0
"""for which one of them waits for its turn: a lookup takes about a millisecond"""


class RecentlyValid:
    """Hashes of the keys and tokens that were valid when they were last used here, a bounded number of them.

    They give no permission: every key is looked up. They only skip the queue. So guessing keys occupies
    UNKNOWN_LOOKUPS connections at the most, and a caller with a valid key always gets through.
    """

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._valid: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()
        self._unknown = threading.BoundedSemaphore(UNKNOWN_LOOKUPS)

    def has(self, credentials: str) -> bool:
        return _digest(credentials) in self._valid

    @contextlib.contextmanager
    def turn(self, credentials: str) -> Iterator[None]:
        """Wait for a slot to look the key up; raises TooBusy if too many lookups of unknown keys are running."""
        if self.has(credentials):
            yield
            return
        if not self._unknown.acquire(timeout=LOOKUP_WAIT_SECONDS):
            raise TooBusy(what="many requests with unknown keys are waiting", seconds=RETRY_SECONDS)
        try:
            yield
        finally:
            self._unknown.release()

    def record(self, credentials: str, *, good: bool) -> None:
        with self._lock:
            self._valid.pop(_digest(credentials), None)
            if good:
                self._valid[_digest(credentials)] = None
            if len(self._valid) > self._most:
                self._valid.popitem(last=False)


def _digest(credentials: str) -> bytes:
    return hashlib.sha256(credentials.encode(errors="replace")).digest()
