"""What every request passes: its form, its id, headers, compression."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from api import asgi, form
from api.asgi import Limits
from crochet_tasks.db.process import Process
from crochet_tasks.errors import CrochetError, DatabaseUnavailable, InvalidSetting, StoreCorrupt, requests
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.api import SETTINGS, Api, listening, made, made_again
from tests.support.asgi import Exchange, answered, post

pytestmark = pytest.mark.integration


JSON = "application/json"


class Wire:
    """Asks over a real connection, with a key; a body that is an iterator goes in chunks."""

    def __init__(self, connection: http.client.HTTPConnection, key: str) -> None:
        self._connection, self._key = connection, key

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes | Iterator[bytes] = b""
    ) -> tuple[http.client.HTTPResponse, bytes]:
        authorized = {"Authorization": f"Bearer {self._key}", **headers}
        self._connection.request(method, path, body, authorized, encode_chunked=not isinstance(body, bytes))
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= 400:
            self._connection.close()  # what is left of the body is in the way of the next request
        return answer, content


@contextlib.contextmanager
def wired(api: Api, scope: str) -> Iterator[Wire]:
    with (
        listening(api) as url,
        contextlib.closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)) as connection,
    ):
        yield Wire(connection, api.keys[scope])


@pytest.fixture
def wire(api: Api) -> Iterator[Wire]:
    """An administrator's, to an API with the corpus `genesis`."""
    api.write.post("/v1/corpora", json={"name": "genesis"})
    with wired(api, "admin") as wire:
        yield wire


# ── the form of requests ────────────────────────────────────────────────────────────────────────


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


def test_faults_are_named_one_by_one(api: Api) -> None:
    """A program can tell what is wrong where."""
    answer = api.read.post("/v1/tokens", json={"scopes": ["read", "x"], "more": 1})
    faults = api.problem(answer, "invalid_request", 422)["errors"]
    assert [(fault["where"], fault["code"]) for fault in faults] == [
        ("/scopes/1", "literal_error"),
        ("/more", "extra_forbidden"),
    ]


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


def test_wrong_method(api: Api) -> None:
    """The answer says which ones there are."""
    answer = api.read.put("/v1/tokens")
    api.problem(answer, "method_not_allowed", 405)
    assert set(answer.headers["Allow"].split(", ")) == {"DELETE", "OPTIONS", "POST"}
    assert api.anonymous.options("/v1/tokens").status_code == 200


def test_too_large(process: Process) -> None:
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


EVIL = "%0d%0aX-Evil:%201%0d%0a%0d%0a<script>"
GIVEN: list[tuple[str, str, dict[str, str]]] = [
    ("GET", f"/{EVIL}", {}),
    ("GET", f"/v1/corpora/{EVIL}", {}),
    ("GET", f"/v1/corpora/genesis/orthos/{EVIL}", {}),
    ("GET", f"/v1/corpora/genesis/orthos?shape={EVIL}", {"Accept": "application/x-ndjson"}),
    ("GET", f"/problems/{EVIL}", {}),
    ("GET", f"/docs/{EVIL}", {}),
    ("PUT", f"/v1/corpora/{EVIL}", {}),
    ("POST", f"/v1/corpora/genesis/texts?title={EVIL}", {"Content-Type": "text/plain"}),
    ("POST", "/v1/corpora/genesis/texts?title=t", {"Content-Type": "text/plain", "Idempotency-Key": "a\tX-Evil:1"}),
    ("GET", "/v1/corpora", {"X-Request-ID": "12345678\tX-Evil: 1"}),
    ("GET", "/v1/corpora", {"If-None-Match": '"a\tX-Evil: 1"'}),
    ("GET", "/v1/corpora", {"Origin": "https://a.example\tX-Evil: 1"}),
]


def test_nothing_given_becomes_a_header(wire: Wire) -> None:
    """Whatever is in an address or a header, the answer has the headers that it has otherwise, and shows no page."""
    for method, path, headers in GIVEN:
        answer, body = wire.ask(method, path, headers, b"the sea" if method == "POST" else b"")
        assert 200 <= answer.status < 500
        assert not [name for name, value in answer.getheaders() if "evil" in f"{name}{value}".lower()], path
        assert answer.headers.get_content_type() in (JSON, "application/problem+json", "application/x-ndjson"), path
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        json.loads(body or b"{}")


def test_slow_bodies_are_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a problem document, like every refusal."""
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.0)
    [late] = asked(api, [])
    assert (late.status, json.loads(late.body)["code"]) == (408, "request_timed_out")


class Unread(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        raise AssertionError("nothing of it is read")


def test_answers_to_faults_are_bounded(api: Api) -> None:
    """Whatever is wrong with a body, the answer lists 20 faults at the most, and none of its values."""
    api.write.post("/v1/corpora", json={"name": "genesis"})
    nested: Any = [0] * 2000
    for _ in range(27):
        nested = [nested]
    bodies: list[tuple[FlaskClient, str, Any]] = [
        (api.anonymous, "/v1/tokens/refresh", {f"x{number}": 0 for number in range(300)}),
        (api.read, "/v1/tokens", {f"x{number}" * 20: 0 for number in range(500)}),
        (api.read, "/v1/corpora/genesis/orthos/check", {"grids": [nested]}),
        (api.read, "/v1/corpora/genesis/orthos/check", {"grids": [[[0, 0], [0, 0]]] * 1000}),
        (api.read, "/v1/corpora/genesis/orthos/check", {"ids": [0] * 50_000}),
    ]
    for client, path, body in bodies:
        answer = client.post(path, json=body)
        faults = api.problem(answer, "invalid_request", 422)["errors"]
        assert 1 <= len(faults) <= 20
        assert len(answer.data) < 10_000
    deeper = b'{"grids": [' + b"[" * 150 + b"0," * 2000 + b"0" + b"]" * 150 + b"]}"
    answer = api.read.post("/v1/corpora/genesis/orthos/check", data=deeper, content_type=JSON)
    api.problem(answer, "malformed_request", 400)
    long = api.problem(api.read.get(f"/v1/corpora/{'x' * 5000}"), "corpus_unknown", 404)
    assert len(long["detail"]) <= 1000


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


PYDANTIC = re.compile("(?i)extra inputs|input should|field required|validation|instance of|value error")


def test_faults_are_said_in_our_words(api: Api) -> None:
    """None of the validator's, whatever is wrong; each says where."""
    corpus = {"name": "genesis"}
    given: list[tuple[str, Any]] = [
        ("/v1/corpora", {}),
        ("/v1/corpora", {"name": 5}),
        ("/v1/corpora", {"name": "two words"}),
        ("/v1/corpora", {"name": ""}),
        ("/v1/corpora", {**corpus, "limits": 5}),
        ("/v1/corpora", {**corpus, "limits": {"max_axes": "3"}}),
        ("/v1/corpora", {**corpus, "limits": {"max_axes": 99, "max_side": 0}}),
        ("/v1/corpora", {**corpus, "limits": {"max_axes": 2.5}}),
        ("/v1/corpora", {**corpus, "limits": {"max_axes": 1e300}}),
        ("/v1/corpora", {**corpus, "limits": {"max/axes~": 2}}),
        ("/v1/corpora", {**corpus, "description": "x" * 2001}),
        ("/v1/corpora", {**corpus, "budget": 2**60}),
        ("/v1/corpora", {**corpus, "budget": True}),
        ("/v1/tokens", {"scopes": []}),
        ("/v1/tokens", {"scopes": ["root"]}),
        ("/v1/tokens", {"scopes": {"read": 1}}),
        ("/v1/corpora/x/orthos/check", {"grids": [[["a", 5]]], "exact": "no"}),
        ("/v1/corpora/x/orthos/check", {"grids": [["a", {}]], "ids": ["\ud800"]}),
        ("/v1/corpora/x/texts", {"title": "a\nb"}),
    ]
    answers = [api.admin.post(path, json=body) for path, body in given]
    answers += [api.admin.get(f"/v1/corpora/x/orthos?{query}") for query in ("limit=0", "fields=nix", "cursor=", "a=b")]
    answers += [api.admin.post("/v1/corpora/x/texts", json={"body": "b"}, headers={"Idempotency-Key": "a b"})]
    for answer in answers:
        problem = api.problem(answer, "invalid_request", 422)
        assert problem["errors"]
        for fault in problem["errors"]:
            assert fault["where"].startswith(("/", "query/", "header/"))
            assert not PYDANTIC.search(fault["message"]), fault
            assert fault["message"] != "is not valid", fault
        assert problem["detail"].endswith(tuple(f"{each['where']} {each['message']}" for each in problem["errors"]))
    found = [fault for answer in answers for fault in answer.get_json()["errors"]]
    places = {fault["where"] for fault in found}
    assert {"/name", "/limits/max~1axes~0", "/scopes/0", "/grids/0/0/1", "query/limit"} <= places
    name = next(fault for fault in found if fault["code"] == "string_pattern_mismatch")
    assert name["message"].startswith("must be 1 to 100 ASCII letters")


# ── errors ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (RuntimeError("hunter2"), "internal", 500),
        (StoreCorrupt(problem="hunter2"), "store_corrupt", 500),
        (DatabaseUnavailable(reason="hunter2"), "database_unavailable", 503),
    ],
)
def test_nothing_of_the_inside_goes_out(
    api: Api,
    error: Exception,
    code: str,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Clients get a code and the request's id; the log has the rest."""

    def fails() -> str:
        raise error

    api.app.add_url_rule("/fails", "fails", fails)
    answer = api.anonymous.get("/fails")
    api.problem(answer, code, status)
    assert b"hunter2" not in answer.data
    assert b"Traceback" not in answer.data
    assert any("hunter2" in f"{vars(line)}" for line in caplog.records)
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_every_problem_is_explained(api: Api) -> None:
    """The type of a problem is an address where it is."""
    for code, kind in requests.kinds().items():
        page = api.anonymous.get(f"/problems/{code}").get_json()
        assert (page["status"], page["retry"]) == (kind.status, kind.retry)
        assert page["says"]
        assert not set(page["says"]) & set("{}"), page["says"]
    says = {
        code: api.anonymous.get(f"/problems/{code}").get_json()["says"] for code in ("invalid_request", "store_corrupt")
    }
    assert says["invalid_request"] == "the request is not what this route takes: query/limit must be at most 1000"
    assert "rules" not in says["store_corrupt"]  # no more than an answer would say
    document = api.anonymous.get("/openapi.json").get_data(as_text=True)
    assert not re.search(r'"detail":"[^"]*\{', document)
    api.problem(api.anonymous.get("/problems/nix"), "not_found", 404)


def test_codes_are_one_kind_each() -> None:
    """A program that knows a code knows its status."""
    kinds = [CrochetError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    codes = [kind.code for kind in kinds if "code" in vars(kind)]
    assert len(codes) == len(set(codes))


# ── ids, headers, compression ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1234.X:y_z", True), ("short", False), ("x" * 129, False), ("a b c d e f", False), ("é" * 9, False)],
)
def test_request_ids(api: Api, given: str, kept: bool, caplog: pytest.LogCaptureFixture) -> None:
    """One that is safe to log is kept, others are replaced; two requests never share one by themselves."""
    caplog.set_level(logging.INFO)
    one, two = (api.anonymous.get("/docs", headers={"X-Request-ID": given}).headers["X-Request-ID"] for _ in range(2))
    assert (one == given) is kept
    assert (one == two) is kept
    logged = [line.__dict__ for line in caplog.records if line.name == "api.access"]
    assert {(line["msg"], line["method"], line["path"], line["status"]) for line in logged} == {
        ("request", "GET", "/docs", 200)
    }


def test_headers(api: Api) -> None:
    """Answers are not kept, not framed, not sniffed; HTTPS is insisted on only where it was used."""
    answer = api.read.get("/nix")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert "Strict-Transport-Security" not in answer.headers
    assert "Strict-Transport-Security" in api.read.get("/nix", base_url="https://localhost").headers
    assert "Access-Control-Allow-Origin" not in api.read.get("/nix", headers={"Origin": "https://a.example"}).headers


def test_large_answers_are_compressed(api: Api) -> None:
    """For those who take it, and none is sent twice as another's."""
    plain = api.anonymous.get("/openapi.json")
    small = api.anonymous.get("/openapi.json", headers={"Accept-Encoding": "gzip, br"})
    assert small.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(small.data) == plain.data
    assert int(small.headers["Content-Length"]) == len(small.data) < len(plain.data) / 3
    assert plain.headers["Vary"] == small.headers["Vary"] == "Accept-Encoding"
    for refused in ("identity", "gzip;q=0", "br"):
        assert (
            "Content-Encoding" not in api.anonymous.get("/openapi.json", headers={"Accept-Encoding": refused}).headers
        )
    assert "Content-Encoding" not in api.anonymous.get("/health/live", headers={"Accept-Encoding": "gzip"}).headers


def test_tags_of_compressed_answers(wire: Wire) -> None:
    """A strong ETag is that of the very bytes, so it comes with those; what is compressed has a weak one. Both fit."""
    patched = {"Content-Type": "application/merge-patch+json", "If-Match": "*"}
    wire.ask("PATCH", "/v1/corpora/genesis", patched, json.dumps({"description": "word " * 400}).encode())
    for number in range(30):
        body = json.dumps({"name": f"corpus-{number}"}).encode()
        wire.ask("POST", "/v1/corpora", {"Content-Type": JSON}, body)
    for path, weak in (("/v1/corpora/genesis", False), ("/v1/corpora", True)):
        plain, _ = wire.ask("GET", path, {})
        small, _ = wire.ask("GET", path, {"Accept-Encoding": "gzip"})
        assert (small.headers["Content-Encoding"] == "gzip", small.headers["ETag"].startswith("W/")) == (weak, weak)
        assert plain.headers["ETag"] == small.headers["ETag"]
        assert (small.headers["Vary"] == "Accept-Encoding") is weak
        for accepted in ("gzip", "identity"):
            again, nothing = wire.ask(
                "GET", path, {"Accept-Encoding": accepted, "If-None-Match": small.headers["ETag"]}
            )
            assert (again.status, nothing) == (304, b"")
    tag = wire.ask("GET", "/v1/corpora/genesis", {"Accept-Encoding": "gzip"})[0].headers["ETag"]
    changed = {**patched, "If-Match": tag, "Accept-Encoding": "gzip"}
    assert [wire.ask("PATCH", "/v1/corpora/genesis", changed, b'{"budget": 7}')[0].status for _ in range(2)] == [
        200,
        412,
    ]


def test_pages_of_these_origins_may_ask(process: Process) -> None:
    """And no others; the question whether they may needs no key."""
    api = made(process, Settings(**SETTINGS, api_origins="https://a.example,https://b.example"))
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for origin, may in (("https://b.example", True), ("https://c.example", False), ("https://b.example.evil", False)):
        answer = api.anonymous.options("/v1/tokens", headers={"Origin": origin, **asked})
        assert (answer.headers.get("Access-Control-Allow-Origin") == origin) is may
        assert "Access-Control-Allow-Credentials" not in answer.headers
    asked["Access-Control-Request-Headers"] = "x-crochet-date, x-crochet-signature"
    answer = api.anonymous.options("/v1/corpora/a", headers={"Origin": "https://a.example", **asked})
    assert "x-crochet-signature" in answer.headers["Access-Control-Allow-Headers"]
    answer = api.read.get("/v1/corpora", headers={"Origin": "https://a.example"})
    assert "X-Crochet-Version" in answer.headers["Access-Control-Expose-Headers"]
    for pattern in ("https://*.a.example", "https://(a|b).example", "https://a.example$"):
        with pytest.raises(InvalidSetting):
            Settings.load(api_origins=pattern)


def test_proxies_are_believed_only_where_there_are_some(process: Process) -> None:
    """The address that counts is that of the client, as far as it is known."""
    for proxies, seen in ((0, "127.0.0.1"), (1, "10.0.0.2")):
        api = made_again(process, Settings(**SETTINGS, api_proxies=proxies))
        from flask import request

        api.app.add_url_rule("/address", "address", lambda: str(request.remote_addr))
        answer = api.anonymous.get("/address", headers={"X-Forwarded-For": "10.0.0.1, 10.0.0.2"})
        assert answer.text == seen


@pytest.mark.parametrize("path", ["//v1/corpora", "/v1%2fcorpora", "/v1/corpora%2F"])
def test_a_path_that_a_proxy_may_read_otherwise_leads_nowhere(api: Api, path: str) -> None:
    """A proxy that refuses /v1/keys, say, lets //v1/keys pass."""
    answer = api.read.get("/v1/corpora", environ_overrides={"REQUEST_URI": path})
    api.problem(answer, "route_unknown", 404)
    assert api.read.get("/v1/corpora?cursor=a%2Fb").status_code != 404  # in a query it means what it says
