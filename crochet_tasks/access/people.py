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
from typing import Any

from crochet_tasks.access.keys import PREFIX_LENGTH, SCOPES, Scope
from crochet_tasks.access.tokens import SESSION_SECONDS
from crochet_tasks.db import Connection, access, tenants
from crochet_tasks.db.access import Entry, KeyRow
from crochet_tasks.errors import LogInRefused, TenantUnknown
from crochet_tasks.settings import Settings

PERSON_SECONDS = min(SESSION_SECONDS, 12 * 3600)
"""how long a session lasts: then the provider is asked again, who may have taken a role away"""
ROLES: dict[str, Scope] = {"reader": "read", "writer": "write", "operator": "operate", "administrator": "admin"}


def admitted(connection: Connection, settings: Settings, claims: Mapping[str, Any], entry: Entry) -> KeyRow:
    """The row of a person with these claims, made at the first log-in.

    Raises LogInRefused for who has no role or no tenant here, or is revoked. `entry` is that of the request.
    """
    scope, tenant = scope_of(settings, claims), _tenant(connection, settings, claims)
    subject = f"{claims['iss']} {claims['sub']}"
    prefix = base64.b32encode(hashlib.sha256(f"person {subject}".encode()).digest()).decode().lower()[:PREFIX_LENGTH]
    values: dict[str, Any] = {"tenant": tenant, "scopes": [scope], "name": _name(claims)}
    row = access.key(connection, prefix, lock=True)
    if row is None:
        new = {**values, "prefix": prefix, "hash": secrets.token_bytes(32), "person": subject}
        row = access.add_key(connection, new, None)
        what = "person.created"
    elif row.person != subject:
        raise LogInRefused(reason="another key has your name here")  # 50 bits: by no accident
    else:
        what = "person.changed"
    if row is None or row.state != "good":
        raise LogInRefused(reason="your access was revoked here")
    if any(getattr(row, name) != value for name, value in values.items()):
        access.change_key(connection, row.id, values)
        access.end_sessions(connection, key=row.id)
        row = access.key(connection, prefix)
        assert row is not None
    elif what == "person.changed":
        return row
    details = {"name": row.name, "scopes": row.scopes}
    access.add_log_entry(connection, entry._replace(what=what, tenant=row.tenant, key=row.prefix, details=details))
    return row


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


def _tenant(connection: Connection, settings: Settings, claims: Mapping[str, Any]) -> int:
    named: Any = settings.oidc_tenant
    if settings.oidc_tenant_claim is not None:
        named = claim(claims, settings.oidc_tenant_claim)
    try:
        return tenants.number(connection, str(named))
    except TenantUnknown:
        raise LogInRefused(reason="the provider names no tenant that is here") from None


def _name(claims: Mapping[str, Any]) -> str:
    found = next((claims[name] for name in ("email", "preferred_username", "name", "sub") if claims.get(name)), "?")
    return re.sub(r"[\x00-\x1f\x7f]", "?", str(found))[:100]
