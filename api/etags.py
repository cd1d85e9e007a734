"""Answers with an ETag: whoever has seen the same before is spared reading it again."""

from __future__ import annotations

import hashlib
from http import HTTPStatus

from flask import Response, request
from pydantic import BaseModel

VERSION_HEADER = "X-Crochet-Version"


def answer(
    body: BaseModel | bytes, version: int | None = None, tag: str | None = None, *, strong: bool = False
) -> Response:
    """The answer, or 304 where If-None-Match has its tag; without a `tag` it is that of the content.

    Fields that were not set are left out; bytes are JSON already.
    """
    content = body if isinstance(body, bytes) else body.model_dump_json(exclude_unset=True)
    response = Response(content, mimetype="application/json")
    response.set_etag(tag or hashlib.sha256(response.get_data()).hexdigest()[:32], weak=not strong)
    return shown(response, version)


def unchanged(tag: str, version: int) -> Response | None:
    """304 where the client has that already: before anything is read for it, but a cursor, which may be none."""
    if "cursor" in request.args or not request.if_none_match.contains_weak(tag):
        return None
    response = Response(status=304)
    response.set_etag(tag, weak=True)
    return shown(response, version)


def shown(response: Response, version: int | None) -> Response:
    """The response, which says which version it shows, and 304 where that is enough."""
    if version is not None:
        response.headers[VERSION_HEADER] = str(version)
    response.headers["Cache-Control"] = "private, no-cache"
    if response.status_code == HTTPStatus.OK and not response.is_streamed:  # else it would be read to its end
        response.make_conditional(request)
    return response
