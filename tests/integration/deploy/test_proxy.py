"""The proxy of docker-compose.yml: a canary gets its share, and a server that is gone costs no request."""

from __future__ import annotations

import contextlib
import http.server
import socketserver
import threading
import urllib.request
from collections.abc import Iterator

import pytest

from tests.support.fleet import Behind
from tests.support.haproxy import HAProxy
from tests.support.server import HOST
from tests.support.waiting import SECONDS, eventually

pytestmark = pytest.mark.integration


class Api(http.server.BaseHTTPRequestHandler):
    """Answers everything with 200."""

    def do_GET(self) -> None:
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
