"""Tenants in the database. One that was deleted stays as a row, because its keys and the audit name it."""

from __future__ import annotations

import datetime as dt
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, func, select, update
from sqlalchemy.dialects.postgresql import insert

from crochet_tasks.db.access_tables import keys, sessions, tenants
from crochet_tasks.db.tables import corpora
from crochet_tasks.errors import TenantUnknown

_THERE = tenants.c.removed_at.is_(None)


def number(connection: Connection, name: str, *, lock: bool = False, share: bool = False) -> int:
    """The tenant's number; raises TenantUnknown.

    With `lock` its row is locked until the transaction ends, to change it. With `share` it is not changed meanwhile:
    for what makes rows of a tenant, which must not come after its end.
    """
    query = select(tenants.c.id).where(tenants.c.name == name, _THERE)
    if lock or share:
        query = query.with_for_update(read=not lock)
    found = connection.execute(query).scalar_one_or_none()
    if found is None:
        known = connection.execute(select(tenants.c.name).where(_THERE).order_by(tenants.c.name)).scalars()
        raise TenantUnknown(tenant=name, known=", ".join(known))
    return int(found)


def name(connection: Connection, number: int) -> str:
    return str(connection.execute(select(tenants.c.name).where(tenants.c.id == number)).scalar_one())


def add(connection: Connection, name: str) -> int | None:
    """The number of a new tenant; None where there is one of that name."""
    new = insert(tenants).values(name=name).on_conflict_do_nothing().returning(tenants.c.id)
    found: int | None = connection.execute(new).scalar()
    return found


class TenantRow(NamedTuple):
    """A tenant, with the number of its corpora that are not deleted, and of its keys that are good."""

    id: int
    name: str
    created_at: dt.datetime
    max_corpora: int | None
    rate: int | None
    weight: int
    max_searches: int | None
    max_orthos: int | None
    max_texts: int | None
    max_bytes: int | None
    full_at: dt.datetime | None
    suspended_at: dt.datetime | None
    corpora: int
    keys: int


_GOOD = and_(
    keys.c.tenant == tenants.c.id,
    keys.c.revoked_at.is_(None),
    func.coalesce(keys.c.expires_at > func.clock_timestamp(), True),
)
_ROWS = select(
    *(tenants.c[column] for column in TenantRow._fields[:-2]),
    select(func.count()).where(corpora.c.tenant == tenants.c.id, corpora.c.removed_at.is_(None)).scalar_subquery(),
    select(func.count()).where(_GOOD).scalar_subquery(),
).where(_THERE)


def one(connection: Connection, number: int) -> TenantRow:
    return _row(connection.execute(_ROWS.where(tenants.c.id == number)).one())


def page(connection: Connection, begin: int | None, most: int, *, newer: bool = False) -> list[TenantRow]:
    """The newest tenants, or those next to one, by its number: older or newer ones."""
    query = _ROWS
    if begin is not None:
        query = query.where(tenants.c.id > begin if newer else tenants.c.id < begin)
    rows = connection.execute(query.order_by(tenants.c.id if newer else tenants.c.id.desc()).limit(most))
    return [_row(row) for row in rows]


def _row(row: Any) -> TenantRow:
    return TenantRow(*row)


def change(connection: Connection, number: int, values: dict[str, Any]) -> None:
    """Set columns of a tenant; raises what a unique violation raises where its new name is taken."""
    connection.execute(update(tenants).where(tenants.c.id == number).values(values))


def suspend(connection: Connection, number: int) -> None:
    """Suspend a tenant, and pause those of its corpora that are not paused, as of the same moment."""
    change(connection, number, {"suspended_at": func.now()})
    mine = update(corpora).where(corpora.c.tenant == number, corpora.c.removed_at.is_(None))
    values = {"paused_at": func.now(), "revision": corpora.c.revision + 1}
    connection.execute(mine.where(corpora.c.paused_at.is_(None)).values(values))


def resume(connection: Connection, number: int) -> list[int]:
    """End a suspension; returns the corpora that it had paused, which go on. Others stay paused."""
    at = select(tenants.c.suspended_at).where(tenants.c.id == number).scalar_subquery()
    mine = update(corpora).where(corpora.c.tenant == number, corpora.c.paused_at == at)
    values = {"paused_at": None, "revision": corpora.c.revision + 1}
    resumed = connection.execute(mine.values(values).returning(corpora.c.id)).scalars().all()
    change(connection, number, {"suspended_at": None})
    return list(resumed)


def hide(connection: Connection, number: int) -> None:
    """Delete a tenant: its name is free after the commit."""
    change(connection, number, {"removed_at": func.clock_timestamp()})


def max_corpora(connection: Connection, number: int, default: int) -> int:
    own = connection.execute(select(tenants.c.max_corpora).where(tenants.c.id == number)).scalar_one()
    return default if own is None else int(own)


def end_keys(connection: Connection, number: int) -> None:
    """Revoke all keys of a tenant, without which no session counts, and end the sessions of its people.

    People are not revoked: their provider may have them in another tenant later.
    """
    mine, now = keys.c.tenant == number, func.clock_timestamp()
    held = update(keys).where(mine, keys.c.person.is_(None), keys.c.revoked_at.is_(None))
    connection.execute(held.values(revoked_at=now))
    theirs = sessions.c.key.in_(select(keys.c.id).where(mine, keys.c.person.is_not(None)))
    connection.execute(update(sessions).where(theirs, sessions.c.revoked_at.is_(None)).values(revoked_at=now))
