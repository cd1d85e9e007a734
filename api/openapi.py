"""What OpenAPI says of the answers that are no success."""

from __future__ import annotations

import http
import inspect
from collections import defaultdict
from typing import Any, TypeAlias

from api.problems import title
from crochet_tasks.errors import (
    CorpusUnknown,
    CrochetError,
    DatabaseConflict,
    DatabaseUnavailable,
    Forbidden,
    ForeignPage,
    InvalidRequest,
    MalformedRequest,
    RateLimited,
    SignatureRefused,
    Unauthorized,
)
from crochet_tasks.schemas.answers import PROBLEM

Responses: TypeAlias = dict[str | int, Any]

ALWAYS: tuple[type[CrochetError], ...] = (
    MalformedRequest,
    Unauthorized,
    Forbidden,
    ForeignPage,
    SignatureRefused,
    InvalidRequest,
    RateLimited,
    DatabaseUnavailable,
    DatabaseConflict,
)
"""of every route of version 1"""


def problems(*kinds: type[CrochetError], of_corpus: bool = True) -> Responses:
    """For `responses`: these errors and those of every route, by status; each code with an example."""
    by_status: defaultdict[int, list[type[CrochetError]]] = defaultdict(list)
    for kind in dict.fromkeys((*((CorpusUnknown,) if of_corpus else ()), *kinds, *ALWAYS)):
        by_status[kind.status].append(kind)
    return {status: _described(status, of_status) for status, of_status in sorted(by_status.items())}


def _described(status: int, kinds: list[type[CrochetError]]) -> dict[str, Any]:
    phrase = http.HTTPStatus(status).phrase
    examples = {kind.code: {"value": _example(kind)} for kind in kinds}
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": f"{phrase}: {', '.join(kind.code for kind in kinds)}",
        "content": {PROBLEM: {"schema": schema, "examples": examples}},
    }


def _example(kind: type[CrochetError]) -> dict[str, Any]:
    says = " ".join((inspect.getdoc(kind) or "").split())
    about = {"title": title(kind.code), "status": kind.status, "code": kind.code, "detail": says}
    return {"type": f"/problems/{kind.code}", **about}


NOT_MODIFIED: Responses = {304: {"description": "Not Modified: it is as it was at the ETag of If-None-Match"}}
