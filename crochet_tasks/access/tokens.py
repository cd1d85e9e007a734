"""Access tokens: short-lived JWTs that a key is exchanged for, and the refresh tokens that renew them.

A page keeps a token instead of the key. An access token is valid for ten minutes, and only while its session and its
key are: each request looks up both. A refresh token is valid once. A second use means that it was stolen,
so it ends the session.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Collection
from typing import NamedTuple

import jwt

from crochet_tasks.access.keys import SCOPES, Scope, included
from crochet_tasks.access.signing import PREFIX, hashed
from crochet_tasks.db import Connection, access
from crochet_tasks.db.access import Entry, KeyRow
from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import Forbidden, TenantSuspended, TokensOff, Unauthorized
from crochet_tasks.schemas.access import Tokens
from crochet_tasks.settings import Settings

ACCESS_SECONDS = 600
SESSION_SECONDS = 30 * 86_400
ISSUER, AUDIENCE, ALGORITHM = "crochet", "crochet-api", "HS256"
_REFRESH = "crr_"


class Claims(NamedTuple):
    """The claims of a token; they count only while its session is valid."""

    key: str
    """prefix of the key"""
    session: uuid.UUID


def exchange(
    connection: Connection,
    settings: Settings,
    key: KeyRow,
    scopes: Collection[Scope] | None,
    entry: Entry | None = None,
    lives: float = SESSION_SECONDS,
) -> Tokens:
    """Begin a session of a key, with these of its scopes or all, that lives so many seconds.

    Raises TokensOff, Forbidden (a scope too many).

    `entry` is written to the security log with the number of the session.
    """
    secret = _secret(settings)
    claims, requested = begin(connection, key, scopes, entry, lives)
    return _tokens(connection, secret, claims, requested)


def begin(
    connection: Connection,
    key: KeyRow,
    scopes: Collection[Scope] | None,
    entry: Entry | None = None,
    lives: float = SESSION_SECONDS,
) -> tuple[Claims, frozenset[Scope]]:
    """Begin a session as `exchange` does, without tokens: for callers whose claims no one else can write."""
    requested = granted(key, scopes)
    session = uuid.uuid4()
    access.add_session(connection, session, key.id, sorted(requested, key=SCOPES.index), lives)
    if entry is not None:
        access.add_log_entry(connection, entry._replace(details={**(entry.details or {}), "session": str(session)}))
    return Claims(key.prefix, session), requested


def granted(key: KeyRow, scopes: Collection[Scope] | None) -> frozenset[Scope]:
    """What a session of the key may do that is asked for with these scopes; raises Forbidden for one too many."""
    allowed = included(key.scopes)
    requested = allowed if scopes is None else included(scopes)
    if not requested <= allowed:
        raise Forbidden(needed=max(requested - allowed, key=SCOPES.index))
    return requested


def refresh(database: Database, settings: Settings, token: str, entry: Entry) -> Tokens:
    """New tokens for a refresh token, which is used up by it; raises TokensOff or Unauthorized.

    Raises TenantSuspended while the tenant is, which uses up nothing. Where a refusal ends the session, the security
    log says so; `entry` describes the request.
    """
    secret = _secret(settings)
    with database.transaction() as connection:
        found = access.use_refresh_token(connection, hashed(token)) if token.startswith(_REFRESH) else None
        session = None if found is None else access.session(connection, found[0])
        key = None if session is None else access.key(connection, session.key)
        if found is not None and session is not None and key is not None:
            if found[1] and session.good and key.state == "good":
                if key.suspended:
                    raise TenantSuspended  # and the token is as if it had not been sent
                return _tokens(connection, secret, Claims(key.prefix, session.id), included(session.scopes))
            if access.end_sessions(connection, number=session.id):
                what = "session.ended" if found[1] else "session.stolen"
                details = {"session": str(session.id)}
                access.add_log_entry(
                    connection, entry._replace(what=what, tenant=key.tenant, key=key.prefix, details=details)
                )
    raise Unauthorized(reason="the refresh token is not good, or was used before")


def _tokens(connection: Connection, secret: str, claims: Claims, scopes: Collection[Scope]) -> Tokens:
    again = f"{_REFRESH}{secrets.token_urlsafe(32)}"
    access.add_refresh_token(connection, hashed(again), claims.session)
    now = int(time.time())
    payload = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": claims.key,
        "sid": str(claims.session),
        "iat": now,
        "exp": now + ACCESS_SECONDS,
    }
    return Tokens(
        access_token=jwt.encode(payload, secret, ALGORITHM),
        expires_in=ACCESS_SECONDS,
        refresh_token=again,
        scopes=sorted(scopes, key=SCOPES.index),
    )


def read(settings: Settings, token: str) -> Claims:
    """The claims of an access token; raises Unauthorized unless we signed it for this API and it has not expired."""
    if settings.jwt_secret is None:
        raise Unauthorized(reason="that is no API key, and this server gives no access tokens")
    try:
        claims = jwt.decode(
            token,
            settings.jwt_secret.get_secret_value(),
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            options={"require": ["exp", "iat", "aud", "iss", "sub", "sid"]},
        )
        found = Claims(str(claims["sub"]), uuid.UUID(str(claims["sid"])))
    except jwt.ExpiredSignatureError:
        raise Unauthorized(reason="the access token has expired") from None
    except (jwt.InvalidTokenError, ValueError):
        found = None
    if found is None or not PREFIX.fullmatch(found.key):
        raise Unauthorized(reason="that is neither an API key nor an access token of this server")
    return found


def _secret(settings: Settings) -> str:
    if settings.jwt_secret is None:
        raise TokensOff
    return settings.jwt_secret.get_secret_value()
