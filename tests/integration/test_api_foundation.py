"""What every request passes: its form, its id, headers, compression, health, and a database that is away."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from werkzeug.test import TestResponse

from api import create_app, middleware, problems
from crochet_tasks import app
from crochet_tasks.app import Process
from crochet_tasks.db.guarded import GuardedDatabase
from crochet_tasks.errors import CrochetError, DatabaseUnavailable, StoreCorrupt
from crochet_tasks.settings import Settings
from tests import services
from tests.integration.api import SETTINGS, Api, made
from tests.integration.test_api_security import guarded, made_again

pytestmark = pytest.mark.integration

# ── the form of requests ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "content_type", "code", "status"),
    [
        (b"{", "application/json", "malformed_request", 400),
        (b"", "application/json", "malformed_request", 400),
        (b"\xff\xfe", "application/json", "malformed_request", 400),
        (b"[" * 100_000, "application/json", "malformed_request", 400),
        (b"[]", "application/json", "invalid_request", 422),
        (b'"{}"', "application/json", "invalid_request", 422),
        (b"null", "application/json", "invalid_request", 422),
        (b'{"scopes": ["read"], "tenant": 2}', "application/json", "invalid_request", 422),
        (b'{"scopes": ["root"]}', "application/json", "invalid_request", 422),
        (b'{"scopes": ["\\u0000"]}', "application/json", "invalid_request", 422),
        (b'{"scopes": ["\\ud800"]}', "application/json", "invalid_request", 422),
        (b"{}", "text/plain", "wrong_content_type", 415),
        (b"{}", None, "wrong_content_type", 415),
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


def test_wrong_method(api: Api) -> None:
    """The answer says which ones there are."""
    answer = api.read.put("/v1/tokens")
    api.problem(answer, "method_not_allowed", 405)
    assert set(answer.headers["Allow"].split(", ")) == {"DELETE", "OPTIONS", "POST"}
    assert api.nobody.options("/v1/tokens").status_code == 200


def test_too_large(process: Process) -> None:
    """What says that it is too large is not read."""
    api = made(process, Settings(**SETTINGS, max_text_bytes=1))
    answer = api.read.post("/v1/tokens", data=b" " * 70_000 + b"{}", content_type="application/json")
    api.problem(answer, "request_too_large", 413)


class Slow(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        time.sleep(0.02)
        return super().read(min(1, size or 1))


def test_slow_bodies_are_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body has so much time altogether, however regularly a part of it comes."""
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.2)
    body = {"wsgi.input": Slow(b" " * 1000), "CONTENT_LENGTH": "1000", "CONTENT_TYPE": "application/json"}
    began = time.monotonic()
    api.problem(api.read.post("/v1/tokens", environ_overrides=body), "request_timed_out", 408)
    assert time.monotonic() - began < 5


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
    answer = api.nobody.get("/fails")
    api.problem(answer, code, status)
    assert b"hunter2" not in answer.data
    assert b"Traceback" not in answer.data
    assert any("hunter2" in f"{vars(line)}" for line in caplog.records)
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_every_problem_is_explained(api: Api) -> None:
    """The type of a problem is an address where it is."""
    for code, kind in problems.kinds().items():
        assert api.nobody.get(f"/problems/{code}").get_json()["status"] == kind.status
    api.problem(api.nobody.get("/problems/nix"), "not_found", 404)


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
    one, two = (api.nobody.get("/docs", headers={"X-Request-ID": given}).headers["X-Request-ID"] for _ in range(2))
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


def test_docs_need_nobody_else(api: Api) -> None:
    """The pages take all that they need from this server, and run no script that is in a page."""
    page = api.nobody.get("/docs")
    assert "script-src 'self';" in page.headers["Content-Security-Policy"]
    for part in (
        "/docs/css/swagger-ui.css",
        "/docs/js/swagger-ui-bundle.js",
        "/docs/start.js",
        "/docs/images/swagger.svg",
    ):
        assert part in page.text or part.endswith(("start.js", "svg"))
        with api.nobody.get(part) as answer:
            assert answer.status_code == 200
    assert "://" not in page.text
    assert api.nobody.get("/").headers["Location"] == "/docs"


def test_openapi_says_all_that_is_answered(api: Api) -> None:
    """Every error of a route is a problem document, and every route that needs a key says so."""
    spec = api.nobody.get("/openapi.json").get_json()
    assert spec["openapi"].startswith("3.1")
    for path, item in spec["paths"].items():
        for operation in item.values():
            errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
            if path.startswith("/v1"):
                assert {"400", "429", "500", "503"} <= set(errors), path
                assert ("401" in errors) == ("security" in operation) or path == "/v1/tokens/refresh"
                assert all("application/problem+json" in each["content"] for each in errors.values()), path


def test_large_answers_are_compressed(api: Api) -> None:
    """For those who take it, and none is sent twice as another's."""
    plain = api.nobody.get("/openapi.json")
    small = api.nobody.get("/openapi.json", headers={"Accept-Encoding": "gzip, br"})
    assert small.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(small.data) == plain.data
    assert int(small.headers["Content-Length"]) == len(small.data) < len(plain.data) / 3
    assert plain.headers["Vary"] == small.headers["Vary"] == "Accept-Encoding"
    for refused in ("identity", "gzip;q=0", "br"):
        assert "Content-Encoding" not in api.nobody.get("/openapi.json", headers={"Accept-Encoding": refused}).headers
    assert "Content-Encoding" not in api.nobody.get("/health/live", headers={"Accept-Encoding": "gzip"}).headers


def test_pages_of_these_origins_may_ask(process: Process) -> None:
    """And no others; the question whether they may needs no key."""
    api = made(process, Settings(**SETTINGS, api_origins="https://a.example,https://b.example"))
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for origin, may in (("https://b.example", True), ("https://c.example", False), ("https://b.example.evil", False)):
        answer = api.nobody.options("/v1/tokens", headers={"Origin": origin, **asked})
        assert (answer.headers.get("Access-Control-Allow-Origin") == origin) is may
        assert "Access-Control-Allow-Credentials" not in answer.headers


def test_proxies_are_believed_only_where_there_are_some(process: Process) -> None:
    """The address that counts is that of the client, as far as it is known."""
    for proxies, seen in ((0, "127.0.0.1"), (1, "10.0.0.2")):
        api = made_again(process, Settings(**SETTINGS, api_proxies=proxies))
        from flask import request

        api.app.add_url_rule("/address", "address", lambda: str(request.remote_addr))
        answer = api.nobody.get("/address", headers={"X-Forwarded-For": "10.0.0.1, 10.0.0.2"})
        assert answer.text == seen


# ── health, and a database that is away ─────────────────────────────────────────────────────────


def health(api: Api, path: str = "ready") -> tuple[int, dict[str, Any]]:
    answer = api.nobody.get(f"/health/{path}")
    return answer.status_code, json.loads(answer.data)


def test_health(api: Api) -> None:
    """With a database alone all is well: what the server is not set up for is not missed."""
    assert health(api, "live") == (200, {"status": "live"})
    assert health(api, "startup") == (200, {"status": "started"})
    status, body = health(api)
    assert (status, body["status"], body["degraded"]) == (200, "ready", [])
    assert {name: each["state"] for name, each in body["components"].items()} == {
        "database": "ok",
        "broker": "none",
        "queues": "none",
        "redis": "none",
    }
    assert body["components"]["database"]["latency_ms"] >= 0
    assert body["components"]["database"]["pool"]["size"] >= 1


def test_health_without_broker_and_redis(process: Process) -> None:
    """They are named, and the API is ready without them; nothing of their addresses is told."""
    nowhere: dict[str, Any] = {
        "broker_url": "amqp://user:hunter2@127.0.0.1:1//",
        "redis_url": "redis://:hunter2@127.0.0.1:1/0",
    }
    api = made_again(process, Settings(**SETTINGS, **nowhere))
    began = time.monotonic()
    answer = api.nobody.get("/health/ready")
    assert time.monotonic() - began < 2
    body = answer.get_json()
    assert (answer.status_code, body["status"], body["degraded"]) == (200, "degraded", ["broker", "queues", "redis"])
    assert body["components"]["redis"]["last_error"]["code"] in ("redis_unavailable", "timed_out")
    assert b"hunter2" not in answer.data


def test_health_is_looked_at_once_a_second(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask."""
    from crochet_tasks.db import schema

    looks: list[object] = []
    monkeypatch.setattr(schema, "check", looks.append)
    for _ in range(5):
        health(api)
    assert len(looks) == 1


@pytest.fixture
def alone(postgres: services.Postgres, distributed_database: str) -> Iterator[Api]:
    """An API whose database can be stopped."""
    settings = Settings(**SETTINGS, database_url=SecretStr(distributed_database))
    with app.process(settings, GuardedDatabase(distributed_database, settings, 4)) as process:
        api = made(process, settings)
        guarded(api.app)
        yield api
    with contextlib.suppress(Exception):
        postgres.start()


def ask(api: Api) -> tuple[TestResponse, float]:
    began = time.monotonic()
    return api.read.get("/v1/test/read"), time.monotonic() - began


def test_without_the_database(alone: Api, postgres: services.Postgres) -> None:
    """A problem within a second, at once while it stays away, and by itself all is well when it is back."""
    assert ask(alone)[0].status_code == 200
    assert health(alone)[0] == 200
    postgres.kill()
    for _ in range(5):
        answer, seconds = ask(alone)
        alone.problem(answer, "database_unavailable", 503)
        assert seconds < 1
        assert answer.headers["Retry-After"] == "1"
    time.sleep(1.1)
    status, body = health(alone)
    assert (status, body["status"]) == (503, "away")
    assert body["components"]["database"]["last_error"]["code"] == "database_unavailable"
    assert health(alone, "live")[0] == 200
    postgres.start()
    until = time.monotonic() + 5
    while ask(alone)[0].status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.1)
    time.sleep(1.1)
    assert health(alone)[0] == 200


def test_without_a_database_from_the_start() -> None:
    """The process lives, and says that it has not begun."""
    nowhere = create_app(Settings(database_url=SecretStr("postgresql://nobody@127.0.0.1:1/none")))
    client = nowhere.test_client()
    assert client.get("/health/live").status_code == 200
    assert client.get("/health/startup").status_code == client.get("/health/ready").status_code == 503
    app_process: Process = nowhere.extensions["crochet.process"]
    app_process.close()
    app._process = None
