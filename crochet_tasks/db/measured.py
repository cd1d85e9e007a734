"""What a pool and its statements cost, where metrics are recorded; nothing is hooked in where they are not."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from crochet_tasks import instruments, metrics

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
    event.listen(engine, "before_cursor_execute", _before)
    event.listen(engine, "after_cursor_execute", _after)
    return watched


def _taken(_connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
    if not record.info.get(_COUNTED):
        record.info[_COUNTED] = True
        metrics.POOL_USED.add(1)


def _given_back(_connection: object, record: ConnectionPoolEntry) -> None:
    """Of a connection that could not be made again only this is heard."""
    if record.info.pop(_COUNTED, False):
        metrics.POOL_USED.add(-1)


def _before(_connection: Connection, _cursor: Any, _statement: str, _values: Any, context: Any, *_: Any) -> None:
    context.crochet_began = time.perf_counter()


def _after(_connection: Connection, _cursor: Any, statement: str, _values: Any, context: Any, *_: Any) -> None:
    metrics.STATEMENT.observe(time.perf_counter() - context.crochet_began, operation=operation(statement))


def operation(statement: str) -> str:
    """What a statement does, by its first word."""
    first = statement.lstrip()[:6].split(None, 1)
    return name if first and (name := first[0].lower()) in OPERATIONS else "other"


@contextlib.contextmanager
def bulk() -> Iterator[None]:
    """A statement that goes past the toolkit."""
    if not instruments.recorded():
        yield
        return
    began = time.perf_counter()
    try:
        yield
    finally:
        metrics.STATEMENT.observe(time.perf_counter() - began, operation="bulk")


@contextlib.contextmanager
def transaction() -> Iterator[None]:
    """From having a connection to the end."""
    if not instruments.recorded():
        yield
        return
    began, outcome = time.perf_counter(), "rolled_back"
    try:
        yield
        outcome = "committed"
    finally:
        metrics.TRANSACTION.observe(time.perf_counter() - began, outcome=outcome)
