"""Errors as pages: the problem documents of the API, in HTML for who reads that."""

from __future__ import annotations

import json
from http import HTTPStatus

from flask import Flask, Response, g, make_response, redirect, render_template, request, url_for

from api import problems
from crochet_tasks.errors import NotLoggedIn
from crochet_tasks.schemas.answers import PROBLEM, Problem
from web.pages import POLICY, blueprint, is_page, reads_html, takes_keys

WHAT_TO_DO = {
    "not_logged_in": "Open the address that it printed, in one browser. To use another one, start it again.",
    "code_refused": "Wait for the next code and try again.",
    "oidc_off": "Log in with an API key.",
    "oidc_unavailable": "Wait a little and log in again, or log in with an API key.",
    "tokens_off": "The operator of this server sets it; until then keys work with the API and the command line only.",
    "forbidden": "Log in with a key that has this scope, or ask the operator of this server for one.",
    "corpora_only": "Your key is limited to some corpora: the list shows them.",
    "tenant_suspended": "While it is only suspended nothing is lost: ask the operator of this server to resume it.",
    "operator_needed": "Your key manages its own tenant. Ask the operator of this server for the rest.",
    "not_found": "It may have been deleted or renamed, or the address is incomplete.",
    "corpus_unknown": "It may have been deleted or renamed. The list shows the corpora that your key can read.",
    "route_unknown": "The address may be incomplete. Start from the list of corpora.",
    "phrase_unknown": "No text of this corpus has these words one behind the other. Look for a shorter part of it.",
    "invalid_cursor": "The corpus or the filters have changed since this address was made. Start at the first page.",
    "form_refused": "Nothing was changed. Go back, load the page again, and send the form once more.",
    "rate_limited": "Wait a little, then load the page again.",
    "database_unavailable": "Nothing is lost. The page works again as soon as the database does.",
    "too_busy": "Wait a little, then load the page again.",
}
"""what helps, per code"""
BY_STATUS = {
    HTTPStatus.NOT_FOUND: WHAT_TO_DO["not_found"],
    HTTPStatus.TOO_MANY_REQUESTS: WHAT_TO_DO["rate_limited"],
    HTTPStatus.SERVICE_UNAVAILABLE: "Wait a little, then load the page again. What was stored is still there.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "The operator of this server finds the reason in its log, under the id below.",
}


def install(app: Flask) -> None:
    app.register_error_handler(NotLoggedIn, _to_log_in)
    app.after_request(_as_page)


def _to_log_in(error: NotLoggedIn) -> Response:
    """The log-in, which leads back. Nothing is recorded: no key was tried."""
    if not reads_html() or not takes_keys():
        return problems.problem(error)
    back = request.full_path.rstrip("?") if request.method == "GET" else "/"
    if request.headers.get("Sec-Fetch-Site") == "cross-site" and request.method == "GET":
        # A link on another site: the browser keeps a strict cookie to itself, but sends it when this page loads again.
        return make_response(render_template("again.html", to=back))
    return make_response(redirect(url_for(f"{blueprint.name}.log_in", to=back), HTTPStatus.SEE_OTHER))


def _as_page(response: Response) -> Response:
    """A problem document as a page, with its status and headers."""
    if response.mimetype != PROBLEM or not is_page() or not reads_html():
        return response
    problem = Problem.model_validate(json.loads(response.get_data()))
    advice = WHAT_TO_DO.get(problem.code) or BY_STATUS.get(HTTPStatus(problem.status), "Go back and try again.")
    g.setdefault("caller", None)
    response.set_data(render_template("error.html", problem=problem, advice=advice))
    response.mimetype = "text/html"
    response.headers["Content-Security-Policy"] = POLICY
    return response
