"""Messages that the broker gave up and that name no work: kept until an operator drops them."""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

from sqlalchemy import Connection, delete, select

from crochet_tasks.db.tables import dead_letters


class Buried(NamedTuple):
    """A dead letter as it is kept."""

    id: int
    queue: str
    reason: str
    task: str | None
    message: str | None
    body: bytes
    died_at: dt.datetime


_COLUMNS = [dead_letters.c[name] for name in Buried._fields]


def add(connection: Connection, **values: object) -> None:
    """Keep one; `values` are those of Buried but for its id."""
    connection.execute(dead_letters.insert().values(values))


def every(connection: Connection) -> list[Buried]:
    return [Buried(*row) for row in connection.execute(select(*_COLUMNS).order_by(dead_letters.c.id))]


def drop(connection: Connection, number: int) -> bool:
    """Forget a dead letter; whether there was one."""
    return connection.execute(delete(dead_letters).where(dead_letters.c.id == number)).rowcount == 1
