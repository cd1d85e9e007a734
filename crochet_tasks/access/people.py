"""People: who logs in by OpenID Connect. In the database a person is a key that nobody holds.

So sessions, tokens, limits, audit and revoking are those of keys. Tenant and scope are read from the claims at each
log-in; what has changed ends the sessions that there are.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import Any, TypeGuard

from crochet_tasks.access.keys import PREFIX_LENGTH, SCOPES, Scope
from crochet_tasks.access.tokens import SESSION_SECONDS
from crochet_tasks.db import Connection, access, tenants
from crochet_tasks.db.access import Entry, KeyRow
from crochet_tasks.errors import LogInRefused, TenantSuspended, TenantUnknown
from crochet_tasks.settings import Settings

PERSON_SECONDS = min(SESSION_SECONDS, 12 * 3600)
"""how long a session lasts: then the provider is asked again, who may have taken a role away"""
SUBJECT_BYTES = 1000
"""of a subject; with its issuer it has to fit into an index"""
ROLES: dict[str, Scope] = {"reader": "read", "writer": "write", "operator": "operate", "administrator": "admin"}


def admitted(
    connection: Connection, settings: Settings, claims: Mapping[str, Any], entry: Entry
) -> KeyRow | LogInRefused | TenantSuspended:
    """The row of a person with these claims, made at the first log-in; or why they may not log in, to be raised once
    the transaction is committed: it ends the sessions that they had.

    Raises LogInRefused where there is nothing to commit. `entry` is that of the request.
    """
    subject = _subject(claims)
    prefix = base64.b32encode(hashlib.sha256(f"person {subject}".encode()).digest()).decode().lower()[:PREFIX_LENGTH]
    try:
        scope = scope_of(settings, claims)
        tenant = _tenant(connection, settings, claims)
    except LogInRefused as refused:
        _end(connection, access.key(connection, prefix), subject, entry, refused)
        return refused
    values: dict[str, Any] = {"tenant": tenant, "scopes": [scope], "name": _name(claims)}
    row, is_new = _row(connection, prefix, subject, values)
    what = "person.created" if is_new else None
    if any(getattr(row, name) != value for name, value in values.items()):
        access.change_key(connection, row.id, values)
        access.end_sessions(connection, key=row.id)
        changed = access.key(connection, prefix)
        assert changed is not None
        row, what = changed, "person.changed"
    if row.suspended and is_new:
        raise TenantSuspended
    if what is not None:
        details = {"name": row.name, "scopes": row.scopes}
        access.add_log_entry(connection, entry._replace(what=what, tenant=row.tenant, key=row.prefix, details=details))
    return TenantSuspended() if row.suspended else row


def _row(connection: Connection, prefix: str, subject: str, values: dict[str, Any]) -> tuple[KeyRow, bool]:
    """The row of a person, locked, and whether it is new. Raises LogInRefused where it is revoked."""
    row = access.key(connection, prefix, lock=True)
    is_new = row is None
    if row is None:
        new = {**values, "prefix": prefix, "hash": secrets.token_bytes(32), "person": subject}
        row = access.add_key(connection, new, None)
    if row is None:  # another first log-in was quicker
        row, is_new = access.key(connection, prefix, lock=True), False
    if row is None or row.state != "good":
        raise LogInRefused(reason="your access was revoked here")
    if row.person != subject:
        raise LogInRefused(reason="another key has your name here")  # 50 bits: by no accident
    return row, is_new


def _end(connection: Connection, row: KeyRow | None, subject: str, entry: Entry, why: LogInRefused) -> None:
    """End the sessions of a person whom the provider lets in no longer."""
    if row is None or row.person != subject or not access.end_sessions(connection, key=row.id):
        return
    details = {"session": "all", "reason": why.context["reason"]}
    ended = entry._replace(what="session.ended", tenant=row.tenant, key=row.prefix, details=details)
    access.add_log_entry(connection, ended)


def scope_of(settings: Settings, claims: Mapping[str, Any]) -> Scope:
    """The highest scope that the roles in the claims give; raises LogInRefused."""
    found = claim(claims, settings.oidc_roles_claim)
    listed = found if isinstance(found, list) else [found]
    named = {each for each in listed if isinstance(each, str)}
    by_role = roles(settings.oidc_roles)
    scopes = {by_role[name] for name in named if name in by_role}
    if not scopes:
        raise LogInRefused(reason="the provider gives you no role here")
    return max(scopes, key=SCOPES.index)


def roles(setting: str | None) -> dict[str, Scope]:
    """What CROCHET_OIDC_ROLES says: the scope of each role. By default roles are called as in ROLES."""
    if setting is None:
        return ROLES
    pairs = (each.partition("=") for each in setting.split(","))
    return {name.strip(): next(known for known in SCOPES if known == scope.strip()) for name, _, scope in pairs}


def claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by names with dots between them: of an object in an object."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _subject(claims: Mapping[str, Any]) -> str:
    """Issuer and subject. Raises LogInRefused for a subject that no provider may give (OpenID Connect Core, 2)."""
    subject = claims["sub"]
    if not _is_plain(subject) or not 0 < len(subject.encode()) <= SUBJECT_BYTES:
        raise LogInRefused(reason=f"the provider gives you no subject of 1 to {SUBJECT_BYTES} bytes of plain text")
    return f"{claims['iss']} {subject}"


def _tenant(connection: Connection, settings: Settings, claims: Mapping[str, Any]) -> int:
    """The tenant's number; it is not deleted before the transaction is over. Raises LogInRefused."""
    named: Any = settings.oidc_tenant
    if settings.oidc_tenant_claim is not None:
        named = claim(claims, settings.oidc_tenant_claim)
    try:
        if _is_plain(named):
            return tenants.number(connection, named, share=True)
    except TenantUnknown:
        pass
    raise LogInRefused(reason="the provider names no tenant that is here")


def _is_plain(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _ODD.search(value) is None


def _name(claims: Mapping[str, Any]) -> str:
    found = next((claims[name] for name in ("email", "preferred_username", "name", "sub") if claims.get(name)), "?")
    return _ODD.sub("?", str(found))[:100]


_ODD = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""characters of control, and halves of pairs, which are no text"""
