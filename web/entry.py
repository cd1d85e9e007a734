"""Log in, log out, the theme, and the first page."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response, make_response, redirect, request

from api import security_log
from crochet_tasks.access import signing
from crochet_tasks.errors import Forbidden, KeyNeeded, Unauthorized
from web import session
from web.pages import THEME_COOKIE, THEMES, blueprint, local, show, takes_keys, to

YEAR_SECONDS = 365 * 86_400


@blueprint.get("/")
def home() -> Response:
    return to("corpora")


@blueprint.get("/log-in")
def log_in() -> Response:
    if not takes_keys():
        return to("corpora")
    session.check()
    return show("log_in.html", to=local(request.args.get("to", "/")), problem=None)


@blueprint.post("/log-in")
def log_in_with_key() -> Response:
    key, back = request.form.get("key", "").strip(), local(request.form.get("to", "/"))
    try:
        if not session.log_in(key, back):
            return to("log_in_code")
    except (Unauthorized, KeyNeeded, Forbidden) as error:
        parts = signing.split(key)
        security_log.record_refusal(error, None if parts is None else parts[0])
        why = (
            "This takes an API key, not an access token." if isinstance(error, KeyNeeded) else "That key is not valid."
        )
        return show("log_in.html", HTTPStatus.FORBIDDEN, to=back, problem=why)
    return make_response(redirect(back, HTTPStatus.SEE_OTHER))


@blueprint.post("/log-out")
def log_out() -> Response:
    session.log_out()
    return to("log_in")


@blueprint.post("/theme")
def choose_theme() -> Response:
    """The theme is a cookie that the server reads: no page flashes in the other one, and no script is needed."""
    response = make_response(redirect(local(request.form.get("to", "/")), HTTPStatus.SEE_OTHER))
    chosen = request.form.get("theme", "")
    if chosen in THEMES:
        response.set_cookie(
            THEME_COOKIE, chosen, YEAR_SECONDS, secure=request.is_secure, httponly=True, samesite="Strict"
        )
    else:
        response.delete_cookie(THEME_COOKIE, secure=request.is_secure, httponly=True, samesite="Strict")
    return response
