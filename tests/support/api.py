"""What tests of the API share: a client per scope, and what to look for in an answer.

    from tests.integration.api import Api

    def test_something(api: Api) -> None:
        answer = api.read.get("/v1/corpora")            # with a key of scope `read`
        answer = api.write.post("/v1/corpora", json={...})
        answer = api.admin.delete(...)
        answer = api.stranger.get(...)                  # a key of all scopes, of another tenant, `other`
        answer = api.anonymous.get(...)                    # no key at all
        api.problem(answer, "corpus_unknown", 404)      # it is that problem; returns its document

    with listening(api) as url:                     # a real HTTP server on loopback, in a thread
    api.process      what the application works with (db.process.Process): steps.accept, steps.run, steps.sql
    api.with_key(key)  a client with any key or token; api.keys: the keys by scope

Each test has a database of its own; limits of requests are out of the way. Settings are those of a development
server with authentication; for others use `made(process, settings)`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import TestResponse

from api import create_app, security
from crochet_tasks.access import keys
from crochet_tasks.access.keys import KeySpec, Scope
from crochet_tasks.db import corpora, tenants
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.settings import Settings
from tests.support import steps

SETTINGS: dict[str, Any] = {
    "jwt_secret": SecretStr("a secret of the tests, and long enough for that"),
    "api_rate": 1_000_000,
    "api_rate_high": 1_000_000,
    "api_rate_anonymous": 1_000_000,
}


@dataclass
class Api:
    app: Flask
    process: Process
    keys: dict[str, str]

    def with_key(self, key: str | None) -> FlaskClient:
        client = self.app.test_client()
        if key is not None:
            client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
        return client

    @property
    def read(self) -> FlaskClient:
        return self.with_key(self.keys["read"])

    @property
    def write(self) -> FlaskClient:
        return self.with_key(self.keys["write"])

    @property
    def admin(self) -> FlaskClient:
        return self.with_key(self.keys["admin"])

    @property
    def stranger(self) -> FlaskClient:
        return self.with_key(self.keys["stranger"])

    @property
    def anonymous(self) -> FlaskClient:
        return self.with_key(None)

    def problem(self, answer: TestResponse, code: str, status: int) -> dict[str, Any]:
        """Asserts that the answer is that problem document; returns it."""
        assert answer.mimetype == "application/problem+json", answer.data
        body: dict[str, Any] = answer.get_json()
        assert (body["code"], answer.status_code) == (code, status), body
        assert body["status"] == status
        assert body["type"] == f"/problems/{code}"
        assert body["request_id"] == answer.headers["X-Request-ID"]
        return body


def made(
    process: Process, settings: Settings | None = None, create_app: Callable[[Settings], Flask] = create_app
) -> Api:
    """An API on the database of `process`, with a key of each scope; with another `create_app` it may have a page."""
    app = create_app(settings or Settings(**SETTINGS))
    app.extensions["crochet.process"] = process
    scopes: tuple[Scope, ...] = ("read", "write", "admin")
    given: dict[str, str] = {scope: keys.create(process.database, KeySpec(scope, (scope,))).key for scope in scopes}
    with process.database.transaction() as connection:
        tenants.add(connection, "other")
    given["stranger"] = keys.create(process.database, KeySpec("stranger", scopes, tenant="other")).key
    return Api(app, process, given)


def made_again(process: Process, settings: Settings, create_app: Callable[[Settings], Flask] = create_app) -> Api:
    """Another application on the same database, with the keys that there are."""
    app = create_app(settings)
    app.extensions["crochet.process"] = process
    return Api(app, process, {})


def corpus_of(api: Api, name: str = "genesis", **fields: Any) -> Corpus:
    """A new corpus, made by a request."""
    answer = api.write.post("/v1/corpora", json={"name": name, **fields})
    assert answer.status_code == 201, answer.data
    with api.process.database.transaction() as connection:
        return corpora.named(connection, name)


def guarded(app: Flask) -> None:
    """A route of each scope: tests ask them, whatever the other routes do meanwhile. They take any parameters."""
    for scope in keys.SCOPES:
        done = security.requires(scope)(lambda query=None: "done")
        app.add_url_rule(f"/v1/test/{scope}", scope, done, methods=["GET", "POST"])


def get(api: Api, key: str | None, scope: str = "read", **more: Any) -> TestResponse:
    return api.with_key(key).get(f"/v1/test/{scope}", **more)


def security_log(api: Api) -> list[tuple[object, ...]]:
    return steps.sql(api.process, "SELECT what, key, tenant, details FROM security_log ORDER BY id")


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - it is Werkzeug's
        pass


@contextlib.contextmanager
def listening(api: Api) -> Iterator[str]:
    """The address of a server that answers with this application."""
    server = make_server("127.0.0.1", 0, api.app, threaded=True, request_handler=_Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def api(process: Process) -> Api:
    return made(process)


@pytest.fixture
def guards(api: Api) -> Api:
    guarded(api.app)
    return api


@pytest.fixture
def start_of_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are counted by the minute of the clock; if one ended during a test, more of them would pass."""
    real = time.time
    ahead = real() % 60 - 1
    monkeypatch.setattr(time, "time", lambda: real() - ahead)
