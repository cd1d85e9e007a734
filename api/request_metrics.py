"""Metrics of requests, by the route's template: labels by path would be unbounded."""

from __future__ import annotations

import time

from flask import Flask, Response, g, request

from api.asgi import SESSION_COOKIE, received_at
from crochet_tasks.telemetry import instruments, metrics

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def install(app: Flask) -> None:
    """Call it before other hooks are installed, so that their time counts, too."""
    if instruments.recorded():
        app.before_request(_begin)
        app.after_request(_end)
        app.teardown_request(_forget)


def route() -> str:
    """The template of the route that this request takes; one name for all that take none."""
    return request.url_rule.rule if request.url_rule is not None else "none"


def _begin() -> None:
    g.measured_since = received_at(request.environ)
    metrics.ACTIVE.add(1)


def _end(response: Response) -> Response:
    if "measured_since" in g:
        metrics.REQUESTS.observe(
            time.monotonic() - g.measured_since,  # of a stream: until it begins
            http_request_method=request.method if request.method in METHODS else "_OTHER",
            http_route=route(),
            http_response_status_code=response.status_code,
        )
        _count_credentials()
    return response


REFUSALS = ("forbidden", "key_needed", "operator_needed", "signature_refused", "foreign_page", "rate_limited")
"""of callers that were recognised"""


def _count_credentials() -> None:
    """For a route that needs a caller: whether the request had one, and was allowed what it asked for."""
    refusal, problem = g.get("refusal"), g.get("problem")
    if refusal is not None:
        metrics.CREDENTIALS.add(kind=_shown(), outcome=refusal.code)
    elif g.get("caller") is not None:
        metrics.CREDENTIALS.add(kind=_shown(), outcome=problem if problem in REFUSALS else "good")


def _shown() -> str:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme:
        return "key" if credentials.strip().startswith("crk_") else "token"
    return "page" if SESSION_COOKIE in request.cookies else "none"


def _forget(_: BaseException | None) -> None:
    if g.pop("measured_since", None) is not None:
        metrics.ACTIVE.add(-1)
