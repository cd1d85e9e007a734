"""The API's documentation: /openapi.json, the pages at /docs (Swagger UI, from this server), and /problems."""

from __future__ import annotations

import gzip
import importlib.resources
import re
from typing import Any, NamedTuple

from flask import Blueprint, Response, current_app, request, send_from_directory

from api import deprecation, openapi, problems, resources, responses, routes
from crochet_tasks.errors import NotFound, requests
from crochet_tasks.schemas.answers import PROBLEM, Problem

docs = Blueprint("docs", __name__)

ASSETS = ("css/swagger-ui.css", "js/swagger-ui-bundle.js", "images/swagger.svg")
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>crochet-tasks API</title>
<link rel="icon" href="/docs/images/swagger.svg">
<link rel="stylesheet" href="/docs/css/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="/docs/js/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
START = """SwaggerUIBundle({url: "/openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null});
"""

ALWAYS = (406, 500)
"""of every route of version 1, in addition to openapi.ALWAYS"""
WITH_BODY = (408, 413, 415, 422)
OF_THE_SERVER = {
    414: "The address has more than 8190 bytes. It has no body.",
    431: "The headers have more than 64 KB in total. It has no body.",
}
MEANINGS = {
    404: "There is none for this tenant.",
    412: "If-Match does not have the ETag of what is there.",
    406: "None of the types in Accept is available.",
    408: "The body took too long to arrive.",
    413: "The body is too large.",
    415: "The body is of another type than this route takes.",
    422: "A parameter or field is not what it should be.",
    500: "A bug.",
}


@docs.get("/docs")
def page() -> Response:
    return Response(PAGE, mimetype="text/html")


@docs.get("/docs/start.js")
def start() -> Response:
    return Response(START, mimetype="text/javascript")


@docs.get("/docs/<path:name>")
def asset(name: str) -> Response:
    if name not in ASSETS:
        raise NotFound(what="such page:", name=f"/docs/{name[:100]}")
    folder = importlib.resources.files("flask_openapi_swagger") / "templates" / "swagger"
    response = send_from_directory(str(folder), name)
    response.headers["Cache-Control"] = "public, max-age=86400"
    return response


@docs.get("/openapi.json")
def document() -> Response:
    rendered = resources.once("crochet.spec", _rendered)
    small = request.accept_encodings["gzip"] > 0
    response = Response(rendered.small if small else rendered.plain, mimetype="application/json")
    if small:
        response.headers["Content-Encoding"] = "gzip"
    response.vary.add("Accept-Encoding")
    return response


class _Rendered(NamedTuple):
    """The document, as it is and compressed."""

    plain: bytes
    small: bytes


def _rendered() -> _Rendered:
    app: Any = current_app
    spec = complete(routes.document(app))
    deprecation.describe(app, spec)
    plain = current_app.json.dumps(spec).encode()
    return _Rendered(plain, gzip.compress(plain, mtime=0))


@docs.get("/problems/<code>")
def explained(code: str) -> Response:
    kind = requests.kinds().get(code)
    if kind is None:
        raise NotFound(what="problem", name=code[:100])
    return responses.json(problems.explained(kind))


# ── the document ────────────────────────────────────────────────────────────────────────────────


def complete(spec: dict[str, Any]) -> dict[str, Any]:
    """Add what all routes have in common: the problems that they may answer with."""
    spec["openapi"] = "3.1.0"
    schemas = spec["components"]["schemas"]
    schemas.pop("ValidationErrorModel", None)
    schemas.pop("UnprocessableEntity", None)
    described = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(described.pop("$defs"))
    schemas["Problem"] = described
    for path, item in spec["paths"].items():
        for operation in item.values():
            _complete_operation(path, operation)
    return spec


def _complete_operation(path: str, operation: dict[str, Any]) -> None:
    operation["description"] = re.sub(r"<br/?>", "\n", operation.get("description", "")).strip()
    operation.pop("deprecated", None)
    declared = operation["responses"]
    validated = declared.get("422")
    if validated is not None and PROBLEM not in validated.get("content", {}):
        del declared["422"]  # what flask-openapi takes for our answer
    statuses = {status for status in map(int, declared) if status >= 400}
    if not path.startswith("/health"):
        statuses |= {*ALWAYS}
    if validated is not None and ("parameters" in operation or "requestBody" in operation):
        statuses.add(422)
    if "requestBody" in operation:
        statuses |= {*WITH_BODY}
    if "{" in path:
        statuses.add(404)
    if "304" in declared:
        statuses.add(412)
    for status in sorted(statuses):
        if PROBLEM in declared.get(str(status), {}).get("content", {}):
            continue  # described by the route
        if declared.get(str(status), {}).get("content"):
            continue  # described by the route
        content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        meaning = MEANINGS.get(status, declared.get(str(status), {}).get("description", ""))
        declared[str(status)] = {"description": meaning, "content": content}
    operation["responses"] = dict(sorted(declared.items()))
    for status, answer in declared.items():
        answer["headers"] = {**answer.get("headers", {}), **openapi.headers(path, operation, int(status))}
    openapi.link(operation)
    for unread, meaning in OF_THE_SERVER.items():
        operation["responses"][str(unread)] = {"description": meaning}
