"""Log in by OpenID Connect: to the provider, and back with a code.

What the way back has to fit is in a cookie of its own, which the browser sends with the provider's redirect: SameSite
is Lax there, as for a strict cookie that redirect comes from another site. It is good for ten minutes, and once.
"""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Response, after_this_request, current_app, make_response, redirect, request, url_for
from itsdangerous import BadData, URLSafeTimedSerializer

from api import people, process, security_log
from crochet_tasks.db import access
from crochet_tasks.errors import LogInRefused, OidcUnavailable
from web import session
from web.pages import blueprint, local, show

if TYPE_CHECKING:
    from crochet_tasks.access.oidc import Pending

COOKIE, PATH = "crochet_log_in", "/log-in/oidc"
PENDING_SECONDS = 600


@blueprint.get("/log-in/oidc")
def log_in_elsewhere() -> Response:
    session.check()
    address, pending = people.provider().begin(_back())
    response = make_response(redirect(address, HTTPStatus.SEE_OTHER))
    kept = _signer().dumps([*pending, local(request.args.get("to", "/"))])
    response.set_cookie(
        COOKIE, kept, PENDING_SECONDS, path=PATH, secure=request.is_secure, httponly=True, samesite="Lax"
    )
    return response


@blueprint.get("/log-in/oidc/callback")
def log_in_came_back() -> Response:
    after_this_request(_forget)
    try:
        pending, to = _pending()
        claims = people.provider().finish(pending, request.args.to_dict(), _back())
        session.begin(people.begun(claims))
        return make_response(redirect(to, HTTPStatus.SEE_OTHER))
    except (LogInRefused, OidcUnavailable) as error:
        security_log.record_refusal(error, None)
        status = HTTPStatus.FORBIDDEN if isinstance(error, LogInRefused) else HTTPStatus.SERVICE_UNAVAILABLE
        return show("log_in.html", status, to="/", problem=None, oidc_problem=str(error))


def _forget(response: Response) -> Response:
    """Take the cookie away, whatever became of the log-in: it counts once."""
    response.delete_cookie(COOKIE, path=PATH, secure=request.is_secure, httponly=True, samesite="Lax")
    return response


def _pending() -> tuple[Pending, str]:
    """What this browser began, and where it wants to go; it counts once. Raises LogInRefused."""
    from crochet_tasks.access.oidc import Pending  # here for the reason in api/people.py

    try:
        *parts, to = _signer().loads(request.cookies.get(COOKIE, ""), max_age=PENDING_SECONDS)
        pending = Pending(*parts)
    except (BadData, ValueError, TypeError):
        raise LogInRefused(reason="it was begun in another browser, or long ago") from None
    with process.current().database.transaction() as connection:
        if not access.once(connection, hashlib.sha256(f"log-in {pending.state}".encode()).digest()):
            raise LogInRefused(reason="this log-in was used before")
    return pending, local(str(to))


def _signer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(current_app.secret_key or b"", salt="log-in")


def _back() -> str:
    return url_for("page.log_in_came_back", _external=True)
