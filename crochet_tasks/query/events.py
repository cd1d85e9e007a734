"""Who follows the progress of corpora: one look a second at the database, for all listeners of a process together."""

from __future__ import annotations

import functools
import logging
import threading
import time

from crochet_tasks.db import listing
from crochet_tasks.db.listing import Seen
from crochet_tasks.db.process import Process
from crochet_tasks.errors import TooBusy

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
BUSY_SECONDS = 10


class Listener:
    """One that listens to a tenant's corpora, or to one of them. Not for two threads."""

    def __init__(self, watch: Watch, tenant: int, corpus: int | None) -> None:
        self.tenant = tenant
        self._watch, self._corpus = watch, corpus
        self._look = 0
        self._told: dict[int, Seen] = {}

    def news(self, seconds: float) -> tuple[list[Seen], list[str]]:
        """What has changed since it was last told, and the names of corpora that are gone; waits so long for a look.

        The first time: all there is.
        """
        self._look, seen = self._watch.after(self._look, self.tenant, seconds)
        if seen is None:
            return [], []
        mine = {number: each for number, each in seen.items() if self._corpus in (None, number)}
        changed = [each for number, each in mine.items() if self._told.get(number) != each]
        gone = [each.corpus for number, each in self._told.items() if number not in mine]
        self._told = mine
        return changed, gone

    def close(self) -> None:
        """Listen no more; may be called again."""
        self._watch.leave(self)


class Watch:
    """Looks while there are listeners. Made once per process; its thread ends with the last of them."""

    def __init__(self, process: Process, most: int) -> None:
        self._process, self._most = process, most
        self._changed = threading.Condition()
        self._listeners: set[Listener] = set()
        self._thread: threading.Thread | None = None
        self._look = 0
        self._seen: dict[int, dict[int, Seen]] = {}
        process.at_end(self.close)

    def close(self) -> None:
        """Let nobody listen any more, and wait for the look at hand."""
        with self._changed:
            self._most = 0
            self._listeners.clear()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def join(self, tenant: int, corpus: int | None = None) -> Listener:
        """A new listener, which has to be closed; raises TooBusy where there are as many as may be, in all or of one
        tenant: half of them, so that another one finds a place.
        """
        with self._changed:
            mine = sum(each.tenant == tenant for each in self._listeners)
            if len(self._listeners) >= self._most or mine >= (self._most + 1) // 2:
                raise TooBusy(what=f"{len(self._listeners)} listen already", seconds=BUSY_SECONDS)
            listener = Listener(self, tenant, corpus)
            self._listeners.add(listener)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
                self._thread.start()
            self._changed.notify_all()  # somebody new does not wait for the next look
            return listener

    def leave(self, listener: Listener) -> None:
        with self._changed:
            self._listeners.discard(listener)
            self._changed.notify_all()

    def after(self, look: int, tenant: int, seconds: float) -> tuple[int, dict[int, Seen] | None]:
        """What a later look than that one saw of a tenant's corpora; None where none came in time."""
        until = time.monotonic() + seconds
        with self._changed:
            while self._look == look or tenant not in self._seen:
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    return look, None
            return self._look, self._seen[tenant]

    def _run(self) -> None:
        while tenants := self._tenants():
            self._look_at(tenants)
            with self._changed:
                # Until the time has come, or there is a tenant that was not looked at, or nobody listens any more.
                self._changed.wait_for(functools.partial(self._is_due, tenants), LOOK_SECONDS)

    def _tenants(self) -> set[int]:
        """Of all listeners; where there are none, nobody looks any more."""
        with self._changed:
            tenants = {listener.tenant for listener in self._listeners}
            if not tenants:
                self._thread, self._seen = None, {}
            return tenants

    def _is_due(self, tenants: set[int]) -> bool:
        return not self._listeners or any(each.tenant not in tenants for each in self._listeners)

    def _look_at(self, tenants: set[int]) -> None:
        try:
            with self._process.database.snapshot() as connection:
                rows = listing.seen(connection, sorted(tenants))
        except Exception as error:  # noqa: BLE001 - there is no other thread to look
            log.warning("look_failed", extra={"error": str(error)})
            return
        with self._changed:
            self._seen = {tenant: {row.id: row for row in rows if row.tenant == tenant} for tenant in tenants}
            self._look += 1
            self._changed.notify_all()
