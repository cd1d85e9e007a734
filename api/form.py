"""The form of requests: checks that hold for every route, and how bodies are read.

Every bound holds before anything is parsed: bytes (asgi.py reads no more than any route takes), then the number of JSON
values and how deep they are nested. So the memory and time of a request depend on the route, not on the client.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import json
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple, NoReturn, ParamSpec, TypeVar

from flask import Flask, Request, abort, current_app, g, has_request_context, request
from flask.json.provider import DefaultJSONProvider
from pydantic import ValidationError

from api import problems
from api.asgi import ANONYMOUS_BYTES
from api.parameters import NoQuery
from crochet_tasks.errors import InvalidRequest, MalformedRequest, RequestTooLarge, WrongContentType
from crochet_tasks.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

JSON, PLAIN, MERGE_PATCH = "application/json", "text/plain", "application/merge-patch+json"
MULTIPART = "multipart/form-data"
MARGIN = 64 * 1024
"""bytes of a request around the largest text"""
DEPTH = 32
"""arrays and objects inside each other; the grid of an ortho needs as many as it has axes, so 8"""
CHARSETS = ("utf-8", "utf8", "us-ascii")


class Accepts(NamedTuple):
    """What a route takes as its body."""

    types: tuple[str, ...] = (JSON,)
    bytes: int | None = 64 * 1024
    """None: as many as the largest text needs, MAX_CONTENT_LENGTH"""
    values: int = 1000
    """of JSON: commas and opening brackets, which are about as many as there are values"""


DEFAULT = Accepts()
_ACCEPTS = "_crochet_accepts"


def accepts(what: Accepts) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a route that takes other bodies than DEFAULT. Stands beside `security.requires`."""

    def marked(route: Callable[P, R]) -> Callable[P, R]:
        setattr(route, _ACCEPTS, what)
        return route

    return marked


def accepted_by(view: Callable[..., Any] | None) -> Accepts:
    found: Accepts = getattr(view, _ACCEPTS, DEFAULT)
    return found


def install(app: Flask) -> None:
    settings: Settings = app.extensions["crochet.settings"]
    app.config["MAX_CONTENT_LENGTH"] = 2 * settings.max_text_bytes + MARGIN  # JSON may escape every character
    app.config["MAX_FORM_MEMORY_SIZE"] = MARGIN
    app.json = _Json(app)
    app.request_class = WholeRequest
    app.teardown_request(_close)


def _close(_: BaseException | None) -> None:
    """Large files of a form are on the disk: they go now, not when garbage is collected."""
    request.close()


class WholeRequest(Request):
    """A request whose body is whole or refused."""

    def get_data(self, *arguments: Any, **named: Any) -> Any:
        """As Werkzeug's, which stops at the limit without an error where no length was announced."""
        data = super().get_data(*arguments, **named)
        ends = self.content_length is not None or not self.environ.get("wsgi.input_terminated")
        if not ends and self.environ["wsgi.input"].read(1):
            raise RequestTooLarge(limit=self.max_content_length)
        return data


def _ambiguous(target: str) -> bool:
    """Whether a proxy may take the path for another one than the routes do, and so let through what it should not."""
    path = target.partition("?")[0]
    return path.startswith("//") or "%2f" in path.lower()


def check() -> None:
    """Refuse a request that has the wrong form, before flask-openapi validates its parts."""
    host = request.environ.get("HTTP_HOST", "")
    if request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1" and (not host or "," in host):
        raise MalformedRequest(reason="HTTP/1.1 requires one Host header")
    if _ambiguous(request.environ.get("REQUEST_URI", "")):
        abort(HTTPStatus.NOT_FOUND)
    if "\0" in request.path or any("\0" in part for pair in request.args.items(multi=True) for part in pair):
        raise InvalidRequest(problem="a NUL character in the address", where="query")
    _check_length()
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise WrongContentType(wanted="bodies as they are", given=request.headers["Content-Encoding"][:100])
    view = current_app.view_functions.get(request.endpoint or "")
    if view is None or request.method == "OPTIONS":
        return
    parts = _parts(view)
    if request.path.startswith("/v1/"):
        _check_query("query" in parts)
    if "body" in parts or hasattr(view, _ACCEPTS):
        _check_type(accepted_by(view).types)
    if "body" in parts:
        if not isinstance(request.get_json(), dict):
            raise InvalidRequest(problem="the body must be an object", fault="model_type")
        if b"\\u0000" in request.get_data() and _NUL.search(request.get_data()):
            raise InvalidRequest(problem="a NUL character in the body")


@functools.lru_cache(maxsize=512)
def _parts(view: Callable[..., Any]) -> frozenset[str]:
    """Which parts of a request a route takes; `body` is JSON that flask-openapi reads."""
    return frozenset(inspect.signature(view).parameters)


def _check_query(takes_some: bool) -> None:  # noqa: FBT001 - one caller
    for name, values in request.args.lists():
        if len(values) > 1:
            raise InvalidRequest(problem="a parameter is given twice", where=f"query/{name}", fault="repeated")
    if request.args and not takes_some:
        try:
            NoQuery.model_validate(request.args.to_dict())
        except ValidationError as error:
            abort(problems.invalid(error))


def limit() -> None:
    """Set how many bytes of this request may be read. Runs before the first one is: when it is known who asks."""
    found = accepted_by(current_app.view_functions.get(request.endpoint or ""))
    most = current_app.config["MAX_CONTENT_LENGTH"] if found.bytes is None else found.bytes
    request.max_content_length = most if g.get("caller") is not None else min(most, ANONYMOUS_BYTES)
    if MULTIPART in found.types:  # a pasted text is a field, not a file
        request.max_form_memory_size = request.max_content_length


def _check_length() -> None:
    """Refuse what announces that it is too long, before any of it is read; also where the route takes no body."""
    most = request.max_content_length
    if most is not None and (request.content_length or 0) > most:
        raise RequestTooLarge(limit=most)


def _check_type(types: tuple[str, ...]) -> None:
    """Raise WrongContentType unless the body is one of these types, in UTF-8."""
    if request.mimetype not in types:
        raise WrongContentType(wanted=" or ".join(types), given=request.mimetype[:100] or "a body without Content-Type")
    charset = request.mimetype_params.get("charset", CHARSETS[0])
    if charset.lower() not in CHARSETS:
        raise WrongContentType(wanted="bodies in UTF-8", given=f"charset={charset[:40]}")


# ── JSON ────────────────────────────────────────────────────────────────────────────────────────

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
"""a string, or one that does not end: without that, searching for the next one would be quadratic"""
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NOT_BRACKETS = bytes(set(range(256)) - _STEPS.keys())


class _Json(DefaultJSONProvider):
    """Reads the bodies of requests: Flask and flask-openapi ask it for what `request.get_json` answers."""

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        if not has_request_context():
            return super().loads(s, **kwargs)
        found = accepted_by(current_app.view_functions.get(request.endpoint or ""))
        return parsed(s.encode() if isinstance(s, str) else s, found.values)


def parsed(content: bytes, values: int = DEFAULT.values) -> Any:
    """The JSON of a body. Raises MalformedRequest for what is no JSON in UTF-8 (RFC 8259), InvalidRequest for
    keys that an object has twice, and for more than so many values.
    """
    if b"\0" in content:  # JSON has none, unless it is UTF-16 or UTF-32, which is not accepted
        raise MalformedRequest(reason="its body is not JSON in UTF-8")
    _check_size(content, values)
    try:
        return json.loads(
            content.decode("utf-8-sig"), object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        raise MalformedRequest(reason=f"its body is not JSON: line {error.lineno}, column {error.colno}") from None
    except UnicodeDecodeError:
        raise MalformedRequest(reason="its body is not JSON in UTF-8") from None


def _check_size(content: bytes, values: int) -> None:
    """Count values and depth by the characters outside of strings, at the speed of C."""
    if _openings(content) <= DEPTH and _openings(content) + content.count(b",") <= values:
        return  # also with those inside of strings
    bare = _STRING.sub(b"", content)
    if _openings(bare) + bare.count(b",") > values:
        raise InvalidRequest(problem=f"the body holds more than {values:,} values")
    steps = map(_STEPS.__getitem__, bare.translate(None, _NOT_BRACKETS))
    if max(itertools.accumulate(steps), default=0) > DEPTH:
        raise MalformedRequest(reason=f"its body is nested more than {DEPTH} deep")


def _openings(content: bytes) -> int:
    return content.count(b"[") + content.count(b"{")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        before: set[str] = set()
        twice = next(name for name, _ in pairs if name in before or before.add(name))  # type: ignore[func-returns-value]
        raise InvalidRequest(problem=f"an object has the key '{twice[:100]}' twice")
    return found


def _constant(name: str) -> NoReturn:
    raise MalformedRequest(reason=f"its body is not JSON: {name} is no number there")


def _integer(digits: str) -> int:
    if len(digits) > 40:  # far beyond all that a field takes; Python refuses more than 4300 with a ValueError
        raise MalformedRequest(reason="its body has a number of more than 40 digits")
    return int(digits)
