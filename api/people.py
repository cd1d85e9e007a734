"""People who log in by OpenID Connect: the provider of this process, and sessions for what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from api import process, resources, security_log
from crochet_tasks.access import people, tokens
from crochet_tasks.access.tokens import Claims
from crochet_tasks.db import Connection, access
from crochet_tasks.db.access import Entry, KeyRow
from crochet_tasks.errors import LogInRefused
from crochet_tasks.schemas.access import Tokens

if TYPE_CHECKING:
    from crochet_tasks.access.oidc import Provider

T = TypeVar("T")


def provider() -> Provider:
    """Raises OidcOff."""
    from crochet_tasks.access.oidc import Provider  # 150 modules, which few deployments need

    return resources.once("crochet.oidc", lambda: Provider(process.settings()))


def begun(claims: dict[str, Any]) -> Claims:
    """A new session of the page for a person with these claims. Raises LogInRefused, TenantSuspended."""

    def begin(connection: Connection, row: KeyRow) -> Claims:
        return tokens.begin(connection, row, None, _entry(row, {"page": True, "oidc": True}), people.PERSON_SECONDS)[0]

    return _admitted(claims, begin)


def exchanged(id_token: str) -> Tokens:
    """Tokens for an ID token that a program got from the provider; it counts once.

    Raises LogInRefused, OidcOff, OidcUnavailable, TenantSuspended, TokensOff.
    """
    claims = provider().claims(id_token, None)
    signed = id_token.rpartition(".")[0]  # a signature may be written in several ways

    def exchange(connection: Connection, row: KeyRow) -> Tokens:
        entry = _entry(row, {"oidc": True})
        return tokens.exchange(connection, process.settings(), row, None, entry, people.PERSON_SECONDS)

    return _admitted(claims, exchange, hashlib.sha256(f"id token {signed}".encode()).digest())


def _admitted(claims: dict[str, Any], begin: Callable[[Connection, KeyRow], T], once: bytes | None = None) -> T:
    """What `begin` makes for a person with these claims. What refuses them is raised after the commit: it has ended
    their sessions.
    """
    with process.current().database.transaction() as connection:
        if once is not None and not access.once(connection, once):
            raise LogInRefused(reason="this ID token was used before")
        found = people.admitted(connection, process.settings(), claims, security_log.entry("person"))
        if isinstance(found, KeyRow):
            return begin(connection, found)
    raise found


def _entry(row: KeyRow, details: dict[str, Any]) -> Entry | None:
    entry = security_log.throttled("session.begun", row.prefix, details)
    return entry and entry._replace(tenant=row.tenant, key=row.prefix)
