"""Hooks around every request: its id, the access log, headers and compression of the answer."""

from __future__ import annotations

import gzip
import logging
import re
import time
import uuid
from http import HTTPStatus

from flask import Flask, Response, g, request
from flask_cors import CORS
from werkzeug.middleware.proxy_fix import ProxyFix

from api.asgi import received_at
from api.responses import VERSION_HEADER
from crochet_tasks.access.signing import DATE_HEADER, SIGNATURE_HEADER
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import correlation
from crochet_tasks.telemetry.masking import masked

log = logging.getLogger("api.access")

REQUEST_ID = "X-Request-ID"
ID = "[A-Za-z0-9._:-]{8,128}"
COMPRESS_BYTES = 1400
"""a smaller answer is one packet anyway"""
COMPRESS_LEVEL = 4
COMPRESSED = ("application/json", "application/problem+json", "text/html", "text/plain", "text/css", "text/javascript")
READ = ["Authorization", "Content-Type", "If-Match", "If-None-Match", "Idempotency-Key", REQUEST_ID]
READ += [DATE_HEADER, SIGNATURE_HEADER]
EXPOSED = [
    "Content-Location",
    "ETag",
    "Idempotent-Replayed",
    "Location",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
]
EXPOSED += [REQUEST_ID, VERSION_HEADER]
"""headers that pages of other origins may send, and see"""
ALLOWED = "Access-Control-Allow-Methods"
QUIET = ("/health/live", "/health/ready", "/health/startup")
"""requested every few seconds: logged only with `debug`"""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
POLICY_OF_DOCS = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Swagger UI styles its parts one by one"""


def install(app: Flask) -> None:
    settings: Settings = app.extensions["crochet.settings"]
    if settings.api_proxies:
        hops = settings.api_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    if settings.api_origins:
        app.after_request(_preflight)  # it comes after that of Flask-CORS
        CORS(
            app,
            origins=settings.api_origins.split(","),
            allow_headers=READ,
            expose_headers=EXPOSED,
            max_age=600,
            supports_credentials=settings.api_credentials,
        )
    app.before_request(_begin)
    app.after_request(_end)
    app.after_request(_compressed)  # it comes before: Flask runs them from the last to the first
    app.teardown_request(_forget)


def request_id() -> str:
    """The id of this request: that of the client, where it is one, or ours."""
    found: str = g.request_id
    return found


def _preflight(response: Response) -> Response:
    """Name the methods that the route has, in answers to preflight requests, and no others."""
    if request.method == "OPTIONS" and ALLOWED in response.headers:
        response.headers[ALLOWED] = ", ".join(sorted(response.allow))
    return response


def _begin() -> None:
    sent_id = request.headers.get(REQUEST_ID, "")
    g.request_id = sent_id if re.fullmatch(ID, sent_id) else uuid.uuid4().hex
    g.began = received_at(request.environ)
    correlation.begin(g.request_id, request.headers.get("traceparent"))


def _end(response: Response) -> Response:
    if "request_id" in g:
        response.headers[REQUEST_ID] = g.request_id
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    of_page = (response.mimetype or "") == "text/html"
    response.headers.setdefault("Content-Security-Policy", POLICY_OF_DOCS if of_page else POLICY)
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
    _log(response)
    return response


def _compressed(response: Response) -> Response:
    """Compress large answers for clients that accept gzip, but not streams.

    Answers with a strong ETag are not compressed, either: it is that of these bytes (RFC 9110, 8.8.3).
    """
    large = not response.is_streamed and (response.calculate_content_length() or 0) >= COMPRESS_BYTES
    if not large or response.mimetype not in COMPRESSED or response.status_code < HTTPStatus.OK:
        return response
    if response.get_etag()[1] is False:
        return response
    response.vary.add("Accept-Encoding")
    if "Content-Encoding" in response.headers or request.accept_encodings["gzip"] <= 0:
        return response
    if response.direct_passthrough or request.method == "HEAD":
        return response
    response.set_data(gzip.compress(response.get_data(), COMPRESS_LEVEL, mtime=0))
    response.headers["Content-Encoding"] = "gzip"
    return response


def _log(response: Response) -> None:
    level = logging.DEBUG if request.path in QUIET else logging.INFO
    if not log.isEnabledFor(level):
        return
    caller = g.get("caller")
    about = {
        "method": request.method,
        "path": str(masked(request.path))[:200],  # the other way round the rest of a key would not look like one
        "status": response.status_code,
        "ms": round(1000 * (time.monotonic() - g.get("began", time.monotonic())), 1),
        "bytes": None if response.is_streamed else response.calculate_content_length(),  # else it would be read
        "address": request.remote_addr,
        "key": None if caller is None else caller.key,
    }
    log.log(level, "request", extra=about)


def _forget(_: BaseException | None) -> None:
    correlation.end()
