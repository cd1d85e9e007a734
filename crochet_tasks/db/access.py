"""Keys, sessions and the security log in the database. The database's clock decides what is valid."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    Boolean,
    Connection,
    Integer,
    Interval,
    Select,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from crochet_tasks.db import sessions as sessions_of_database
from crochet_tasks.db.access_tables import keys, refresh_tokens, security_log, sessions, signatures, tenants
from crochet_tasks.schemas.access import SecurityLine
from crochet_tasks.telemetry import metrics

State = Literal["good", "revoked", "expired"]


class KeyRow(NamedTuple):
    """A key as it is now; `stale`: its recorded last use is more than a minute old. `rate`: its tenant's own limit."""

    id: int
    tenant: int
    prefix: str
    hash: bytes
    name: str
    scopes: list[str]
    corpora: list[int] | None
    tier: str
    created_at: dt.datetime
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None
    last_used_at: dt.datetime | None
    rotated_at: dt.datetime | None
    successor: int | None
    person: str | None
    addresses: list[str]
    suspended: bool
    """its tenant is, or was deleted"""
    rate: int | None
    state: State
    stale: bool


_NOW = func.clock_timestamp()
_STATE = case((keys.c.revoked_at.is_not(None), "revoked"), (keys.c.expires_at <= _NOW, "expired"), else_="good").label(
    "state"
)
_STALE = func.coalesce(keys.c.last_used_at < _NOW - dt.timedelta(minutes=1), True).label("stale")
_OF = "FROM tenants WHERE tenants.id = keys.tenant"  # as text: RETURNING correlates no subquery of SQLAlchemy's
_ENDED = f"(SELECT suspended_at IS NOT NULL OR removed_at IS NOT NULL {_OF})"
_SUSPENDED = literal_column(_ENDED, Boolean).label("suspended")
_RATE = literal_column(f"(SELECT rate {_OF})", Integer).label("rate")
_KEY = [*(keys.c[name] for name in KeyRow._fields[:-4]), _SUSPENDED, _RATE, _STATE, _STALE]


def seconds(number: float) -> Any:
    """As SQL's interval."""
    return cast(dt.timedelta(seconds=number), Interval)


# ── keys ────────────────────────────────────────────────────────────────────────────────────────


def add_key(connection: Connection, values: dict[str, Any], lives: float | None) -> KeyRow | None:
    """A new key, which ends after so many seconds, or at `expires_at` of its values, or never; None where there is one
    with its prefix.
    """
    ends = {} if lives is None else {"expires_at": _NOW + seconds(lives)}
    new = insert(keys).values({**values, **ends}).on_conflict_do_nothing(index_elements=["prefix"])
    row = connection.execute(new.returning(*_KEY)).first()
    return None if row is None else KeyRow(*row)


def key(connection: Connection, prefix: str, *, lock: bool = False) -> KeyRow | None:
    row = connection.execute(_BY_PREFIX.with_for_update() if lock else _BY_PREFIX, {"prefix": prefix}).first()
    return None if row is None else KeyRow(*row)


_BY_PREFIX = select(*_KEY).where(keys.c.prefix == bindparam("prefix"))
"""compiled once: every request runs it"""


def every_key(connection: Connection, tenant: int | None) -> list[tuple[KeyRow, str]]:
    """Keys and the names of their tenants, oldest first."""
    return _keys(connection, _EVERY_KEY.order_by(keys.c.id), tenant)


def keys_page(
    connection: Connection, tenant: int | None, begin: int | None, most: int, *, newer: bool = False
) -> list[tuple[KeyRow, str]]:
    """The newest keys and the names of their tenants, or those next to one, by its number: older or newer ones."""
    query = _EVERY_KEY.order_by(keys.c.id if newer else keys.c.id.desc()).limit(most)
    if begin is not None:
        query = query.where(keys.c.id > begin if newer else keys.c.id < begin)
    return _keys(connection, query, tenant)


_EVERY_KEY = select(*_KEY, tenants.c.name.label("of")).join(tenants, tenants.c.id == keys.c.tenant)


def _keys(connection: Connection, query: Select[Any], tenant: int | None) -> list[tuple[KeyRow, str]]:
    rows = connection.execute(query if tenant is None else query.where(keys.c.tenant == tenant))
    return [(KeyRow(*row[:-1]), row[-1]) for row in rows]


def change_key(connection: Connection, key: int, values: dict[str, Any]) -> None:
    connection.execute(update(keys).where(keys.c.id == key).values(values))


MOST_ADDRESSES = 50
"""of a key that are remembered, the newest"""


def add_address(connection: Connection, row: KeyRow, network: str) -> bool:
    """Remember a network that a key is used from; whether it is a new one, and not the first."""
    some = func.trim_array(keys.c.addresses, func.greatest(0, func.cardinality(keys.c.addresses) - MOST_ADDRESSES + 1))
    unknown = literal(network) != keys.c.addresses.all_()
    change = update(keys).where(keys.c.id == row.id, unknown).values(addresses=func.array_prepend(network, some))
    return connection.execute(change).rowcount == 1 and bool(row.addresses)


def used(connection: Connection, row: KeyRow) -> bool:
    """Record a key's last use, unless another transaction has done so since `row` was read, or is doing it.

    Returns whether this was its first use; of concurrent callers only one gets True.
    """
    unchanged = keys.c.last_used_at.is_not_distinct_from(row.last_used_at)
    free = select(keys.c.id).where(keys.c.id == row.id, unchanged).with_for_update(skip_locked=True)
    updated = connection.execute(update(keys).where(keys.c.id.in_(free), unchanged).values(last_used_at=_NOW)).rowcount
    return updated == 1 and row.last_used_at is None


def revoke(connection: Connection, key: int) -> None:
    connection.execute(update(keys).where(keys.c.id == key).values(revoked_at=_NOW))


def rotated(connection: Connection, key: int, successor: int, grace: float) -> None:
    """Let a key end `grace` seconds from now, if it does not end earlier, because there is another one."""
    end = func.least(keys.c.expires_at, _NOW + seconds(grace))  # least() passes over NULL
    values = {"rotated_at": _NOW, "successor": successor, "expires_at": end}
    connection.execute(update(keys).where(keys.c.id == key).values(values))


# ── sessions ────────────────────────────────────────────────────────────────────────────────────


class SessionRow(NamedTuple):
    id: uuid.UUID
    key: str
    """prefix of the key"""
    scopes: list[str]
    good: bool


SESSIONS_OF_A_KEY = 100
"""a new one ends and deletes the oldest"""


def add_session(connection: Connection, number: uuid.UUID, key: int, scopes: Sequence[str], lives: float) -> None:
    """A new session of a key. Deletes those that ended, and all but the newest SESSIONS_OF_A_KEY."""
    connection.execute(select(keys.c.id).where(keys.c.id == key).with_for_update(key_share=True))  # one at a time
    mine = select(sessions.c.id).where(sessions.c.key == key)
    kept = mine.where(sessions.c.expires_at >= _NOW, sessions.c.revoked_at.is_(None))
    kept = kept.order_by(sessions.c.created_at.desc(), sessions.c.id).limit(SESSIONS_OF_A_KEY - 1)
    connection.execute(sessions.delete().where(sessions.c.key == key, sessions.c.id.not_in(kept)))
    values = {"id": number, "key": key, "scopes": list(scopes), "expires_at": _NOW + seconds(lives)}
    connection.execute(insert(sessions).values(values))


def session(connection: Connection, number: uuid.UUID) -> SessionRow | None:
    good = and_(sessions.c.revoked_at.is_(None), sessions.c.expires_at > _NOW)
    query = select(sessions.c.id, keys.c.prefix, sessions.c.scopes, good).join(keys, keys.c.id == sessions.c.key)
    row = connection.execute(query.where(sessions.c.id == number)).first()
    return None if row is None else SessionRow(*row)


def end_sessions(
    connection: Connection, *, key: int | None = None, number: uuid.UUID | None = None, but: uuid.UUID | None = None
) -> int:
    """End one session, or all of a key `but` one; how many had not ended yet."""
    which = sessions.c.id == number if key is None else sessions.c.key == key
    change = update(sessions).where(which, sessions.c.revoked_at.is_(None)).values(revoked_at=_NOW)
    if but is not None:
        change = change.where(sessions.c.id != but)
    return connection.execute(change).rowcount


def add_refresh_token(connection: Connection, hash: bytes, session: uuid.UUID) -> None:  # noqa: A002 - it is its name
    connection.execute(insert(refresh_tokens).values(hash=hash, session=session))


def use_refresh_token(connection: Connection, hash: bytes) -> tuple[uuid.UUID, bool] | None:  # noqa: A002 - as above
    """The session of a refresh token, and whether this was its first use; None where there is no such token."""
    first = update(refresh_tokens).where(refresh_tokens.c.hash == hash, refresh_tokens.c.used_at.is_(None))
    number = connection.execute(first.values(used_at=_NOW).returning(refresh_tokens.c.session)).scalar_one_or_none()
    if number is not None:
        return number, True
    again = select(refresh_tokens.c.session).where(refresh_tokens.c.hash == hash)
    number = connection.execute(again).scalar_one_or_none()
    return None if number is None else (number, False)


# ── signatures ──────────────────────────────────────────────────────────────────────────────────


ONCE_SECONDS = 900.0
"""for which `once` remembers: what is given to it must count for less, by the clock of any machine"""


def once(connection: Connection, signature: bytes) -> bool:
    """Store a signature, or the hash of what counts once; return whether it is new."""
    connection.execute(signatures.delete().where(signatures.c.seen_at < _NOW - seconds(ONCE_SECONDS)))
    new = insert(signatures).values(signature=signature).on_conflict_do_nothing().returning(signatures.c.signature)
    return connection.execute(new).first() is not None


# ── rate limits ─────────────────────────────────────────────────────────────────────────────────


def count_requests(connection: Connection, client: str, slot: int, block: int) -> tuple[int, int]:
    """Count `block` more requests of a client in a window; all of this window, and those of the window before."""
    total, before = connection.execute(text(_COUNT), {"client": client, "slot": slot, "block": block}).one()
    return int(total), int(before)


_COUNT = """
    INSERT INTO request_counts AS counted (client, slot, requests) VALUES (:client, :slot, :block)
    ON CONFLICT (client, slot) DO UPDATE SET requests = counted.requests + :block
    RETURNING requests,
              coalesce((SELECT requests FROM request_counts WHERE client = :client AND slot = :slot - 1), 0)
    """


# ── the security log ────────────────────────────────────────────────────────────────────────────


class Entry(NamedTuple):
    """A new entry of the security log. It must hold no secret."""

    what: str
    tenant: int | None = None
    key: str | None = None
    address: str | None = None
    request: str | None = None
    details: dict[str, Any] | None = None


def add_log_entry(connection: Connection, entry: Entry) -> None:
    """Alerts follow from metrics.SECURITY_EVENTS, which are counted with the commit."""
    if entry.what in metrics.SECURITY_EVENTS:
        sessions_of_database.once_committed(connection, lambda: metrics.SECURITY.add(event=entry.what))
    connection.execute(insert(security_log).values(entry._asdict()))


def log_entries(
    connection: Connection,
    most: int = 100,
    *,
    key: str | None = None,
    tenant: int | None = None,
    since: dt.datetime | None = None,
) -> list[SecurityLine]:
    """The newest lines, newest first. Of a key's prefix also requests of strangers that claimed it."""
    found = log_page(connection, None, most, key=key, tenant=tenant, since=since)
    return [line for _, line in found]


def log_page(
    connection: Connection,
    begin: int | None,
    most: int,
    *,
    newer: bool = False,
    key: str | None = None,
    tenant: int | None = None,
    since: dt.datetime | None = None,
    what: str | None = None,
) -> list[tuple[int, SecurityLine]]:
    """The newest lines and their numbers, or those next to one: older or newer ones. `what`: all that begins so.

    Lines of a key are also those of what was done to work or keys with it.
    """
    own = (security_log.c[name] for name in SecurityLine.model_fields if name != "tenant")
    query = select(security_log.c.id, *own, tenants.c.name.label("tenant"))
    query = query.outerjoin_from(security_log, tenants, tenants.c.id == security_log.c.tenant)
    if key is not None:
        said = (security_log.c.details[name].astext == key for name in ("claimed", "by"))
        query = query.where(or_(security_log.c.key == key, *said))
    if tenant is not None:
        query = query.where(security_log.c.tenant == tenant)
    if since is not None:
        query = query.where(security_log.c.at >= since)
    if what is not None:
        query = query.where(security_log.c.what.startswith(what, autoescape=True))
    if begin is not None:
        query = query.where(security_log.c.id > begin if newer else security_log.c.id < begin)
    rows = connection.execute(query.order_by(security_log.c.id if newer else security_log.c.id.desc()).limit(most))
    return [(row.id, SecurityLine.model_validate(row, from_attributes=True)) for row in rows]
