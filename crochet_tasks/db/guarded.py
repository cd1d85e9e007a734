"""A connection pool behind a circuit breaker: while the database is down, calls fail at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

from sqlalchemy import Connection
from sqlalchemy.exc import TimeoutError as PoolTimeout

from crochet_tasks.db.sessions import Bounds, Database
from crochet_tasks.errors import DatabaseUnavailable
from crochet_tasks.retry import Breaker
from crochet_tasks.settings import Settings

OPEN_SECONDS = 1.0
CONNECT_SECONDS = 2
GRACE_SECONDS = 1.0


class GuardedDatabase(Database):
    """A pool of `connections` with the API's time-outs. A pool that is exhausted does not open the breaker."""

    def __init__(self, url: str, settings: Settings, connections: int, service: str = "the database") -> None:
        """`service`: what the log calls it."""
        bounds = Bounds(settings.api_timeout, min(settings.lock_timeout, settings.api_timeout), connections, 0)
        super().__init__(url, settings, bounds._replace(connect=CONNECT_SECONDS, grace=GRACE_SECONDS))
        self.breaker = Breaker(service, lambda reason: DatabaseUnavailable(reason=reason), OPEN_SECONDS)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        with self._guarded(super().transaction()) as connection:
            yield connection

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        with self._guarded(super().snapshot()) as connection:
            yield connection

    @contextlib.contextmanager
    def statements(self) -> Iterator[Connection]:
        with self._guarded(super().statements()) as connection:
            yield connection

    @contextlib.contextmanager
    def _guarded(self, inner: AbstractContextManager[Connection]) -> Iterator[Connection]:
        self.breaker.check()
        try:
            with inner as connection:
                self.breaker.succeeded()
                yield connection
        except DatabaseUnavailable as error:
            if not isinstance(error.__cause__, PoolTimeout):  # all connections are in use
                self.breaker.failed(str(error.context.get("reason", "")))
            raise
