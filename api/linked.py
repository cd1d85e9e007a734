"""What OpenAPI says of answers beside their bodies: their headers, and which route goes on with them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from api.middleware import ID

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
}
"""by operation and status, the operations that go on with the answer, and where their parameters are in it"""


def link(operation: dict[str, Any]) -> None:
    """Say of an operation's answers which operations go on with them."""
    for status, answer in operation["responses"].items():
        found = _LINKS.get((operation["operationId"], status))
        if found:
            answer["links"] = {name: {"operationId": name, "parameters": given} for name, given in found.items()}
    if operation["operationId"] in ("createTokens", "refreshTokens"):
        again = {"operationId": "refreshTokens", "requestBody": {"refresh_token": "$response.body#/refresh_token"}}
        status = "201" if operation["operationId"] == "createTokens" else "200"
        operation["responses"][status]["links"] = {"refreshTokens": again}
