"""A pool for those who must not wait: where the database is away that is said at once."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

from sqlalchemy import Connection

from crochet_tasks.db.sessions import Bounds, Database
from crochet_tasks.errors import DatabaseUnavailable
from crochet_tasks.settings import Settings

log = logging.getLogger(__name__)

OPEN_SECONDS = 1.0
CONNECT_SECONDS = 2


class Breaker:
    """Closed while all is well. A failure opens it: then who comes is refused at once, but one each second tries."""

    def __init__(self, seconds: float = OPEN_SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._until = 0.0
        self.problem: str | None = None
        """of the last failure; None while it is closed"""

    def admit(self) -> None:
        """Raise DatabaseUnavailable while it is open, but for the one who tries."""
        with self._lock:
            problem, now = self.problem, time.monotonic()
            if problem is None:
                return
            if now < self._until:
                raise DatabaseUnavailable(reason=problem)
            self._until = now + self._seconds  # we try; if nothing comes of it, somebody else does after a while

    def failed(self, problem: str) -> None:
        with self._lock:
            if self.problem is None:
                log.warning("database_away", extra={"error": problem})
            self.problem, self._until = problem, time.monotonic() + self._seconds

    def succeeded(self) -> None:
        with self._lock:
            away, self.problem = self.problem is not None, None
        if away:
            log.info("database_back")


class GuardedDatabase(Database):
    """A pool of `connections`, with the API's time-outs, behind a breaker."""

    def __init__(self, url: str, settings: Settings, connections: int) -> None:
        bounds = Bounds(settings.api_timeout, min(settings.lock_timeout, settings.api_timeout), connections, 0)
        super().__init__(url, settings, bounds._replace(patience=CONNECT_SECONDS))
        self.breaker = Breaker()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        with self._guarded(super().transaction()) as connection:
            yield connection

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        with self._guarded(super().snapshot()) as connection:
            yield connection

    @contextlib.contextmanager
    def _guarded(self, inner: AbstractContextManager[Connection]) -> Iterator[Connection]:
        self.breaker.admit()
        try:
            with inner as connection:
                self.breaker.succeeded()
                yield connection
        except DatabaseUnavailable as error:
            self.breaker.failed(str(error.context.get("reason", "")))
            raise
