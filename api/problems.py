"""Errors as RFC 9457 problem documents, with the codes of `crochet_tasks.errors`."""

from __future__ import annotations

import functools
import http
import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flask import Flask, Response, abort, current_app, g, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import HTTPException

from api import request_metrics
from api.parameters import Nothing
from crochet_tasks.errors import (
    CrochetError,
    InvalidRequest,
    MalformedRequest,
    MethodNotAllowed,
    NotAcceptable,
    RateLimited,
    RequestTooLarge,
    RouteUnknown,
    Unauthorized,
    WrongContentType,
    shown,
)
from crochet_tasks.schemas.answers import PROBLEM, Fault, Problem
from crochet_tasks.telemetry import metrics

log = logging.getLogger(__name__)

RETRY_SECONDS = 1
"""after which a request may be tried again where a service was away"""


def install(app: Flask) -> None:
    app.register_error_handler(CrochetError, problem)
    app.register_error_handler(HTTPException, of_http)
    app.register_error_handler(Exception, unexpected)
    app.before_request(check_form)


# ── answers ─────────────────────────────────────────────────────────────────────────────────────


def problem(error: CrochetError) -> Response:
    if error.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, RateLimited):
        level = logging.ERROR if error.code == "internal" else logging.WARNING
        log.log(level, "problem", extra={"code": error.code, "error": str(error)})
    headers = dict(_headers(error))
    return answer(type(error), shown(error.code, str(error)), headers=headers)


def _headers(error: CrochetError) -> Iterator[tuple[str, str]]:
    if isinstance(error, Unauthorized):
        given = "Authorization" in request.headers
        yield "WWW-Authenticate", 'Bearer realm="crochet"' + (', error="invalid_token"' if given else "")
    if isinstance(error, RateLimited) or error.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        yield "Retry-After", str(error.context.get("seconds", RETRY_SECONDS))
    if isinstance(error, MethodNotAllowed):
        yield "Allow", str(error.context.get("allowed", ""))


def answer(
    kind: type[CrochetError],
    detail: str,
    *,
    faults: list[Fault] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    metrics.PROBLEMS.add(code=kind.code, http_route=request_metrics.route())
    body = Problem(
        type=f"/problems/{kind.code}",
        title=title(kind.code),
        status=kind.status,
        code=kind.code,
        detail=detail.encode(errors="replace").decode(),
        request_id=g.get("request_id"),
        errors=faults,
    )
    response = Response(body.model_dump_json(exclude_none=True), kind.status, mimetype=PROBLEM)
    response.headers.update(headers or {})
    return response


def title(code: str) -> str:
    return code.replace("_", " ").capitalize()


def invalid(error: ValidationError) -> Response:
    """What is wrong with a request's parameters or body, each fault by itself; no value is repeated."""
    faults = [
        Fault(where=f"/{'/'.join(map(str, each['loc']))}", code=each["type"], message=each["msg"])
        for each in error.errors(include_input=False, include_url=False, include_context=False)
    ]
    first = f"{faults[0].where.lstrip('/') or 'body'}: {faults[0].message}" if faults else "it is not valid"
    return answer(InvalidRequest, str(InvalidRequest(problem=first)), faults=faults)


def of_http(error: HTTPException) -> Response:
    """What Flask and Werkzeug raise: routes and methods that there are not, bodies that cannot be read."""
    if error.response is not None:  # somebody has made the answer already
        return current_app.make_response(error.response)
    if error.code is not None and error.code < http.HTTPStatus.BAD_REQUEST:
        return current_app.make_response(error.get_response())  # a redirect
    allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or []))
    limit = current_app.config.get("MAX_CONTENT_LENGTH")
    known: dict[int | None, Callable[[], CrochetError]] = {
        404: lambda: RouteUnknown(path=_path()),
        405: lambda: MethodNotAllowed(path=_path(), method=request.method, allowed=allowed),
        406: lambda: NotAcceptable(offered="application/json"),
        413: lambda: RequestTooLarge(limit=limit),
        415: lambda: WrongContentType(wanted="application/json", given=given()),
    }
    if error.code is not None and error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return unexpected(error)
    ours = known.get(error.code, lambda: MalformedRequest(reason=error.name.lower()))
    return problem(ours())


def unexpected(error: Exception) -> Response:
    """A bug: it is logged with its traceback, and whoever asks learns the request's id."""
    log.error("internal_error", exc_info=error)
    return answer(CrochetError, "Something went wrong; the log of the server says what, under this request id.")


def _path() -> str:
    return request.path[:200]


def given() -> str:
    """The type of the request's body, for people."""
    return request.mimetype[:100] or "a body without Content-Type"


# ── the form of requests ────────────────────────────────────────────────────────────────────────

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def check_form() -> None:
    """Refuse what is no request at all: before its parts are validated, which takes no notice of most of it."""
    if "\0" in request.path or any("\0" in part for pair in request.args.items(multi=True) for part in pair):
        raise InvalidRequest(problem="a NUL character in the address")
    view = current_app.view_functions.get(request.endpoint or "")
    if view is None or request.method == "OPTIONS":
        return
    takes = _parts(view)
    if request.method in ("POST", "PUT", "PATCH", "DELETE") and "body" in takes:
        _check_json()
    if request.args and "query" not in takes and request.path.startswith("/v1/"):
        _refuse_parameters()


@functools.lru_cache(maxsize=512)
def _parts(view: Callable[..., Any]) -> frozenset[str]:
    """Which parts of the request a route takes: `body` is JSON; a route that reads the request itself has none."""
    return frozenset(inspect.signature(view).parameters)


def _refuse_parameters() -> None:
    """As what a route with parameters does not know."""
    try:
        Nothing.model_validate(request.args.to_dict())
    except ValidationError as error:
        abort(invalid(error))


def _check_json() -> None:
    if not request.is_json:
        raise WrongContentType(wanted="application/json", given=given())
    if b"\0" in request.get_data():  # in JSON there is none, but where it is in UTF-16 or UTF-32, which is not taken
        raise MalformedRequest(reason="its body is not JSON in UTF-8")
    try:
        body = request.get_json()
    except HTTPException as error:
        if error.code != http.HTTPStatus.BAD_REQUEST:
            raise
        raise MalformedRequest(reason="its body is not JSON") from None
    except RecursionError:
        raise MalformedRequest(reason="its body is nested too deeply") from None
    if not isinstance(body, dict):
        raise InvalidRequest(problem="the body must be an object")
    if b"\\u0000" in request.get_data() and _NUL.search(request.get_data()):
        raise InvalidRequest(problem="a NUL character in the body")


# ── what problems there are ─────────────────────────────────────────────────────────────────────


class Explained(BaseModel):
    """An error in general; `says` has the names of what it would tell in braces."""

    code: str
    title: str
    status: int
    says: str


def explained(kind: type[CrochetError]) -> Explained:
    says = " ".join((inspect.getdoc(kind) or "").split())
    return Explained(code=kind.code, title=title(kind.code), status=kind.status, says=says)
