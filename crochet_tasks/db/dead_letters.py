"""Dead-lettered messages that name no work: kept until an operator drops them."""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

from sqlalchemy import Connection, delete, select

from crochet_tasks.db.tables import dead_letters


class DeadLetterRow(NamedTuple):
    """A dead letter without the body of its message."""

    id: int
    queue: str
    reason: str
    task: str | None
    message: str | None
    died_at: dt.datetime


_COLUMNS = [dead_letters.c[name] for name in DeadLetterRow._fields]


def add(connection: Connection, **values: object) -> None:
    """Record one; `values` are those of DeadLetterRow but for its id, and its body."""
    connection.execute(dead_letters.insert().values(values))


def first(connection: Connection, most: int) -> list[DeadLetterRow]:
    """The oldest ones, without their bodies."""
    query = select(*_COLUMNS).order_by(dead_letters.c.id).limit(most)
    return [DeadLetterRow(*row) for row in connection.execute(query)]


def page(connection: Connection, begin: int | None, most: int, *, newer: bool = False) -> list[DeadLetterRow]:
    """The newest, or those next to one: older ones, or newer ones."""
    query = select(*_COLUMNS).order_by(dead_letters.c.id if newer else dead_letters.c.id.desc()).limit(most)
    if begin is not None:
        query = query.where(dead_letters.c.id > begin if newer else dead_letters.c.id < begin)
    return [DeadLetterRow(*row) for row in connection.execute(query)]


def one(connection: Connection, number: int) -> DeadLetterRow | None:
    row = connection.execute(select(*_COLUMNS).where(dead_letters.c.id == number)).first()
    return None if row is None else DeadLetterRow(*row)


def body(connection: Connection, number: int) -> bytes:
    """The beginning of its message's body."""
    return bytes(connection.execute(select(dead_letters.c.body).where(dead_letters.c.id == number)).scalar_one())


def drop(connection: Connection, number: int) -> bool:
    """Delete one; whether there was one."""
    return connection.execute(delete(dead_letters).where(dead_letters.c.id == number)).rowcount == 1
