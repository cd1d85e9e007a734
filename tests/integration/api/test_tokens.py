"""What keys are exchanged for: tokens, which end with them."""

from __future__ import annotations

from typing import Any

import jwt
import pytest

from crochet_tasks.db import access
from crochet_tasks.db.process import Process
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.api import SETTINGS, Api, get, guarded, made, made_again, security_log

pytestmark = pytest.mark.integration


def test_tokens_have_no_more_scopes_than_asked_for(guards: Api) -> None:
    """A token has those of its scopes that were wanted; what the key lacks is refused; so is a token for a token."""
    tokens = guards.admin.post("/v1/tokens", json={"scopes": ["read"]}).get_json()
    assert tokens["scopes"] == ["read"]
    assert get(guards, tokens["access_token"]).status_code == 200
    guards.problem(get(guards, tokens["access_token"], "write"), "forbidden", 403)
    guards.problem(guards.read.post("/v1/tokens", json={"scopes": ["admin"]}), "forbidden", 403)
    again = guards.with_key(tokens["access_token"]).post("/v1/tokens", json={})
    guards.problem(again, "key_needed", 403)


def test_refresh_tokens_are_good_once(guards: Api) -> None:
    """Each gives the next pair; used a second time it ends the session, also for the holder of the newest token."""
    first = guards.read.post("/v1/tokens", json={}).get_json()
    second = guards.anonymous.post("/v1/tokens/refresh", json={"refresh_token": first["refresh_token"]}).get_json()
    assert get(guards, second["access_token"]).status_code == 200
    stolen = guards.anonymous.post("/v1/tokens/refresh", json={"refresh_token": first["refresh_token"]})
    guards.problem(stolen, "unauthorized", 401)
    guards.problem(get(guards, second["access_token"]), "unauthorized", 401)
    newest = guards.anonymous.post("/v1/tokens/refresh", json={"refresh_token": second["refresh_token"]})
    guards.problem(newest, "unauthorized", 401)
    assert "session.stolen" in [row[0] for row in security_log(guards)]


@pytest.mark.parametrize("token", ["", "crr_" + "A" * 43, "\ud800", "x" * 201])
def test_no_refresh_tokens(api: Api, token: str) -> None:
    """What is none is refused."""
    answer = api.anonymous.post("/v1/tokens/refresh", json={"refresh_token": token})
    assert answer.status_code in (401, 422)
    assert answer.mimetype == "application/problem+json"


def test_ended_sessions_are_refused_at_once(guards: Api) -> None:
    """A token ends its own session, a key all of them: at once, also in another process of the API."""
    other = made_again(guards.process, Settings(**SETTINGS))
    guarded(other.app)
    tokens = [guards.read.post("/v1/tokens", json={}).get_json() for _ in range(3)]
    access_tokens = [each["access_token"] for each in tokens]
    assert guards.with_key(access_tokens[0]).delete("/v1/tokens").status_code == 204
    assert [get(each, token).status_code for each in (guards, other) for token in access_tokens] == [401, 200, 200] * 2
    assert guards.read.delete("/v1/tokens").status_code == 204
    assert [get(each, token).status_code for each in (guards, other) for token in access_tokens] == [401] * 6


def test_sessions_of_a_key_are_bounded(guards: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one ends the oldest; those of another key stay."""
    monkeypatch.setattr(access, "SESSIONS_OF_A_KEY", 3)
    other = guards.write.post("/v1/tokens", json={}).get_json()["access_token"]
    tokens = [guards.read.post("/v1/tokens", json={}).get_json()["access_token"] for _ in range(5)]
    assert [get(guards, token).status_code for token in (other, *tokens)] == [200, 401, 401, 200, 200, 200]
    assert steps.sql(guards.process, "SELECT count(*) FROM sessions") == [(4,)]


@pytest.mark.parametrize(
    "change",
    [
        {"aud": "else"},
        {"iss": "else"},
        {"exp": 1},
        {"sid": "no uuid"},
        {"sub": None},
        {"sub": "aaaaaaaaaa"},
        {"sub": "aaaaa\0aaaa"},
        {"sub": "\ud800" * 10},
        {"sub": ["aaaaaaaaaa"]},
        {"sid": "00000000-0000-0000-0000-000000000000"},
        {"exp": None},
    ],
)
def test_claims_are_checked(guards: Api, change: dict[str, Any]) -> None:
    """A token that is signed well, but says something else, is none."""
    secret = SETTINGS["jwt_secret"].get_secret_value()
    token = guards.read.post("/v1/tokens", json={}).get_json()["access_token"]
    claims = jwt.decode(token, secret, algorithms=["HS256"], audience="crochet-api")
    changed = {name: value for name, value in {**claims, **change}.items() if value is not None}
    assert get(guards, jwt.encode(claims, secret, "HS256")).status_code == 200
    guards.problem(get(guards, jwt.encode(changed, secret, "HS256")), "unauthorized", 401)


def test_the_signature_is_checked(guards: Api) -> None:
    """Neither another secret, another algorithm nor none makes a token."""
    secret = SETTINGS["jwt_secret"].get_secret_value()
    token = guards.read.post("/v1/tokens", json={}).get_json()["access_token"]
    claims = jwt.decode(token, secret, algorithms=["HS256"], audience="crochet-api")
    forged = [
        jwt.encode(claims, secret + "x", "HS256"),
        jwt.encode(claims, secret * 2, "HS512"),
        jwt.encode(claims, "", "none"),
        token[:-2] + ("AA" if token[-2:] != "AA" else "BB"),
    ]
    for each in forged:
        guards.problem(get(guards, each), "unauthorized", 401)


def test_without_a_secret_there_are_no_tokens(process: Process) -> None:
    """In production; a development server makes a secret of its own."""
    api = made(process, Settings())
    api.problem(api.read.post("/v1/tokens", json={}), "tokens_off", 501)
    own = made_again(process, Settings(environment="development"))
    assert own.with_key(api.keys["read"]).post("/v1/tokens", json={}).status_code == 201
