"""Log-in by OpenID Connect, against a provider that runs as a process of its own; and what an attacker would try."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import web
from crochet_tasks.access import keys, oidc
from crochet_tasks.access.keys import KeySpec
from crochet_tasks.db.process import Process
from crochet_tasks.settings import Settings
from tests.support import api as apis
from tests.support import steps
from tests.support.api import SETTINGS, Api, corpus_of, security_log
from tests.support.oidc_provider import CLIENT, Running
from tests.support.people import back, exchanged, log_in, page, refused, sent_away, served
from tests.support.server import take_port

pytestmark = pytest.mark.integration


@pytest.fixture
def api(process: Process, elsewhere: Running) -> Api:
    return served(process, elsewhere.issuer)


# ── what works ──────────────────────────────────────────────────────────────────────────────────


def test_a_person_logs_in_at_the_provider_and_comes_back(api: Api, elsewhere: Running) -> None:
    """To the page that was asked for. The request has a challenge by S256, a state and a nonce, each time others."""
    corpus_of(api, "genesis")
    browser, answer = log_in(api, elsewhere)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/corpora")
    assert "genesis" in page(browser).text
    asked = [given for kind, *rest in elsewhere.asked() if kind == "authorize" for given in rest]
    log_in(api, elsewhere)
    again = [given for kind, *rest in elsewhere.asked() if kind == "authorize" for given in rest][-1]
    assert asked[-1]["code_challenge_method"] == "S256"
    assert all(asked[-1][name] != again[name] for name in ("state", "nonce", "code_challenge"))
    assert ("person.created",) in [line[:1] for line in security_log(api)]
    assert steps.sql(api.process, "SELECT what FROM audit WHERE what LIKE 'key.created' AND after->>'name' LIKE 'ada%'")


def test_an_id_token_is_exchanged_for_tokens_of_the_api(api: Api, elsewhere: Running) -> None:
    made = exchanged(api, elsewhere.id_token())
    assert made.status_code == 201
    assert made.get_json()["scopes"] == ["read"]
    assert api.with_key(made.get_json()["access_token"]).get("/v1/corpora").status_code == 200
    api.problem(api.with_key(made.get_json()["access_token"]).post("/v1/corpora", json={"name": "x"}), "forbidden", 403)


def test_roles_and_tenant_come_from_claims(process: Process, elsewhere: Running) -> None:
    """The highest role counts. What has changed at the provider ends the sessions that there were."""
    api = served(
        process,
        elsewhere.issuer,
        oidc_roles_claim="realm.groups",
        oidc_roles="staff=read, chiefs=admin",
        oidc_tenant_claim="org",
    )
    elsewhere.next(claims={"realm": {"groups": ["staff", "chiefs", "others"]}, "org": "other"})
    chief = exchanged(api, elsewhere.id_token()).get_json()
    assert chief["scopes"] == list(keys.SCOPES)
    client = api.with_key(chief["access_token"])
    assert {each["tenant"] for each in client.get("/v1/keys").get_json()["keys"]} == {"other"}
    elsewhere.next(claims={"realm": {"groups": ["staff"]}, "org": "other", "jti": "2"})
    assert exchanged(api, elsewhere.id_token()).get_json()["scopes"] == ["read"]
    api.problem(client.get("/v1/keys"), "unauthorized", 401)
    for claims in (
        {"org": "other"},
        {"realm": {"groups": ["staff"]}, "org": "nobody"},
        {"realm": {"groups": ["staff"]}},
    ):
        elsewhere.next(claims=claims)
        api.problem(exchanged(api, elsewhere.id_token()), "log_in_refused", 403)


def test_a_person_who_is_revoked_stays_out(api: Api, elsewhere: Running) -> None:
    browser, _ = log_in(api, elsewhere)
    person = next(each for each in keys.listed(api.process.database) if each.person)
    assert person.name == "ada@example.org"
    api.problem(api.admin.post(f"/v1/keys/{person.key}/rotate", json={}), "invalid_request", 422)
    assert api.admin.post(f"/v1/keys/{person.key}/revoke").status_code == 200
    assert page(browser).status_code == 303
    assert refused(log_in(api, elsewhere)[1], "revoked")


def test_keys_that_the_provider_has_changed_are_found(api: Api, elsewhere: Running, monkeypatch: Any) -> None:
    """Each key that is not known is looked for at the provider, but not more often than once in KEYS_SECONDS."""
    assert exchanged(api, elsewhere.id_token()).status_code == 201
    elsewhere.next(key="new", claims={"jti": "2"})
    looks = elsewhere.asked().count(["/jwks_uri"])
    api.problem(exchanged(api, elsewhere.id_token()), "log_in_refused", 403)
    assert elsewhere.asked().count(["/jwks_uri"]) == looks
    monkeypatch.setattr(oidc, "KEYS_SECONDS", 0.0)
    assert exchanged(api, elsewhere.id_token()).status_code == 201


# ── what an attacker tries ──────────────────────────────────────────────────────────────────────


def test_a_state_of_another_browser(api: Api, elsewhere: Running) -> None:
    """The attacker's own code, sent to the victim's browser: with its log-in pending, or without any."""
    attacker, victim = api.app.test_client(), api.app.test_client()
    address = elsewhere.visited(sent_away(attacker))
    assert refused(back(victim, address), "another browser")
    sent_away(victim)
    assert refused(back(victim, address), "another browser")
    assert page(victim).status_code == 303


def test_another_nonce(api: Api, elsewhere: Running) -> None:
    elsewhere.next(claims={"nonce": "that of another log-in"})
    assert refused(log_in(api, elsewhere)[1], "invalid_claim")
    elsewhere.next(claims={"nonce": None})
    assert refused(log_in(api, elsewhere)[1], "missing_claim")


def test_a_code_that_is_used_again(api: Api, elsewhere: Running) -> None:
    """With the cookie that its first use took away, too; and one code in another log-in, whose verifier differs."""
    browser = api.app.test_client()
    address = elsewhere.visited(sent_away(browser))
    cookie = browser.get_cookie("crochet_log_in", path="/log-in/oidc")
    assert cookie is not None
    assert back(browser, address).status_code == 303
    assert refused(back(browser, address), "another browser")
    browser.set_cookie("crochet_log_in", cookie.value, path="/log-in/oidc")
    assert refused(back(browser, address), "used before")
    stolen = parse_qs(urlsplit(elsewhere.visited(sent_away(api.app.test_client()))).query)["code"][0]
    thief = api.app.test_client()
    own = parse_qs(urlsplit(elsewhere.visited(sent_away(thief))).query)
    with_stolen = thief.get(f"/log-in/oidc/callback?code={stolen}&state={own['state'][0]}")
    assert refused(with_stolen, "did not take the code")


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"key": "none"}, "ID token"),
        ({"key": "hmac"}, "ID token"),
        ({"key": "stranger"}, "ID token"),
        ({"claims": {"aud": "another client"}}, "invalid_claim"),
        ({"claims": {"aud": [CLIENT, "another"], "azp": "another"}}, "ID token"),
        ({"claims": {"iss": "https://other.example"}}, "invalid_claim"),
        ({"claims": {"exp": 1_700_000_000}}, "expired_token"),
        ({"claims": {"exp": None}}, "missing_claim"),
        ({"claims": {"sub": None}}, "missing_claim"),
        ({"claims": {"roles": []}}, "no role"),
        ({"claims": {"roles": {"administrator": True}}}, "no role"),
        ({"claims": {"roles": ["admin"]}}, "no role"),
        ({"issuer": "https://other.example"}, "another provider"),
    ],
)
def test_tokens_that_are_not_good(api: Api, elsewhere: Running, what: dict[str, Any], reason: str) -> None:
    elsewhere.next(**what)
    browser, answer = log_in(api, elsewhere)
    assert refused(answer, reason), answer.text
    assert page(browser).status_code == 303
    if "issuer" not in what:
        api.problem(exchanged(api, elsewhere.id_token()), "log_in_refused", 403)
    assert not [each for each in keys.listed(api.process.database) if each.person]
    assert ("refused.log_in_refused",) in [line[:1] for line in security_log(api)]


def test_an_id_token_counts_once_and_soon(api: Api, elsewhere: Running) -> None:
    token = elsewhere.id_token()
    assert exchanged(api, token).status_code == 201
    api.problem(exchanged(api, token), "log_in_refused", 403)
    elsewhere.next(claims={"iat": int(time.time()) - 400, "jti": "2"})
    api.problem(exchanged(api, elsewhere.id_token()), "log_in_refused", 403)
    for made_up in ("x", "a.b.c", "..", token[:-4] + "AAAA"):
        api.problem(exchanged(api, made_up), "log_in_refused", 403)


def test_the_way_back_leads_to_this_site_only(api: Api, elsewhere: Running) -> None:
    browser = api.app.test_client()
    answer = back(browser, elsewhere.visited(sent_away(browser, "https://evil.example/")))
    assert answer.headers["Location"] == "/"


def test_a_person_cannot_be_taken_for_a_key(api: Api, elsewhere: Running) -> None:
    """What is stored is no secret that somebody could send."""
    log_in(api, elsewhere)
    person = next(each for each in keys.listed(api.process.database) if each.person)
    api.problem(api.with_key(f"crk_{person.key}_{'A' * 43}").get("/v1/corpora"), "unauthorized", 401)


def test_without_a_provider(process: Process) -> None:
    """Not set, or away: keys still work, and no log-in succeeds."""
    plain = apis.made(process, Settings(**SETTINGS), web.create_app)
    plain.problem(exchanged(plain, "a.b.c"), "oidc_off", 404)
    assert "your account" not in plain.app.test_client().get("/log-in").text
    away = apis.made_again(
        process, Settings(**SETTINGS, oidc_issuer=f"http://127.0.0.1:{take_port()}", oidc_client_id="x"), web.create_app
    )
    away.problem(exchanged(away, "a.b.c"), "oidc_unavailable", 503)
    assert away.app.test_client().get("/log-in/oidc", headers={"Accept": "text/html"}).status_code == 503
    key = keys.create(process.database, KeySpec("mine", ("read",))).key
    assert away.with_key(key).get("/v1/corpora").status_code == 200
