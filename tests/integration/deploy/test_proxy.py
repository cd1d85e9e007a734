"""The proxy of docker-compose.yml: a canary gets its share, and a server that is gone costs no request."""

from __future__ import annotations

import contextlib
import http.server
import socketserver
import threading
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any, ClassVar

import pytest
from werkzeug.middleware.proxy_fix import ProxyFix

from api.asgi import _headers
from tests.support.fleet import Behind
from tests.support.haproxy import HAProxy
from tests.support.server import HOST
from tests.support.waiting import SECONDS, eventually

pytestmark = pytest.mark.integration


class Api(http.server.BaseHTTPRequestHandler):
    """Answers everything with 200."""

    seen: ClassVar[list[Message]] = []
    """the headers of requests, but for checks of its health"""

    def do_GET(self) -> None:
        if self.path != "/health/live":
            self.seen.append(self.headers)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Silent."""


@contextlib.contextmanager
def api() -> Iterator[socketserver.TCPServer]:
    with http.server.ThreadingHTTPServer((HOST, 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(SECONDS)


def post(proxy: HAProxy) -> bool:
    with urllib.request.urlopen(proxy.url, data=b"", timeout=SECONDS) as answer:
        return int(answer.status) == 200


def grew(proxy: HAProxy, *servers: str) -> bool:
    """Whether one more request reaches these servers, and these only."""
    names = ("apis/api1", "apis/canary1")
    before = {name: proxy.requests(name) for name in names}
    assert all(post(proxy) for _ in range(10))
    return {name for name in names if proxy.requests(name) > before[name]} == set(servers)


def test_a_canary_gets_requests_when_it_has_a_weight(haproxy: Behind) -> None:
    with api() as main, api() as canary:
        proxy = haproxy(api=[main.server_address[1]], canary=[canary.server_address[1]])
        eventually(lambda: proxy.is_up("apis/canary1") and proxy.is_up("apis/api1"))
        assert grew(proxy, "apis/api1")
        proxy.say("set weight apis/canary1 128; set weight apis/api1 128")
        assert grew(proxy, "apis/api1", "apis/canary1")
        proxy.say("set weight apis/canary1 256; set weight apis/api1 0")
        assert grew(proxy, "apis/canary1")


def test_no_request_fails_when_a_canary_is_gone(haproxy: Behind) -> None:
    """Before a check of its health has noticed."""
    with api() as main:
        with api() as canary:
            proxy = haproxy(api=[main.server_address[1]], canary=[canary.server_address[1]])
            eventually(lambda: proxy.is_up("apis/canary1"))
            proxy.say("set weight apis/canary1 128; set weight apis/api1 128")
        assert all(post(proxy) for _ in range(20))


# ── who asks ────────────────────────────────────────────────────────────────────────────────────

CLIENT = ("203.0.113.9", "https", "crochet.example")
"""the address, the scheme and the host that the proxy with TLS says"""


def believed(headers: Message, proxies: int) -> tuple[str, str, str]:
    """What the API takes for the address of the client, its scheme and the host that it asked."""

    def found(environ: dict[str, str], _: object) -> tuple[str, str, str]:
        return environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], environ["HTTP_HOST"]

    app: Any = found
    fixed: Any = ProxyFix(app, x_for=proxies, x_proto=proxies, x_host=proxies)
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    who: tuple[str, str, str] = fixed(_headers({"headers": raw}) | {"REMOTE_ADDR": "", "wsgi.url_scheme": "http"}, None)
    return who


@pytest.mark.parametrize("proxies", [1, 2])
def test_the_api_knows_who_asks_also_behind_a_proxy_with_tls(tmp_path: Path, proxies: int) -> None:
    """With 2 proxies: whatever the client claims. With 1 its address is the one that connects."""
    names = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host")
    claimed = dict(zip(names, ("192.0.2.1", "gopher", "evil.example"), strict=True))
    said = dict(zip(names, CLIENT, strict=True)) if proxies == 2 else {}
    with api() as main:
        proxy = HAProxy(tmp_path, {"api": [main.server_address[1]]}, {"CROCHET_API_PROXIES": str(proxies)})
        proxy.start()
        try:
            eventually(lambda: proxy.is_up("apis/api1"))
            for headers in (said, {name: f"{claimed[name]}, {said.get(name, '')}".strip(", ") for name in names}):
                Api.seen.clear()
                request = urllib.request.Request(proxy.url, headers=headers)
                with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                    assert answer.status == 200
                who = believed(Api.seen[0], proxies)
                assert who == CLIENT if proxies == 2 else who[0] == HOST
        finally:
            proxy.kill()


def test_on_the_admin_port_no_other_proxy_is_believed(tmp_path: Path) -> None:
    """None is on that way: what the request says of one is made up."""
    claimed = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    with api() as main:
        proxy = HAProxy(tmp_path, {"api": [main.server_address[1]]}, {"CROCHET_API_PROXIES": "2"})
        proxy.start()
        try:
            eventually(lambda: proxy.is_up("apis/api1"))
            Api.seen.clear()
            request = urllib.request.Request(f"http://{HOST}:{proxy.console}", headers=claimed)
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                assert answer.status == 200
            assert believed(Api.seen[0], 2) == (HOST, "http", f"{HOST}:{proxy.console}")
        finally:
            proxy.kill()
