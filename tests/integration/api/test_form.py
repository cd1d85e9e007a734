"""The form of requests: methods, addresses, parameters, bodies; what is refused, and as which problem."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from api import asgi, form
from api.asgi import Limits
from crochet_tasks.db.process import Process
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.api import SETTINGS, Api, made
from tests.support.asgi import Exchange, answered, post

pytestmark = pytest.mark.integration


JSON = "application/json"


@pytest.mark.parametrize(
    ("body", "content_type", "code", "status"),
    [
        (b"{", "application/json", "malformed_request", 400),
        (b"", "application/json", "malformed_request", 400),
        (b"\xff\xfe", "application/json", "malformed_request", 400),
        ('{"scopes": ["read"]}'.encode("utf-16"), "application/json", "malformed_request", 400),
        (r'{"scopes": ["\u0000"]}'.encode("utf-32-le"), "application/json", "malformed_request", 400),
        (b'{"scopes": ["\0"]}', "application/json", "malformed_request", 400),
        (b"[" * 100_000, "application/json", "request_too_large", 413),
        (b'{"scopes": ' + b"[" * 33, "application/json", "malformed_request", 400),
        (b'{"scopes": NaN}', "application/json", "malformed_request", 400),
        (b'{"scopes": ["read"], "scopes": ["admin"]}', "application/json", "invalid_request", 422),
        (b'{"scopes": [' + b"1," * 1000 + b"1]}", "application/json", "invalid_request", 422),
        (b"[]", "application/json", "invalid_request", 422),
        (b'"{}"', "application/json", "invalid_request", 422),
        (b"null", "application/json", "invalid_request", 422),
        (b'{"scopes": ["read"], "tenant": 2}', "application/json", "invalid_request", 422),
        (b'{"scopes": ["root"]}', "application/json", "invalid_request", 422),
        (b'{"scopes": ["\\u0000"]}', "application/json", "invalid_request", 422),
        (b'{"scopes": ["\\ud800"]}', "application/json", "invalid_request", 422),
        (b"{}", "text/plain", "wrong_content_type", 415),
        (b"{}", None, "wrong_content_type", 415),
        (b"{}", "application/json; charset=utf-16", "wrong_content_type", 415),
        (b"{}", "application/problem+json", "wrong_content_type", 415),
        (b"{}", "application/merge-patch+json", "wrong_content_type", 415),
        (b"a=b", "application/x-www-form-urlencoded", "wrong_content_type", 415),
    ],
)
def test_bodies_that_are_refused(api: Api, body: bytes, content_type: str | None, code: str, status: int) -> None:
    """Each with its own code, and no value of the body is repeated."""
    answer = api.read.post("/v1/tokens", data=body, content_type=content_type)
    api.problem(answer, code, status)
    assert b"root" not in answer.data


def test_a_literal_backslash_is_no_nul(api: Api) -> None:
    """What only looks like an escaped NUL is left to the route."""
    answer = api.read.post("/v1/tokens", data=rb'{"\\u0000": 1}', content_type="application/json")
    assert api.problem(answer, "invalid_request", 422)["errors"][0]["where"] == "/\\u0000"


@pytest.mark.parametrize(
    "path", ["/nix", "/v1/%00", "/v1/tokens/..%2f..", "/v1/tokens?a=%00", "/problems/%ff", "/docs/js/../.."]
)
def test_addresses_of_nothing(api: Api, path: str) -> None:
    """They are problems, whatever is in them."""
    answer = api.read.get(path)
    assert answer.status_code in (404, 405, 422)
    assert answer.mimetype == "application/problem+json"


def test_no_route_passes_over_parameters(api: Api) -> None:
    """That it does not know: also where it takes none. A browser that asks whether it may is no reader of them."""
    for rule in api.app.url_map.iter_rules():
        path = re.sub("<[^>]+>", "x", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"} if path.startswith("/v1/") else ():
            body: dict[str, Any] | None = None if method == "GET" else {}
            problem = api.problem(api.admin.open(f"{path}?nix=1", method=method, json=body), "invalid_request", 422)
            assert ("query/nix", "extra_forbidden") in [(fault["where"], fault["code"]) for fault in problem["errors"]]
    assert api.anonymous.options("/v1/corpora?nix=1").status_code == 200


def test_a_wrong_method_is_answered_with_those_there_are(api: Api) -> None:
    """The answer says which ones there are."""
    answer = api.read.put("/v1/tokens")
    api.problem(answer, "method_not_allowed", 405)
    assert set(answer.headers["Allow"].split(", ")) == {"DELETE", "OPTIONS", "POST"}
    assert api.anonymous.options("/v1/tokens").status_code == 200


def test_what_says_it_is_too_large_is_not_read(process: Process) -> None:
    """What says that it is too large is not read: each route has a limit of its own, strangers a small one."""
    api = made(process, Settings(**SETTINGS, max_text_bytes=1000))

    def refused(client: FlaskClient, path: str, length: int, **more: Any) -> None:
        unread = {"wsgi.input": Unread(), "CONTENT_LENGTH": str(length), "CONTENT_TYPE": JSON}
        api.problem(client.post(path, environ_overrides=unread, **more), "request_too_large", 413)

    refused(api.read, "/v1/tokens", 64 * 1024 + 1)
    refused(api.read, "/v1/corpora/genesis/orthos/check", 2 * 1024 * 1024 + 1)
    refused(api.write, "/v1/corpora/genesis/texts", api.app.config["MAX_CONTENT_LENGTH"] + 1)
    refused(api.admin, "/v1/corpora/genesis/work/1/retry", 64 * 1024 + 1)  # it takes no body
    refused(api.anonymous, "/v1/tokens/refresh", 4 * 1024 + 1)
    unread = {"wsgi.input": Unread(), "CONTENT_LENGTH": "30000000", "CONTENT_TYPE": JSON}
    api.problem(api.anonymous.post("/v1/corpora", environ_overrides=unread), "unauthorized", 401)


def asked(
    api: Api, *bodies: list[bytes | None], path: bytes = b"/v1/tokens", kind: bytes = b"application/json"
) -> list[Exchange]:
    """Requests as the server hands them on, with a key, their bodies in these pieces and of no announced length."""
    headers = ((b"authorization", f"Bearer {api.keys['write']}".encode()), (b"content-type", kind))
    exchanges = [post(path, body, *headers) for body in bodies]
    answered(api.app.wsgi_app, Limits(api.app.config["MAX_CONTENT_LENGTH"], 1), *exchanges)
    return exchanges


def test_too_large_in_chunks(process: Process) -> None:
    """The beginning of a body is not taken for the whole, however good it is; one that just fits is taken."""
    api = made(process, Settings(**SETTINGS, max_text_bytes=1))
    limit = form.DEFAULT.bytes
    assert limit is not None
    bodies = (b"{}".ljust(limit + 70_000), b"{}".ljust(limit) + b"x", b"{}".ljust(limit + 1), b"{}".ljust(limit))
    pieces: list[list[bytes | None]] = [[body[:60_000], body[60_000:]] for body in bodies]
    for each in asked(api, *pieces):
        code = json.loads(each.body).get("code")
        assert (each.status, code) == ((201, None) if each.received == limit else (413, "request_too_large"))


def test_a_body_that_breaks_off_is_none(api: Api) -> None:
    """Its beginning is not taken for a text: a connection that is cut has done nothing."""
    api.write.post("/v1/corpora", json={"name": "genesis"})
    path = b"/v1/corpora/genesis/texts?title=t"
    [broken] = asked(api, [b"the sea", None], path=path, kind=b"text/plain")
    assert (broken.status, json.loads(broken.body)["code"]) == (400, "malformed_request")
    assert steps.sql(api.process, "SELECT count(*) FROM texts") == [(0,)]


def test_slow_bodies_are_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a problem document, like every refusal."""
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.0)
    [late] = asked(api, [])
    assert (late.status, json.loads(late.body)["code"]) == (408, "request_timed_out")


class Unread(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        raise AssertionError("nothing of it is read")


@pytest.mark.parametrize("value", ["1_0", "1.0", " +5", "+5", " 5", "0x5", "05", "1e1", "٣", ""])
def test_numbers_in_addresses_are_decimal(api: Api, value: str) -> None:
    """Nothing else that Python would read as a number."""
    answer = api.read.get("/v1/corpora", query_string={"limit": value})
    assert api.problem(answer, "invalid_request", 422)["errors"] == [
        {"where": "query/limit", "code": "int_parsing", "message": "must be a whole number, in decimal digits"}
    ]


def test_parameters_are_given_once(api: Api) -> None:
    """Two readers of an address may take different ones."""
    problem = api.problem(api.read.get("/v1/corpora?limit=5&limit=5"), "invalid_request", 422)
    assert [(fault["where"], fault["code"]) for fault in problem["errors"]] == [("query/limit", "repeated")]


def test_bodies_are_taken_as_they_are(api: Api) -> None:
    """What is encoded is refused, also where nothing is read."""
    for encoding, status in [("gzip", 415), ("br", 415), ("identity", 201)]:
        answer = api.read.post("/v1/tokens", json={}, headers={"Content-Encoding": encoding})
        assert answer.status_code == status
    encoded = api.read.get("/v1/corpora", headers={"Content-Encoding": "gzip"})
    api.problem(encoded, "wrong_content_type", 415)


def test_http_1_1_needs_one_host(api: Api) -> None:
    """Also for what is open to all."""
    key = (b"authorization", f"Bearer {api.keys['read']}".encode())
    for path in (b"/health/live", b"/v1/corpora"):
        one, none = Exchange("GET", path, [key]), Exchange("GET", path, [key], host=None)
        two = Exchange("GET", path, [key, (b"host", b"there")])
        answered(api.app.wsgi_app, Limits(0, 1), one, none, two)
        assert one.status == 200
        assert [(each.status, json.loads(each.body)["code"]) for each in (none, two)] == [
            (400, "malformed_request")
        ] * 2


@pytest.mark.parametrize("path", ["//v1/corpora", "/v1%2fcorpora", "/v1/corpora%2F"])
def test_a_path_that_a_proxy_may_read_otherwise_leads_nowhere(api: Api, path: str) -> None:
    """A proxy that refuses /v1/keys, say, lets //v1/keys pass."""
    answer = api.read.get("/v1/corpora", environ_overrides={"REQUEST_URI": path})
    api.problem(answer, "route_unknown", 404)
    assert api.read.get("/v1/corpora?cursor=a%2Fb").status_code != 404  # in a query it means what it says
