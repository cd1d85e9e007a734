"""What a pool and its statements cost, where metrics are recorded; nothing is hooked in where they are not."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

import psycopg
from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from crochet_tasks.telemetry import instruments, metrics

T = TypeVar("T")
Took = list[tuple[object, float]]
"""statements, and how many seconds each took"""

OPERATIONS = ("select", "insert", "update", "delete", "with")


_COUNTED = "crochet.counted"


def watch(engine: Engine, limit: int) -> contextlib.ExitStack:
    """Measure what goes through an engine, whose pool has `limit` connections at the most; to be closed with it."""
    watched = contextlib.ExitStack()
    if not instruments.recorded():
        return watched
    metrics.POOL_LIMIT.add(limit)
    watched.callback(metrics.POOL_LIMIT.add, -limit)
    event.listen(engine, "connect", lambda *_: metrics.POOL_OPEN.add(1))
    event.listen(engine, "close", lambda *_: metrics.POOL_OPEN.add(-1))
    event.listen(engine, "checkout", _taken)
    event.listen(engine, "checkin", _given_back)
    return watched


def _taken(_connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
    if not record.info.get(_COUNTED):
        record.info[_COUNTED] = True
        metrics.POOL_USED.add(1)


def _given_back(_connection: object, record: ConnectionPoolEntry) -> None:
    """Of a connection that could not be made again only this is heard."""
    if record.info.pop(_COUNTED, False):
        metrics.POOL_USED.add(-1)


class Timed(psycopg.Cursor[Any]):
    """Notes how long each statement took. They are recorded together, at the end of a transaction: one by one, and
    seen by the toolkit, that took as long as all other records and traces of a task.
    """

    def execute(self, query: Any, *values: Any, **named: Any) -> Self:
        return self._timed(query, super().execute, *values, **named)

    def executemany(self, query: Any, *values: Any, **named: Any) -> None:
        self._timed(query, super().executemany, *values, **named)

    def _timed(self, query: Any, step: Callable[..., T], *values: Any, **named: Any) -> T:
        began = time.perf_counter()
        done = step(query, *values, **named)
        took: Took = self.connection.took  # type: ignore[attr-defined]  # it is one of ours (sessions.py)
        took.append((query, time.perf_counter() - began))
        return done


def cursors() -> type[psycopg.Cursor[Any]]:
    """What a connection that is made now makes its cursors of."""
    return Timed if instruments.recorded() else psycopg.Cursor


def operation(statement: object) -> str:
    """What a statement does, by its first word; the driver's own may be no string."""
    first = str(statement).lstrip()[:6].split(None, 1)
    return name if first and (name := first[0].lower()) in OPERATIONS else "other"


@contextlib.contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """From having a connection to the end."""
    began, outcome = time.perf_counter(), "rolled_back"
    took: Took = getattr(connection.connection.driver_connection, "took", [])  # now: afterwards it may be lost
    try:
        yield
        outcome = "committed"
    finally:
        metrics.TRANSACTION.observe(time.perf_counter() - began, outcome=outcome)
        _record(took)  # also where nothing is recorded any more: the connection is not to keep them


def _record(took: Took) -> None:
    by_operation: dict[str, list[float]] = defaultdict(list)
    for query, seconds in took:
        by_operation[operation(query)].append(seconds)
    took.clear()
    for name, several in by_operation.items():
        metrics.STATEMENT.observe_all(several, operation=name)
