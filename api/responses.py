"""What routes answer with: models as JSON, and ETags that save reading the same again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import TypeAlias

from flask import Response, request
from pydantic import BaseModel

from crochet_tasks.errors import PreconditionFailed

Answered: TypeAlias = Response | tuple[Response, int]
"""what a route returns. Not Flask's ResponseReturnValue: flask-openapi needs annotations that resolve"""

VERSION_HEADER = "X-Crochet-Version"


def json(body: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A model as JSON, written by pydantic itself: Flask would make a dictionary of it first."""
    response = Response(body.model_dump_json(), status, mimetype="application/json")
    response.headers.update(headers or {})
    return response


def accepted(body: BaseModel, status: int, address: str, *, again: bool) -> Response:
    """The answer to a request that made something at this address; `again`: an earlier one with the same key did."""
    response = json(body, status, {"Location": address})
    if again:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def tagged(
    body: BaseModel | bytes, version: int | None = None, tag: str | None = None, *, strong: bool = False
) -> Response:
    """The answer with its ETag, by default that of the content, or 304 where If-None-Match has it.

    Fields that were not set are left out; bytes are JSON already.
    """
    content = body if isinstance(body, bytes) else body.model_dump_json(exclude_unset=True)
    response = Response(content, mimetype="application/json")
    response.set_etag(tag or hashlib.sha256(response.get_data()).hexdigest()[:32], weak=not strong)
    return conditional(response, version)


def unchanged(tag: str, version: int) -> Response | None:
    """304 where the client has this tag, before anything else is read; None where the answer has to be made.

    A request with a cursor is not answered here: its cursor may be invalid.
    """
    if "cursor" in request.args or request.if_match or not request.if_none_match.contains_weak(tag):
        return None
    response = Response(status=304)
    response.set_etag(tag, weak=True)
    return conditional(response, version)


def conditional(response: Response, version: int | None) -> Response:
    """The response with the version that it shows; 304 where If-None-Match says so.

    Raises PreconditionFailed where If-Match does not have its ETag (RFC 9110, 13.1.1).
    """
    if version is not None:
        response.headers[VERSION_HEADER] = str(version)
    response.headers["Cache-Control"] = "private, no-cache"
    tag, weak = response.get_etag()
    if_match = request.if_match
    if tag is not None and if_match and not if_match.star_tag and (weak or not if_match.is_strong(tag)):
        raise PreconditionFailed(current=tag, given=", ".join(if_match.as_set())[:200])
    if response.status_code == HTTPStatus.OK and not response.is_streamed:  # a stream would be read to its end
        response.make_conditional({**request.environ, "HTTP_IF_MATCH": ""})  # Werkzeug would refuse `*`
    return response
