"""API keys: create, list, rotate, revoke, verify.

A key reads `crk_<prefix>_<secret>`. The prefix is its name in logs and commands. The secret has 256 random bits, is
shown once, and only its SHA-256 is stored: for a secret that long a slow hash would add nothing.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Mapping
from typing import Final, Literal, NamedTuple, get_args

from crochet_tasks.access.signing import hashed, split
from crochet_tasks.access.tenants import made
from crochet_tasks.db import Connection, access, corpora, second_factors, tenants
from crochet_tasks.db.access import Entry, KeyRow
from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import InvalidRequest, KeyEnded, KeyMadeAlready, KeyUnknown, TenantSuspended, TenantUnknown
from crochet_tasks.schemas.access import KeyLine, SecurityLine

Scope = Literal["read", "write", "operate", "admin"]
"""the roles reader, writer, operator and administrator: each includes those before it"""
Tier = Literal["standard", "high"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

PREFIX_LENGTH = 10
"""what is longer may be a secret in the wrong place: no error repeats it"""
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,100}")


class NewKey(NamedTuple):
    """A new key with its secret, which is stored nowhere."""

    line: KeyLine
    key: str


def recognised(row: KeyRow | None, hash: bytes) -> bool:  # noqa: A002 - it is its name
    """Whether a secret with this hash is the key's; takes the same time where there is no such key."""
    return hmac.compare_digest(bytes(32) if row is None else row.hash, hash) and row is not None


def included(scopes: Collection[str]) -> frozenset[Scope]:
    """The scopes with those they include: each includes those before it in SCOPES."""
    highest = max((SCOPES.index(scope) for scope in SCOPES if scope in scopes), default=-1)
    return frozenset(SCOPES[: highest + 1])


class KeySpec(NamedTuple):
    """The properties of a new key; it expires after `days`, None: never. `corpora`: for these only; empty: for all."""

    name: str
    scopes: tuple[Scope, ...] = ("read",)
    tenant: str = "default"
    tier: Tier = "standard"
    days: float | None = None
    corpora: tuple[str, ...] = ()


UNASKED = Entry("")
"""by a command, not by a request: the security log has the user of the database"""


def create(
    database: Database, spec: KeySpec, *, new_tenant: bool = False, by: Entry = UNASKED, once: str | None = None
) -> NewKey:
    """Make a key; raises InvalidRequest, CorpusUnknown, and TenantUnknown unless the tenant may be new; TenantSuspended
    where that of `by` was just deleted.

    A tenant that is made with it is in the security log, too.
    `once`: a word of the form that asks for it; the same word makes no second key and raises KeyMadeAlready.
    `by`, here and below, is the request that asked for it: its caller, address and id go to the security log.
    """
    if not _NAME.fullmatch(spec.name):
        raise InvalidRequest(problem="a key's name has 1 to 100 characters, none of them a control character")
    with database.transaction() as connection:
        if new_tenant:
            made(connection, spec.tenant, by._replace(what="tenant.created", details={"name": spec.tenant}))
        number = _tenant(connection, spec.tenant, by)
        values = {"tenant": number, "name": spec.name, "scopes": _sorted(spec.scopes), "tier": spec.tier}
        values["corpora"] = sorted({corpora.named(connection, name, number).id for name in spec.corpora}) or None
        lives = None if spec.days is None else spec.days * 86_400
        row, key = _add(connection, values, lives, once)
        line = _line(connection, row, spec.tenant)
        details = {"name": row.name, "scopes": row.scopes, "corpora": line.corpora, "expires": _iso(row.expires_at)}
        access.add_log_entry(connection, _entry(by, "key.created", row, details))
    return NewKey(line, key)


def _tenant(connection: Connection, name: str, by: Entry) -> int:
    """The tenant of a new key, which is not deleted before the commit."""
    try:
        return tenants.number(connection, name, share=True)
    except TenantUnknown:
        if by.tenant is not None and tenants.name(connection, by.tenant) == name:
            raise TenantSuspended from None  # the caller's own, deleted a moment ago: others' names are not theirs
        raise


def _sorted(scopes: Collection[Scope]) -> list[Scope]:
    return sorted(set(scopes), key=SCOPES.index)


def _add(
    connection: Connection, values: dict[str, object], lives: float | None, once: str | None = None
) -> tuple[KeyRow, str]:
    chosen = secrets.token_bytes(7) if once is None else hashlib.sha256(f"key of form {once}".encode()).digest()
    prefix = base64.b32encode(chosen).decode().lower()[:PREFIX_LENGTH]
    secret = secrets.token_urlsafe(32)
    row = access.add_key(connection, {**values, "prefix": prefix, "hash": hashed(secret)}, lives)
    if row is None:
        raise KeyMadeAlready(key=prefix)
    return row, f"crk_{prefix}_{secret}"


def listed(database: Database, tenant: str | None = None) -> list[KeyLine]:
    """All keys, or those of a tenant; raises TenantUnknown."""
    with database.snapshot() as connection:
        number = None if tenant is None else tenants.number(connection, tenant)
        return [_line(connection, row, of) for row, of in access.every_key(connection, number)]


def page(
    database: Database, tenant: int | None, begin: int | None, most: int, *, newer: bool = False
) -> list[tuple[int, KeyLine]]:
    """Keys and their numbers, of a tenant or of all, as db.access.keys_page."""
    with database.snapshot() as connection:
        found = access.keys_page(connection, tenant, begin, most, newer=newer)
        return [(row.id, _line(connection, row, of)) for row, of in found]


def one(database: Database, name: str, tenant: int | None) -> KeyLine:
    """A key of a tenant, or of any; raises KeyUnknown."""
    prefix = _prefix(name)
    with database.snapshot() as connection:
        row = access.key(connection, prefix)
        if row is None or tenant not in (None, row.tenant):
            raise KeyUnknown(key=prefix if len(prefix) <= PREFIX_LENGTH else "...")
        return _line(connection, row, tenants.name(connection, row.tenant))


def _entry(by: Entry, what: str, of: KeyRow, details: Mapping[str, object]) -> Entry:
    """The log line about a key. Its tenant sees it; `by` in its details is the key that acted, if one did."""
    if by.key is not None:
        details = {**details, "by": by.key}
    return by._replace(what=what, tenant=of.tenant, key=of.prefix, details={**details} or None)


def rotate(
    database: Database, name: str, grace: float = 0.0, *, tenant: int | None = None, by: Entry = UNASKED
) -> NewKey:
    """A key in place of another one, which ends `grace` seconds from now; it ends when the other would have ended.

    It has the other's second factor: the same phone, and the recovery codes that are left.

    Raises KeyUnknown, also for a key of another tenant where `tenant` is given, and KeyEnded where the other is not
    good any more or has a successor already.
    """
    with database.transaction() as connection:
        old, of = _good(connection, name, tenant)
        if old.person is not None:
            raise InvalidRequest(problem="a person logs in at the provider: there is no key to rotate")
        if old.successor is not None:
            raise KeyEnded(key=old.prefix, state="rotated")
        kept = ("tenant", "name", "scopes", "corpora", "tier", "expires_at")
        row, key = _add(connection, {name: getattr(old, name) for name in kept}, None)
        access.rotated(connection, old.id, row.id, grace)
        second_factors.copy(connection, old.id, row.id)
        if grace <= 0:
            access.end_sessions(connection, key=old.id)
        details = {"successor": row.prefix, "grace": grace}
        access.add_log_entry(connection, _entry(by, "key.rotated", old, details))
        return NewKey(_line(connection, row, of), key)


def revoke(database: Database, name: str, *, tenant: int | None = None, by: Entry = UNASKED) -> KeyLine:
    """End a key, now: the next request with it, or with a token got for it, is refused. Raises as `rotate`."""
    with database.transaction() as connection:
        row, of = _good(connection, name, tenant)
        access.revoke(connection, row.id)
        access.end_sessions(connection, key=row.id)
        access.add_log_entry(connection, _entry(by, "key.revoked", row, {}))
        ended = access.key(connection, row.prefix)
        assert ended is not None
        return _line(connection, ended, of)


def reset_second_factor(database: Database, name: str, *, tenant: int | None = None, by: Entry = UNASKED) -> KeyLine:
    """Take the second factor of a key away: its holder has lost it. Raises KeyUnknown, KeyEnded."""
    with database.transaction() as connection:
        row, of = _good(connection, name, tenant)
        if second_factors.remove(connection, row.id):
            access.add_log_entry(connection, _entry(by, "second_factor.disabled", row, {}))
        return _line(connection, row, of)


def log_page(
    database: Database,
    tenant: int | None,
    begin: int | None,
    most: int,
    *,
    newer: bool = False,
    key: str | None = None,
    what: str | None = None,
) -> list[tuple[int, SecurityLine]]:
    """Lines of the security log and their numbers, of a tenant or of all, as db.access.log_page."""
    prefix = None if key is None else _prefix(key)
    with database.snapshot() as connection:
        return access.log_page(connection, begin, most, newer=newer, key=prefix, tenant=tenant, what=what)


def log(
    database: Database,
    most: int,
    *,
    key: str | None = None,
    tenant: str | None = None,
    since: dt.datetime | None = None,
) -> list[SecurityLine]:
    """The newest lines of the security log, oldest first; raises TenantUnknown. The key need not exist."""
    with database.snapshot() as connection:
        number = None if tenant is None else tenants.number(connection, tenant)
        prefix = None if key is None else _prefix(key)
        found = access.log_entries(connection, most, key=prefix, tenant=number, since=since)
    return found[::-1]


def _prefix(name: str) -> str:
    """The prefix of a key that is given whole or by its prefix."""
    parts = split(name)
    return parts[0] if parts else name.removeprefix("crk_")


def _good(connection: Connection, name: str, tenant: int | None) -> tuple[KeyRow, str]:
    """The key of that prefix, locked, and its tenant's name."""
    prefix = _prefix(name)
    row = access.key(connection, prefix, lock=True)
    if row is None or tenant not in (None, row.tenant):
        raise KeyUnknown(key=prefix if len(prefix) <= PREFIX_LENGTH else "...")
    if row.state != "good":
        raise KeyEnded(key=prefix, state=row.state)
    return row, tenants.name(connection, row.tenant)


def _line(connection: Connection, row: KeyRow, tenant: str) -> KeyLine:
    return KeyLine(
        key=row.prefix,
        tenant=tenant,
        name=row.name,
        scopes=row.scopes,
        person=row.person is not None,
        corpora=None if row.corpora is None else corpora.names(connection, row.corpora),
        tier=row.tier,
        state="rotated" if row.state == "expired" and row.successor is not None else row.state,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        rotated_at=row.rotated_at,
    )


def _iso(moment: dt.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
