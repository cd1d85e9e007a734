"""What every answer has: request ids, headers, compression, tags; and who may ask from a page or through a proxy."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import logging
from collections.abc import Iterator

import pytest

from crochet_tasks.db.process import Process
from crochet_tasks.errors import InvalidSetting
from crochet_tasks.settings import Settings
from tests.support.api import SETTINGS, Api, listening, made, made_again

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


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1234.X:y_z", True), ("short", False), ("x" * 129, False), ("a b c d e f", False), ("é" * 9, False)],
)
def test_a_request_id_that_is_safe_to_log_is_kept(
    api: Api, given: str, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """One that is safe to log is kept, others are replaced; two requests never share one by themselves."""
    caplog.set_level(logging.INFO)
    one, two = (api.anonymous.get("/docs", headers={"X-Request-ID": given}).headers["X-Request-ID"] for _ in range(2))
    assert (one == given) is kept
    assert (one == two) is kept
    logged = [line.__dict__ for line in caplog.records if line.name == "api.access"]
    assert {(line["msg"], line["method"], line["path"], line["status"]) for line in logged} == {
        ("request", "GET", "/docs", 200)
    }


def test_answers_are_not_kept_framed_or_sniffed(api: Api) -> None:
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


def test_pages_may_send_credentials_where_the_setting_says_so(process: Process) -> None:
    """For the origins that are named, and no others."""
    api = made(process, Settings(**SETTINGS, api_origins="https://a.example", api_credentials=True))
    for origin, may in (("https://a.example", "true"), ("https://c.example", None)):
        answer = api.read.get("/v1/corpora", headers={"Origin": origin})
        assert answer.headers.get("Access-Control-Allow-Credentials") == may


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
    for path, methods in (
        ("/v1/corpora/a", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("/v1/tokens", "DELETE, OPTIONS, POST"),
    ):
        answer = api.anonymous.options(path, headers={"Origin": "https://a.example", **asked})
        assert answer.headers["Access-Control-Allow-Methods"] == methods, path
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
