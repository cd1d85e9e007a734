"""People who log in by OpenID Connect: the provider of this process, and sessions for what it says."""

from __future__ import annotations

import hashlib
from typing import Any

from api import process, resources, security_log
from crochet_tasks.access import people, tokens
from crochet_tasks.access.oidc import Provider
from crochet_tasks.access.tokens import Claims
from crochet_tasks.db import access
from crochet_tasks.errors import LogInRefused, TenantSuspended
from crochet_tasks.schemas.reports import Tokens


def provider() -> Provider:
    """Raises OidcOff."""
    return resources.once("crochet.oidc", lambda: Provider(process.settings()))


def begun(claims: dict[str, Any]) -> Claims:
    """A new session of the page for a person with these claims. Raises LogInRefused, TenantSuspended."""
    with process.current().database.transaction() as connection:
        row = people.admitted(connection, process.settings(), claims, security_log.entry("person"))
        if row.suspended:
            raise TenantSuspended
        entry = security_log.throttled("session.begun", row.prefix, {"page": True, "oidc": True})
        entry = entry and entry._replace(tenant=row.tenant, key=row.prefix)
        found, _ = tokens.begin(connection, row, None, entry, people.PERSON_SECONDS)
    return found


def exchanged(id_token: str) -> Tokens:
    """Tokens for an ID token that a program got from the provider; it counts once.

    Raises LogInRefused, OidcOff, OidcUnavailable, TenantSuspended, TokensOff.
    """
    claims = provider().claims(id_token, None)
    signed = id_token.rpartition(".")[0]  # a signature may be written in several ways
    with process.current().database.transaction() as connection:
        if not access.once(connection, hashlib.sha256(f"id token {signed}".encode()).digest()):
            raise LogInRefused(reason="this ID token was used before")
        row = people.admitted(connection, process.settings(), claims, security_log.entry("person"))
        if row.suspended:
            raise TenantSuspended
        entry = security_log.throttled("session.begun", row.prefix, {"oidc": True})
        entry = entry and entry._replace(tenant=row.tenant, key=row.prefix)
        return tokens.exchange(connection, process.settings(), row, None, entry, people.PERSON_SECONDS)
