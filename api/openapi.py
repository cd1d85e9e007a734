"""OpenAPI descriptions of answers: problems, headers, and links to the routes that use them."""

from __future__ import annotations

import functools
from collections import defaultdict
from http import HTTPStatus
from typing import Any, TypeAlias

from api.middleware import ID
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
    TenantSuspended,
    Unauthorized,
    example,
)
from crochet_tasks.schemas.answers import PROBLEM

Responses: TypeAlias = dict[str | int, Any]

ALWAYS: tuple[type[CrochetError], ...] = (
    MalformedRequest,
    Unauthorized,
    Forbidden,
    ForeignPage,
    SignatureRefused,
    TenantSuspended,
    InvalidRequest,
    RateLimited,
    DatabaseUnavailable,
    DatabaseConflict,
)
"""of every route of version 1"""


def errors(*kinds: type[CrochetError], of_corpus: bool = True) -> Responses:
    """The `responses` of a route: these errors and those of every route, by status, with an example each."""
    by_status: defaultdict[int, list[type[CrochetError]]] = defaultdict(list)
    for kind in dict.fromkeys((*((CorpusUnknown,) if of_corpus else ()), *kinds, *ALWAYS)):
        by_status[kind.status].append(kind)
    return {status: _described(status, of_status) for status, of_status in sorted(by_status.items())}


def _described(status: int, kinds: list[type[CrochetError]]) -> dict[str, Any]:
    phrase = HTTPStatus(status).phrase
    examples = {kind.code: {"value": _example(kind)} for kind in kinds}  # type: ignore[arg-type]  # a class is hashable
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": f"{phrase}: {', '.join(kind.code for kind in kinds)}",
        "content": {PROBLEM: {"schema": schema, "examples": examples}},
    }


@functools.cache
def _example(kind: type[CrochetError]) -> dict[str, Any]:
    about = {"title": title(kind.code), "status": kind.status, "code": kind.code, "detail": example(kind)}
    return {"type": f"/problems/{kind.code}", **about}


NOT_MODIFIED: Responses = {304: {"description": "Not Modified: it is as it was at the ETag of If-None-Match"}}


# ── headers and links ───────────────────────────────────────────────────────────────────────────

_VERSION = {"schema": {"type": "integer", "minimum": 0}, "description": "of the corpus, as this answer shows it"}
_TAG = {"schema": {"type": "string", "pattern": '^(W/)?"[^"]+"$'}, "required": True}
_SECONDS = {"schema": {"type": "integer", "minimum": 1}, "required": True, "description": "seconds to wait"}
_LOCATION = {"schema": {"type": "string", "format": "uri-reference"}, "required": True}
_SCHEME = {"schema": {"type": "string", "pattern": "^Bearer "}, "required": True}
_ID = {
    "schema": {"type": "string", "pattern": f"^{ID}$"},
    "required": True,
    "description": "what the logs call this request: what was sent, where it has this form",
}
_OF_STATUS: dict[int, dict[str, Any]] = {
    304: {"ETag": _TAG},
    401: {"WWW-Authenticate": _SCHEME},
    429: {"Retry-After": _SECONDS},
}
_OF_ANSWER: dict[tuple[str, int], dict[str, Any]] = {
    ("createCorpus", 201): {"ETag": _TAG, "Location": _LOCATION},
    ("getCorpus", 200): {"ETag": _TAG},
    ("changeCorpus", 200): {"ETag": _TAG, "Content-Location": _LOCATION},
    ("postText", 200): {"Location": _LOCATION},
    ("postText", 202): {"Location": _LOCATION},
    ("findBest", 200): {"Location": _LOCATION},
    ("findBest", 202): {"Location": _LOCATION},
    ("getStartup", 503): {},  # it goes on by itself
}


def headers(path: str, operation: dict[str, Any], status: int) -> dict[str, Any]:
    """The headers of an answer, as OpenAPI has them."""
    default: dict[str, Any] = _OF_STATUS.get(status, {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        default = {"Retry-After": _SECONDS}
    if "304" in operation["responses"] and status == HTTPStatus.OK:
        default = {"ETag": {**_TAG, "required": False}}
    if path.startswith("/v1/corpora/{corpus}/") and status in (HTTPStatus.OK, HTTPStatus.NOT_MODIFIED):
        default = {**default, "X-Crochet-Version": _VERSION}
    return {"X-Request-ID": _ID, **_OF_ANSWER.get((operation["operationId"], status), default)}


_NAME = "$response.body#/name"
_SAME = "$request.path.corpus"
_LINKS: dict[tuple[str, str], dict[str, dict[str, str]]] = {
    ("createCorpus", "201"): {
        "getCorpus": {"corpus": _NAME},
        "getVersion": {"corpus": _NAME},
        "getStatus": {"corpus": _NAME},
        "changeCorpus": {"corpus": _NAME, "If-Match": "$response.header.ETag"},
        "postText": {"corpus": _NAME},
        "deleteCorpus": {"corpus": _NAME, "confirm": _NAME},
    },
    ("getCorpus", "200"): {
        "changeCorpus": {"corpus": _NAME, "If-Match": "$response.header.ETag"},
        "deleteCorpus": {"corpus": _NAME, "confirm": _NAME},
    },
    ("deleteCorpus", "204"): {"getCorpus": {"corpus": _SAME}, "listTexts": {"corpus": _SAME}},
    ("postText", "202"): {
        "getText": {"corpus": _SAME, "text": "$response.body#/id"},
        "cancelText": {"corpus": _SAME, "text": "$response.body#/id"},
        "listWork": {"corpus": _SAME},
    },
    ("findBest", "202"): {
        "getBest": {"corpus": _SAME, "job": "$response.body#/id"},
        "cancelBest": {"corpus": _SAME, "job": "$response.body#/id"},
    },
}
"""by operation and status: the operations that use the answer, and where their parameters are in it"""


def link(operation: dict[str, Any]) -> None:
    """Add the links of an operation's answers."""
    for status, answer in operation["responses"].items():
        found = _LINKS.get((operation["operationId"], status))
        if found:
            answer["links"] = {name: {"operationId": name, "parameters": values} for name, values in found.items()}
    if operation["operationId"] in ("createTokens", "refreshTokens"):
        again = {"operationId": "refreshTokens", "requestBody": {"refresh_token": "$response.body#/refresh_token"}}
        status = "201" if operation["operationId"] == "createTokens" else "200"
        operation["responses"][status]["links"] = {"refreshTokens": again}
