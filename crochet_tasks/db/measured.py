"""Metrics and spans of a pool and its statements. Where neither is recorded no hooks are installed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Self

import psycopg
from sqlalchemy import Engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from crochet_tasks import telemetry
from crochet_tasks.telemetry import instruments, metrics

OPERATIONS = ("select", "insert", "update", "delete", "with")
_COUNTED = "crochet.counted"


def count_connections(engine: Engine, limit: int) -> contextlib.ExitStack:
    """Count the connections of an engine whose pool has at most `limit`. Close the returned stack with the engine."""
    hooks = contextlib.ExitStack()
    if not instruments.recorded():
        return hooks
    metrics.POOL_LIMIT.add(limit)
    hooks.callback(metrics.POOL_LIMIT.add, -limit)
    event.listen(engine, "connect", lambda *_: metrics.POOL_OPEN.add(1))
    event.listen(engine, "close", lambda *_: metrics.POOL_OPEN.add(-1))
    event.listen(engine, "checkout", _checked_out)
    event.listen(engine, "checkin", _checked_in)
    return hooks


def _checked_out(_connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
    if not record.info.get(_COUNTED):
        record.info[_COUNTED] = True
        metrics.POOL_USED.add(1)


def _checked_in(_connection: object, record: ConnectionPoolEntry) -> None:
    """A connection that could not be opened again is checked in without having been checked out."""
    if record.info.pop(_COUNTED, False):
        metrics.POOL_USED.add(-1)


class Measured(psycopg.Cursor[Any]):
    """Records how long each statement took, and makes it a span of the current trace, where that is recorded.

    At the cursor and not by SQLAlchemy's events: bulk statements go straight to the driver.
    """

    def execute(self, query: Any, *values: Any, **named: Any) -> Self:
        began = time.perf_counter()
        with telemetry.statement(query):
            super().execute(query, *values, **named)
        metrics.STATEMENT.observe(time.perf_counter() - began, operation=operation(query))
        return self

    def executemany(self, query: Any, *values: Any, **named: Any) -> None:
        began = time.perf_counter()
        with telemetry.statement(query):
            super().executemany(query, *values, **named)
        metrics.STATEMENT.observe(time.perf_counter() - began, operation=operation(query))


def cursors() -> type[psycopg.Cursor[Any]]:
    """The cursor class of connections that are opened from now on."""
    return Measured if instruments.recorded() or telemetry.traced() else psycopg.Cursor


def operation(statement: object) -> str:
    """What a statement does, by its first word; the driver's own need not be strings."""
    first = str(statement).lstrip()[:6].split(None, 1)
    return name if first and (name := first[0].lower()) in OPERATIONS else "other"


@contextlib.contextmanager
def transaction() -> Iterator[None]:
    """Record how long a transaction lasts, from having a connection to the end."""
    began, outcome = time.perf_counter(), "rolled_back"
    try:
        yield
        outcome = "committed"
    finally:
        metrics.TRANSACTION.observe(time.perf_counter() - began, outcome=outcome)
