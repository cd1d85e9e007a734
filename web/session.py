"""Who looks at the page: a signed cookie names a session of a key, and every request looks both up in the database.

The cookie holds no key and no token: the session's number and the key's prefix, signed by Flask with a secret that is
made of CROCHET_JWT_SECRET. It counts for pages only, never for the API (api.security.PAGES).
"""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid

from flask import Flask, Response, request, session
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFError, CSRFProtect

from api import process, security, security_log
from api.asgi import SESSION_COOKIE
from api.security import Caller
from crochet_tasks.access import second_factor, tokens
from crochet_tasks.access.tokens import Claims
from crochet_tasks.db import access
from crochet_tasks.db.access import KeyRow
from crochet_tasks.errors import FormRefused, InvalidRequest, KeyNeeded, NotLoggedIn, TokensOff, Unauthorized
from crochet_tasks.settings import Settings
from web.pages import blueprint

_CLAIMS, _PENDING = "claims", "pending"
TEXT = "body"
"""the field of a form that holds a text"""
PENDING_SECONDS = 300
"""between the key and the code"""
_csrf = CSRFProtect()


class _Cookie(SecureCookieSessionInterface):
    """Secure where the request came by TLS: `crochet view` has none on loopback."""

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002 - Flask names it
        return request.is_secure


def install(app: Flask) -> None:
    settings: Settings = app.extensions["crochet.settings"]
    # Without CROCHET_JWT_SECRET there is no log-in, but forms have to fit in all processes.
    secret = settings.jwt_secret or settings.database_url
    known = secrets.token_bytes(32) if secret is None else secret.get_secret_value().encode()
    app.secret_key = hashlib.sha256(b"sessions of " + known).digest()
    app.config.update(
        SESSION_COOKIE_NAME=SESSION_COOKIE,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        WTF_CSRF_CHECK_DEFAULT=False,  # the API takes no cookies
        WTF_CSRF_TIME_LIMIT=None,  # a form is good as long as its session
    )
    app.session_interface = _Cookie()
    _csrf.init_app(app)
    app.register_error_handler(CSRFError, _refused)


@blueprint.before_request
def _check_forms() -> None:
    """Raise CSRFError where a form was not sent by a page of this session, InvalidRequest where it has a NUL, which
    Postgres does not store. That of a text is left to its view, which refuses it as in files.
    """
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    try:
        _csrf.protect()
    except ValueError:  # a referrer that is no address
        raise CSRFError("The referrer cannot be read.") from None
    for name, value in request.form.items(multi=True):
        if "\0" in name or ("\0" in value and name != TEXT):
            raise InvalidRequest(problem=f"a NUL character in the field {name[:100]!r}: remove it")


def _refused(error: CSRFError) -> Response:
    return security.refused(FormRefused(reason=(error.description or "").rstrip(".").lower()))


def caller() -> Caller:
    """Who asks for this page. Raises NotLoggedIn, and what a look into the database raises."""
    claims = _claims()
    if claims is None:
        raise NotLoggedIn(reason="this page is for users")
    try:
        return security.of_session(claims)
    except Unauthorized:
        session.pop(_CLAIMS, None)
        raise NotLoggedIn(reason="your session has ended") from None


def _claims() -> Claims | None:
    try:
        key, number = session[_CLAIMS]
        return Claims(str(key), uuid.UUID(number))
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def check() -> None:
    """Raise TokensOff where there are no sessions: nothing is set to sign them with."""
    if process.settings().jwt_secret is None:
        raise TokensOff


def log_in(key: str, to: str) -> bool:
    """Begin a session of a key; False where a code of its second factor is needed first, which leads on to `to`.

    Raises Unauthorized, TooBusy, and what `check` does.
    """
    check()
    found = security.of_credentials(key)
    if found.session is not None or not found.hash:
        raise KeyNeeded
    with process.current().database.snapshot() as connection:
        row = access.key(connection, found.key)
        on = row is not None and second_factor.is_on(connection, row.id)
    if row is None:
        raise Unauthorized(reason="there is no such key")
    if on or (process.settings().second_factor and "admin" in found.scopes):
        session.clear()
        session[_PENDING] = [row.prefix, int(time.time()), to]
        return False
    finish(row)
    return True


def pending() -> tuple[KeyRow, str]:
    """The key that was right a moment ago and lacks a code, and where its holder wants to go. Raises NotLoggedIn."""
    try:
        prefix, at, to = session[_PENDING]
        late = time.time() - float(at) > PENDING_SECONDS
    except (KeyError, ValueError, TypeError):
        raise NotLoggedIn(reason="log in with a key first") from None
    with process.current().database.snapshot() as connection:
        row = access.key(connection, str(prefix))
    if late or row is None or row.state != "good" or row.suspended:
        session.clear()
        raise NotLoggedIn(reason="log in with a key first")
    return row, str(to)


def finish(row: KeyRow) -> None:
    """Begin the session of a key for which nothing more is needed."""
    entry = security_log.throttled("session.begun", row.prefix, {"page": True})
    with process.current().database.transaction() as connection:
        entry = entry and entry._replace(tenant=row.tenant, key=row.prefix)
        claims, _ = tokens.begin(connection, row, None, entry)
    begin(claims)


def begin(claims: Claims) -> None:
    """Have this browser continue a session."""
    session.clear()  # and with it the CSRF token of who was here before
    session[_CLAIMS] = [claims.key, str(claims.session)]


def log_out() -> None:
    """End the session, here and in the database."""
    claims = _claims()
    session.clear()
    if claims is None:
        return
    entry = security_log.entry("session.ended", {"session": str(claims.session)})
    with process.current().database.transaction() as connection:
        row = access.key(connection, claims.key)
        if access.end_sessions(connection, number=claims.session) and row is not None:
            access.add_log_entry(connection, entry._replace(tenant=row.tenant, key=row.prefix))
