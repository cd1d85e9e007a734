"""Progress of corpora for server-sent events: one poll of the database a second for all listeners of a process."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Collection

from crochet_tasks.db import tally
from crochet_tasks.db.process import Process
from crochet_tasks.db.tally import Progress
from crochet_tasks.errors import TooBusy

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
CLOSING_SECONDS = 2.0
BUSY_SECONDS = 10
COUNTED = 100_000
"""rows of work that one poll reads, about: with more open work the events show a lower number"""


class Listener:
    """A client that follows a tenant's corpora, or some of them. Not thread-safe."""

    def __init__(self, watch: Watch, tenant: int, only: Collection[int] | None) -> None:
        self.tenant = tenant
        self._watch, self._only = watch, only
        self._poll = 0
        self._sent: dict[int, Progress] = {}

    def news(self, seconds: float) -> tuple[list[Progress], list[str]]:
        """The corpora that changed since the last call, and the names of those deleted; waits `seconds` for a poll.

        The first call returns all corpora.
        """
        self._poll, found = self._watch.after(self._poll, self.tenant, seconds)
        if found is None:
            return [], []
        mine = {number: each for number, each in found.items() if self._only is None or number in self._only}
        changed = [each for number, each in mine.items() if self._sent.get(number) != each]
        gone = [each.corpus for number, each in self._sent.items() if number not in mine]
        self._sent = mine
        return changed, gone

    @property
    def open(self) -> bool:
        """False once no more news come, because the process ends: the listener closes it, and uses it no more."""
        return not self._watch.closed

    def close(self) -> None:
        """Unsubscribe; may be called again."""
        self._watch.leave(self)


class Watch:
    """Polls while there are listeners. Made once per process; its thread ends with the last listener."""

    def __init__(self, process: Process, most: int) -> None:
        self._process, self._most = process, most
        self._changed = threading.Condition()
        self._listeners: set[Listener] = set()
        self._thread: threading.Thread | None = None
        self._poll = 0
        self._found: dict[int, dict[int, Progress]] = {}
        self.closed = False
        process.at_end(self.close)

    def close(self) -> None:
        """Refuse new listeners, wait a moment until the present ones have closed, and for the poll that is running.

        Streams use the database, too: it must not be closed under them.
        """
        with self._changed:
            self._most, self.closed = 0, True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._listeners, CLOSING_SECONDS)
            self._listeners.clear()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def join(self, tenant: int, only: Collection[int] | None = None) -> Listener:
        """A new listener, which has to be closed. Raises TooBusy at the limit of listeners. One tenant may have half
        of them, so that others find a place.
        """
        with self._changed:
            mine = sum(each.tenant == tenant for each in self._listeners)
            if len(self._listeners) >= self._most or mine >= (self._most + 1) // 2:
                raise TooBusy(what=f"{len(self._listeners)} listen already", seconds=BUSY_SECONDS)
            listener = Listener(self, tenant, only)
            self._listeners.add(listener)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
                self._thread.start()
            self._changed.notify_all()  # a new tenant does not wait for the next poll
            return listener

    def leave(self, listener: Listener) -> None:
        with self._changed:
            self._listeners.discard(listener)
            self._changed.notify_all()

    def after(self, poll: int, tenant: int, seconds: float) -> tuple[int, dict[int, Progress] | None]:
        """The tenant's corpora as of a poll later than that one; None if none came in time."""
        until = time.monotonic() + seconds
        with self._changed:
            while self._poll == poll or tenant not in self._found:
                left = until - time.monotonic()
                if self.closed or left <= 0 or not self._changed.wait(left):
                    return poll, None
            return self._poll, self._found[tenant]

    def _run(self) -> None:
        while tenants := self._tenants():
            self._read(tenants)
            with self._changed:
                # Until the second is over, or there is a tenant that was not polled, or no listener is left.
                self._changed.wait_for(functools.partial(self._is_due, tenants), POLL_SECONDS)

    def _tenants(self) -> set[int]:
        """Those of all listeners; without listeners the thread ends."""
        with self._changed:
            tenants = {listener.tenant for listener in self._listeners}
            if not tenants:
                self._thread, self._found = None, {}
            return tenants

    def _is_due(self, tenants: set[int]) -> bool:
        return not self._listeners or any(each.tenant not in tenants for each in self._listeners)

    def _read(self, tenants: set[int]) -> None:
        try:
            with self._process.database.snapshot() as connection:
                rows = tally.progress(connection, sorted(tenants), COUNTED)
        except Exception as error:  # noqa: BLE001 - the next poll may succeed
            log.warning("poll_failed", extra={"error": str(error)})
            return
        with self._changed:
            self._found = {tenant: {row.id: row for row in rows if row.tenant == tenant} for tenant in tenants}
            self._poll += 1
            self._changed.notify_all()
