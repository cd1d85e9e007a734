"""Packed values on the wire: numpy arrays as bytes, sent and read in binary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import Connection

from crochet_tasks import telemetry


def rows(connection: Connection, query: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
    """All rows of a query, fetched in binary: for bytea that halves the volume and spares the decoding."""
    with _driver(connection).cursor(binary=True) as cursor:
        return cursor.execute(query, parameters).fetchall()  # type: ignore[no-any-return]


def stream(
    connection: Connection, query: str, parameters: Mapping[str, object], at_once: int
) -> Iterator[tuple[Any, ...]]:
    """The rows of a query, fetched so many at once from a cursor in the server: memory holds no more."""
    with telemetry.statement(query), _driver(connection).cursor(name="crochet_stream", binary=True) as cursor:
        cursor.itersize = at_once
        yield from cursor.execute(query, parameters)


def execute(connection: Connection, statement: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
    """Run a statement with packed values or whole arrays as parameters; what it returns, if anything."""
    with _driver(connection).cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def array_text(numbers: Iterable[int]) -> str:
    """A small array in Postgres' text form: arrays of different lengths cannot stand in one array."""
    return f"{{{','.join(map(str, numbers))}}}"
