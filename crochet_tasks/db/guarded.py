"""A pool for those who must not wait: where the database is away that is said at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

from sqlalchemy import Connection

from crochet_tasks.breaker import Breaker
from crochet_tasks.db.sessions import Bounds, Database
from crochet_tasks.errors import DatabaseUnavailable
from crochet_tasks.settings import Settings

OPEN_SECONDS = 1.0
CONNECT_SECONDS = 2
LATE_SECONDS = 1.0


class GuardedDatabase(Database):
    """A pool of `connections`, with the API's time-outs, behind a breaker."""

    def __init__(self, url: str, settings: Settings, connections: int) -> None:
        bounds = Bounds(settings.api_timeout, min(settings.lock_timeout, settings.api_timeout), connections, 0)
        super().__init__(url, settings, bounds._replace(patience=CONNECT_SECONDS, late=LATE_SECONDS))
        self.breaker = Breaker("the database", lambda reason: DatabaseUnavailable(reason=reason), OPEN_SECONDS)

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
