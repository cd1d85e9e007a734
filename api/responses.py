"""What routes answer with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from flask import Response
from pydantic import BaseModel

from crochet_tasks.query.vocabulary import ShapeCount
from crochet_tasks.schemas.answers import ShapeLine

Answered: TypeAlias = Response | tuple[Response, int]
"""what a route returns. Not Flask's ResponseReturnValue: flask-openapi needs annotations that resolve"""


def json(body: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A model as JSON, written by pydantic itself: Flask would make a dictionary of it first."""
    response = Response(body.model_dump_json(), status, mimetype="application/json")
    response.headers.update(headers or {})
    return response


def shape_line(each: ShapeCount) -> ShapeLine:
    return ShapeLine(shape=list(each.sides), orthos=each.orthos, batches=each.batches)
