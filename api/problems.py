"""Errors as RFC 9457 problem documents, with the codes of `crochet_tasks.errors`."""

from __future__ import annotations

import http
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flask import Flask, Response, current_app, g, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import HTTPException

from api import bodies, parameters, request_metrics
from api.recent_problems import RecentProblems
from crochet_tasks.errors import (
    CrochetError,
    InvalidRequest,
    MalformedRequest,
    MethodNotAllowed,
    NotAcceptable,
    RateLimited,
    RequestTooLarge,
    Retry,
    RouteUnknown,
    Unauthorized,
    example,
    public_message,
    values,
)
from crochet_tasks.schemas.answers import PROBLEM, Fault, Problem
from crochet_tasks.telemetry import metrics

log = logging.getLogger(__name__)

RETRY_SECONDS = 1
"""Retry-After of a 503 that names no time of its own"""


def install(app: Flask) -> None:
    app.extensions["crochet.recent_problems"] = RecentProblems()
    app.register_error_handler(CrochetError, problem)
    app.register_error_handler(HTTPException, of_http)
    app.register_error_handler(Exception, unexpected)


# ── answers ─────────────────────────────────────────────────────────────────────────────────────


def problem(error: CrochetError) -> Response:
    if error.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, RateLimited):
        level = logging.ERROR if error.code == "internal" else logging.WARNING
        log.log(level, "problem", extra={"code": error.code, "error": str(error)})
    headers = dict(_headers(error))
    found = None
    if isinstance(error, InvalidRequest):
        where, code = (str(error.context.get(*each)) for each in (("where", "/"), ("fault", "invalid")))
        message = str(error.context.get("problem", error))
        found = [Fault(where=cut(where, _LONGEST), code=code, message=cut(message, _LONGEST))]
    return answer(type(error), public_message(error.code, str(error)), faults=found, headers=headers)


def _headers(error: CrochetError) -> Iterator[tuple[str, str]]:
    if isinstance(error, Unauthorized):
        has_key = "Authorization" in request.headers
        yield "WWW-Authenticate", 'Bearer realm="crochet"' + (', error="invalid_token"' if has_key else "")
    unavailable = error.status == http.HTTPStatus.SERVICE_UNAVAILABLE and error.retry is Retry.LATER
    if isinstance(error, RateLimited) or unavailable:
        yield "Retry-After", str(error.context.get("seconds", RETRY_SECONDS))
    if isinstance(error, MethodNotAllowed):
        yield "Allow", str(error.context.get("allowed", ""))


LONGEST_DETAIL = 1000
"""characters: a name that is repeated in it may be as long as an address"""


def answer(
    kind: type[CrochetError],
    detail: str,
    *,
    faults: list[Fault] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    g.problem = kind.code
    metrics.PROBLEMS.add(code=kind.code, http_route=request_metrics.route())
    recent: RecentProblems = current_app.extensions["crochet.recent_problems"]
    recent.add(kind.code)
    body = Problem(
        type=f"/problems/{kind.code}",
        title=title(kind.code),
        status=kind.status,
        code=kind.code,
        detail=cut(detail, LONGEST_DETAIL),
        request_id=g.get("request_id"),
        errors=faults,
    )
    response = Response(body.model_dump_json(exclude_none=True), kind.status, mimetype=PROBLEM)
    response.headers.update(headers or {})
    return response


def cut(text: str, most: int) -> str:
    """As valid Unicode, and no longer than that."""
    return (text if len(text) <= most else text[: most - 1] + "…").encode(errors="replace").decode()


def title(code: str) -> str:
    return code.replace("_", " ").capitalize()


def invalid(error: ValidationError) -> Response:
    """The answer to parameters or a body that are not valid: flask-openapi's callback."""
    found, more = faults(error), error.error_count() - MOST_FAULTS
    first = f"{found[0].where} {found[0].message}" + (f"; {more} faults more are not listed" if more > 0 else "")
    return answer(InvalidRequest, str(InvalidRequest(problem=first)), faults=found)


def of_http(error: HTTPException) -> Response:
    """What Flask and Werkzeug raise: routes and methods that there are not, bodies that cannot be read."""
    if error.response is not None:  # from `abort(response)`
        return current_app.make_response(error.response)
    if error.code is not None and error.code < http.HTTPStatus.BAD_REQUEST:
        return current_app.make_response(error.get_response())  # a redirect
    allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or []))
    known: dict[int | None, Callable[[], CrochetError]] = {
        404: lambda: RouteUnknown(path=_path()),
        405: lambda: MethodNotAllowed(path=_path(), method=request.method, allowed=allowed),
        406: lambda: NotAcceptable(offered="application/json"),
        413: lambda: RequestTooLarge(limit=request.max_content_length),
    }
    if error.code is not None and error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return unexpected(error)
    ours = known.get(error.code, lambda: MalformedRequest(reason=error.name.lower()))
    return problem(ours())


def unexpected(error: Exception) -> Response:
    """A bug: log it with its traceback; the answer has only the request's id."""
    log.error("internal_error", exc_info=error)
    return answer(CrochetError, "Something went wrong; the log of the server says what, under this request id.")


def _path() -> str:
    return request.path[:200]


# ── faults ──────────────────────────────────────────────────────────────────────────────────────

MOST_FAULTS = 20
_LONGEST = 200
"""characters of a place, name or value that an answer repeats"""


def faults(error: ValidationError) -> list[Fault]:
    """What is wrong with a request's parameters or body, MOST_FAULTS at the most. No value is repeated."""
    model = getattr(parameters, error.title, bodies.Body)
    part = "query" if issubclass(model, parameters.Query) else "header" if issubclass(model, parameters.Headers) else ""
    body = None if part else request.get_json(silent=True)
    found = []
    for each in error.errors(include_input=False, include_url=False)[:MOST_FAULTS]:
        where = "/".join((part, *map(str, each["loc"]))) if part else _pointer(each["loc"], body)
        message = _message(each["type"], each.get("ctx", {}))
        found.append(Fault(where=cut(where, _LONGEST), code=each["type"], message=message))
    return found


def _message(kind: str, context: dict[str, Any]) -> str:
    if kind == "string_pattern_mismatch":
        return parameters.IN_WORDS.get(context["pattern"], f"must match {context['pattern']}")
    return values.problem(kind, context)


def _pointer(loc: tuple[int | str, ...], body: object) -> str:
    """A JSON pointer (RFC 6901) to what there is in the body, or is missing in it.

    The names that pydantic gives to the members of a union are left out.
    """
    parts: list[str] = []
    at: Any = body
    for part in loc:
        try:
            at = at[part]
        except (KeyError, IndexError, TypeError):
            if part is not loc[-1] or not isinstance(at, dict) or part in _KINDS_OF_CELLS:
                continue
        parts.append(str(part).replace("~", "~0").replace("/", "~1"))
    return "/" + "/".join(parts)


_KINDS_OF_CELLS = ("word", "cells")


# ── descriptions of problems ────────────────────────────────────────────────────────────────────


class Explained(BaseModel):
    """An error in general: `says` is an example of its message."""

    code: str
    title: str
    status: int
    says: str
    retry: Retry
    """`later`: the same request may succeed later; `never`: not unless something changes"""


def explained(kind: type[CrochetError]) -> Explained:
    return Explained(code=kind.code, title=title(kind.code), status=kind.status, says=example(kind), retry=kind.retry)
