"""Second factors of keys, for logging in on the page."""

from __future__ import annotations

import datetime as dt
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from crochet_tasks.db.access import seconds
from crochet_tasks.db.access_tables import second_factors

FAILURES = 5
"""wrong codes, after which no more are looked at for LOCKED_SECONDS"""
LOCKED_SECONDS = 900.0


class FactorRow(NamedTuple):
    """`step`: the newest time step whose code was used; `recovery`: hashes of the codes that are left."""

    key: int
    secret: bytes
    confirmed_at: dt.datetime | None
    step: int
    failures: int
    recovery: list[bytes]
    locked: bool


_LOCKED = func.coalesce(second_factors.c.locked_until > func.clock_timestamp(), False).label("locked")
_ROW = select(*(second_factors.c[name] for name in FactorRow._fields[:-1]), _LOCKED)


def of(connection: Connection, key: int, *, lock: bool = False) -> FactorRow | None:
    query = _ROW.where(second_factors.c.key == key)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _row(row)


def _row(row: Any) -> FactorRow:
    return FactorRow(*row)


def offer(connection: Connection, key: int, secret: bytes) -> bool:
    """Store a secret that is not confirmed, in place of another such one; False where the key has a confirmed one."""
    new = insert(second_factors).values(key=key, secret=secret)
    now = {"secret": secret, "created_at": func.clock_timestamp()}
    unconfirmed = second_factors.c.confirmed_at.is_(None)
    offered = new.on_conflict_do_update(index_elements=["key"], set_=now, where=unconfirmed)
    return connection.execute(offered.returning(second_factors.c.key)).first() is not None


def accept(connection: Connection, key: int, **values: Any) -> None:
    """Record that a code was right, with what else it changes."""
    change = update(second_factors).where(second_factors.c.key == key)
    connection.execute(change.values(failures=0, locked_until=None, **values))


def confirm(connection: Connection, key: int, step: int, recovery: list[bytes]) -> None:
    accept(connection, key, step=step, recovery=recovery, confirmed_at=func.clock_timestamp())


_COPIED = ("secret", "step", "failures", "locked_until", "recovery")


def copy(connection: Connection, key: int, successor: int) -> None:
    """Give the key that takes the place of another one its confirmed second factor, as it is now."""
    row = of(connection, key, lock=True)
    if row is None or row.confirmed_at is None:
        return
    own = select(literal(successor), *(second_factors.c[name] for name in _COPIED)).where(second_factors.c.key == key)
    connection.execute(insert(second_factors).from_select(["key", *_COPIED], own))
    on = update(second_factors).where(second_factors.c.key == successor)
    connection.execute(on.values(confirmed_at=row.confirmed_at))  # for the audit it is turned on by an update


def fail(connection: Connection, row: FactorRow) -> bool:
    """Count a wrong code; whether that locks the key."""
    locks = row.failures + 1 >= FAILURES
    until = func.clock_timestamp() + seconds(LOCKED_SECONDS) if locks else None
    values = {"failures": 0 if locks else row.failures + 1, "locked_until": until}
    connection.execute(update(second_factors).where(second_factors.c.key == row.key).values(values))
    return locks


def remove(connection: Connection, key: int) -> bool:
    """Whether there was one that is confirmed."""
    gone = second_factors.delete().where(second_factors.c.key == key).returning(second_factors.c.confirmed_at)
    return connection.execute(gone).scalar() is not None
