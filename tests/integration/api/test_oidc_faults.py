"""An OpenID provider that does not do its job: how often it is asked, and that no log-in ends in an internal error."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from crochet_tasks.access import oidc
from crochet_tasks.db.process import Process
from tests.support.api import Api
from tests.support.oidc_provider import Running
from tests.support.people import back, exchanged, sent_away, served
from tests.support.waiting import SECONDS

pytestmark = pytest.mark.integration
UNREADABLE: list[Any] = [
    "x",
    None,
    {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA", "kid": "a"},
    {"kty": "OKP", "crv": "Ed1", "x": "AA"},
    {"kty": "RSA", "n": 7, "e": "AQAB"},
    {"kty": ["RSA"]},
    {"kty": "AKP"},
    {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "use": "other", "key_ops": ["verify"]},
]
FAILS = [500, {}]


@pytest.fixture
def api(process: Process, elsewhere: Running) -> Api:
    return served(process, elsewhere.issuer)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock of the log-in on by so many seconds."""
    ahead = [0.0]
    clock = SimpleNamespace(time=time.time, monotonic=lambda: time.monotonic() + sum(ahead))
    monkeypatch.setattr(oidc, "time", clock)
    return ahead.append


def looks(elsewhere: Running) -> int:
    return elsewhere.asked().count(["/jwks_uri"])


@pytest.mark.parametrize(
    "jwks",
    [
        [404, {"error": "not_found"}],
        [200, {}],
        [200, {"keys": 7}],
        [200, {"keys": []}],
        [200, {"keys": UNREADABLE}],
        FAILS,
    ],
)
def test_keys_that_cannot_be_read(api: Api, elsewhere: Running, jwks: list[Any]) -> None:
    """The browser's log-in is over then, too."""
    elsewhere.next(jwks=jwks)
    browser = api.app.test_client()
    answer = back(browser, elsewhere.visited(sent_away(browser)))
    assert (answer.status_code, "does not do its job" in answer.text) == (503, True)
    assert browser.get_cookie("crochet_log_in", path="/log-in/oidc") is None
    api.problem(exchanged(api, elsewhere.id_token()), "oidc_unavailable", 503)


def test_keys_that_are_not_known_here_are_passed_over(api: Api, elsewhere: Running) -> None:
    elsewhere.next(others=UNREADABLE)
    assert exchanged(api, elsewhere.id_token()).status_code == 201


@pytest.mark.parametrize("address", ["https://[", "https://127.0.0.1:x/", "http://keys.example", "https://a b/", 7])
def test_addresses_that_are_none(api: Api, elsewhere: Running, address: object) -> None:
    elsewhere.next(metadata={"jwks_uri": address})
    api.problem(exchanged(api, elsewhere.id_token()), "oidc_unavailable", 503)


def test_a_provider_that_fails_is_left_alone_for_a_while(
    api: Api, elsewhere: Running, later: Callable[[float], None]
) -> None:
    """Any client may send made-up tokens."""
    elsewhere.next(jwks=FAILS)
    before = looks(elsewhere)
    for _ in range(3):
        api.problem(exchanged(api, elsewhere.id_token()), "oidc_unavailable", 503)
    assert looks(elsewhere) == before + 1
    elsewhere.next()
    later(oidc.FAILED_SECONDS)
    assert exchanged(api, elsewhere.id_token()).status_code == 201


def test_a_look_for_a_new_key_that_fails_is_one_of_a_minute(
    api: Api, elsewhere: Running, later: Callable[[float], None]
) -> None:
    """The keys that are known count meanwhile."""
    assert exchanged(api, elsewhere.id_token()).status_code == 201
    later(oidc.KEYS_SECONDS)
    elsewhere.next(key="stranger", jwks=FAILS)
    before = looks(elsewhere)
    api.problem(exchanged(api, elsewhere.id_token()), "oidc_unavailable", 503)
    for _ in range(2):
        api.problem(exchanged(api, elsewhere.id_token()), "log_in_refused", 403)
    assert looks(elsewhere) == before + 1
    elsewhere.next(claims={"jti": "2"}, jwks=FAILS)
    assert exchanged(api, elsewhere.id_token()).status_code == 201


def test_while_one_thread_asks_others_go_on(
    api: Api, elsewhere: Running, later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exchanged(api, elsewhere.id_token()).status_code == 201
    elsewhere.next(claims={"jti": "2"})
    good = elsewhere.id_token()
    elsewhere.next(key="stranger")
    made_up = [elsewhere.id_token() for _ in range(2)]
    asking, answered, real = threading.Event(), threading.Event(), oidc.Provider._call
    calls: list[str] = []

    def slow(provider: oidc.Provider, method: str, url: str, **more: Any) -> dict[str, Any]:
        calls.append(url)
        if len(calls) == 1:
            asking.set()
            assert answered.wait(SECONDS)
        return real(provider, method, url, **more)

    monkeypatch.setattr(oidc.Provider, "_call", slow)
    later(oidc.KEYS_SECONDS)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(exchanged, api, made_up[0])
        try:
            assert asking.wait(SECONDS)
            api.problem(exchanged(api, made_up[1]), "log_in_refused", 403)
            assert exchanged(api, good).status_code == 201
        finally:
            answered.set()
        api.problem(first.result(), "log_in_refused", 403)
    assert len(calls) == 1


@pytest.mark.parametrize("how", ["changed", "curve"])
def test_a_new_key_under_the_id_of_the_old_one_is_found(
    api: Api, elsewhere: Running, later: Callable[[float], None], how: str
) -> None:
    """Within a minute, as any other."""
    elsewhere.next(key="new")  # whatever the tests before have left
    assert exchanged(api, elsewhere.id_token()).status_code == 201
    elsewhere.next(key=how, claims={"jti": "2"})
    token = elsewhere.id_token()
    api.problem(exchanged(api, token), "log_in_refused", 403)
    later(oidc.KEYS_SECONDS)
    assert exchanged(api, token).status_code == 201
