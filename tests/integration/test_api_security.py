"""Who may ask: keys, tokens, scopes, signatures, limits; what is refused, and what the log says of it."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import re
import threading
import time
from typing import Any, NoReturn

import jwt
import pytest
from flask import Flask
from sqlalchemy import event
from werkzeug.test import TestResponse

from api import create_app, security
from crochet_tasks import keys
from crochet_tasks.app import Process
from crochet_tasks.errors import DatabaseUnavailable
from crochet_tasks.keys import Wanted
from crochet_tasks.relay import Relay
from crochet_tasks.request_errors import AuthOff, KeyEnded, KeyUnknown, TenantUnknown
from crochet_tasks.settings import Settings
from crochet_tasks.signing import DATE_HEADER, SIGNATURE_HEADER, hashed, signature, split
from tests.integration import steps
from tests.integration.api import SETTINGS, Api, made

pytestmark = pytest.mark.integration

OPEN = {"/health/", "/docs", "/openapi.json", "/problems/", "/v1/tokens/refresh"}


def guarded(app: Flask) -> None:
    """A route of each scope: tests ask them, whatever the other routes do meanwhile."""
    for scope in keys.SCOPES:
        app.add_url_rule(f"/v1/test/{scope}", scope, security.requires(scope)(lambda: "done"), methods=["GET", "POST"])


@pytest.fixture
def guards(api: Api) -> Api:
    guarded(api.app)
    return api


def get(api: Api, key: str | None, scope: str = "read", **more: Any) -> TestResponse:
    return api.with_key(key).get(f"/v1/test/{scope}", **more)


def log(api: Api) -> list[tuple[object, ...]]:
    return steps.sql(api.process, "SELECT what, key, tenant, details FROM security_log ORDER BY id")


# ── keys ────────────────────────────────────────────────────────────────────────────────────────


def test_every_route_needs_a_key() -> None:
    """Nobody forgot it: all routes of the API but those for everybody need a scope."""
    app = create_app(Settings())
    for rule in app.url_map.iter_rules():
        if not any(rule.rule == "/" or rule.rule.startswith(path) for path in (*OPEN, "/static")):
            assert security.scope_of(app.view_functions[rule.endpoint]) is not None, rule


@pytest.mark.parametrize(
    ("scope", "may"), [("read", {"read"}), ("write", {"read", "write"}), ("admin", {"read", "write", "admin"})]
)
def test_scopes(guards: Api, scope: str, may: set[str]) -> None:
    """A scope includes those below it, and no other."""
    for asked in keys.SCOPES:
        answer = get(guards, guards.keys[scope], asked)
        if asked in may:
            assert answer.status_code == 200
        else:
            guards.problem(answer, "forbidden", 403)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic Y3JrOmNyaw==",
        "Bearer crk_aaaaaaaaaa_" + "A" * 43,
        "Bearer crk_AAAAAAAAAA_" + "A" * 43,
        "Bearer crk__",
        "Bearer \xe9\xff",
        "Bearer a.b.c",
        "Bearer " + "x" * 5000,
        "crk_aaaaaaaaaa_" + "A" * 43,
    ],
)
def test_what_is_no_key_is_refused(guards: Api, header: str | None) -> None:
    """Whatever is sent in place of a key gets the same answer, which says how to ask."""
    answer = guards.nobody.get("/v1/test/read", headers={} if header is None else {"Authorization": header})
    guards.problem(answer, "unauthorized", 401)
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="crochet"')


def test_the_secret_decides(guards: Api) -> None:
    """The prefix of a good key with another one's secret is no key."""
    own, other = guards.keys["read"], guards.keys["admin"]
    mixed = f"{own.rsplit('_', 1)[0][:14]}_{other[15:]}"
    assert split(mixed) is not None
    guards.problem(get(guards, mixed), "unauthorized", 401)


def test_refused_before_it_is_looked_at(api: Api) -> None:
    """Who may not ask does not learn what the route takes."""
    answer = api.nobody.post("/v1/tokens", data="{", headers={"Content-Type": "text/csv"})
    api.problem(answer, "unauthorized", 401)


def test_revoked_at_once(guards: Api) -> None:
    """The next request after a revocation is refused; so is a token that the key was exchanged for."""
    key = guards.keys["read"]
    token = guards.read.post("/v1/tokens", json={}).get_json()["access_token"]
    assert get(guards, key).status_code == get(guards, token).status_code == 200
    keys.revoke(guards.process.database, key)
    guards.problem(get(guards, key), "unauthorized", 401)
    guards.problem(get(guards, token), "unauthorized", 401)
    with pytest.raises(KeyEnded):
        keys.revoke(guards.process.database, key)


def test_expired(guards: Api) -> None:
    """A key ends by itself."""
    made = keys.create(guards.process.database, Wanted("short", days=1))
    assert get(guards, made.key).status_code == 200
    steps.sql(guards.process, "UPDATE keys SET expires_at = clock_timestamp() WHERE name = 'short'")
    assert "expired" in guards.problem(get(guards, made.key), "unauthorized", 401)["detail"]


def test_rotated(guards: Api) -> None:
    """The new key does what the old one did, which ends with its grace, and is rotated once."""
    database = guards.process.database
    old = guards.keys["write"]
    new = keys.rotate(database, keys.listed(database)[1].key, grace=3600)
    assert get(guards, old, "write").status_code == get(guards, new.key, "write").status_code == 200
    with pytest.raises(KeyEnded, match="rotated"):
        keys.rotate(database, old)
    steps.sql(guards.process, "UPDATE keys SET expires_at = '2999-01-01' WHERE prefix = :key", key=new.line.key)
    newest = keys.rotate(database, new.key)
    assert newest.line.expires_at == dt.datetime(2999, 1, 1, tzinfo=dt.UTC)  # to the microsecond
    guards.problem(get(guards, new.key), "unauthorized", 401)
    assert get(guards, newest.key, "write").status_code == 200
    assert [line.state for line in keys.listed(database) if line.name == "write"] == ["good", "rotated", "good"]


def test_last_used_is_noted_by_the_minute(guards: Api) -> None:
    """Not every request writes."""
    moment = "SELECT last_used_at FROM keys WHERE name = 'read'"
    assert steps.sql(guards.process, moment) == [(None,)]
    get(guards, guards.keys["read"])
    first = steps.sql(guards.process, moment)
    get(guards, guards.keys["read"])
    assert steps.sql(guards.process, moment) == first != [(None,)]
    steps.sql(guards.process, "UPDATE keys SET last_used_at = last_used_at - interval '61 s'")
    get(guards, guards.keys["read"])
    assert steps.sql(guards.process, moment) > first


def test_keys_of_nobody(api: Api) -> None:
    """What there is not is named, but no secret in the wrong place is repeated."""
    database = api.process.database
    with pytest.raises(TenantUnknown, match="default, other"):
        keys.create(database, Wanted("x", tenant="nobody"))
    for name in ("a" * 10, "crk_" + "a" * 10 + "_" + "B" * 43, "B" * 43):
        with pytest.raises(KeyUnknown) as unknown:
            keys.revoke(database, name)
        assert "B" * 43 not in str(unknown.value)


def test_no_secret_is_stored(guards: Api) -> None:
    """Neither a key nor a token is anywhere in the database."""
    tokens = guards.admin.post("/v1/tokens", json={}).get_json()
    get(guards, tokens["access_token"])
    get(guards, "crk_aaaaaaaaaa_" + "A" * 43)
    stored = " ".join(
        str(row)
        for table in ("keys", "sessions", "refresh_tokens", "security_log", "audit")
        for row in steps.sql(guards.process, f"SELECT row_to_json({table})::text FROM {table}")
    )
    for secret in (*guards.keys.values(), tokens["access_token"], tokens["refresh_token"]):
        assert secret not in stored
        assert secret.rsplit("_", 1)[-1] not in stored


# ── tokens ──────────────────────────────────────────────────────────────────────────────────────


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
    """Each gives the next pair; used a second time it ends the session, also for whoever has the newest token."""
    first = guards.read.post("/v1/tokens", json={}).get_json()
    second = guards.nobody.post("/v1/tokens/refresh", json={"refresh_token": first["refresh_token"]}).get_json()
    assert get(guards, second["access_token"]).status_code == 200
    stolen = guards.nobody.post("/v1/tokens/refresh", json={"refresh_token": first["refresh_token"]})
    guards.problem(stolen, "unauthorized", 401)
    guards.problem(get(guards, second["access_token"]), "unauthorized", 401)
    newest = guards.nobody.post("/v1/tokens/refresh", json={"refresh_token": second["refresh_token"]})
    guards.problem(newest, "unauthorized", 401)
    assert "session.stolen" in [row[0] for row in log(guards)]


@pytest.mark.parametrize(("method", "path"), [("POST", ""), ("POST", "/refresh"), ("DELETE", "")])
def test_routes_of_tokens_take_no_parameters(guards: Api, method: str, path: str) -> None:
    """As all others, they pass over nothing."""
    answer = guards.read.open(f"/v1/tokens{path}?x=1", method=method, json={"refresh_token": "x"} if path else {})
    guards.problem(answer, "invalid_request", 422)


@pytest.mark.parametrize("token", ["", "crr_" + "A" * 43, "\ud800", "x" * 201])
def test_no_refresh_tokens(api: Api, token: str) -> None:
    """What is none is refused."""
    answer = api.nobody.post("/v1/tokens/refresh", json={"refresh_token": token})
    assert answer.status_code in (401, 422)
    assert answer.mimetype == "application/problem+json"


def test_given_back(guards: Api) -> None:
    """A token ends its own session, a key all of them."""
    tokens = [guards.read.post("/v1/tokens", json={}).get_json() for _ in range(3)]
    access = [each["access_token"] for each in tokens]
    assert guards.with_key(access[0]).delete("/v1/tokens").status_code == 204
    assert [get(guards, token).status_code for token in access] == [401, 200, 200]
    assert guards.read.delete("/v1/tokens").status_code == 204
    assert [get(guards, token).status_code for token in access] == [401, 401, 401]


@pytest.mark.parametrize(
    "change",
    [
        {"aud": "else"},
        {"iss": "else"},
        {"exp": 1},
        {"sid": "no uuid"},
        {"sub": None},
        {"sub": "aaaaaaaaaa"},
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
        jwt.encode(claims, None, "none"),
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


def made_again(process: Process, settings: Settings) -> Api:
    """Another application on the same database, with the keys that there are."""
    app = create_app(settings)
    app.extensions["crochet.process"] = process
    return Api(app, process, {})


# ── without authentication ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "settings",
    [{}, {"environment": "development", "api_host": "0.0.0.0"}, {"environment": "development", "api_host": "me"}],
)
def test_open_to_nobody_but_this_machine(settings: dict[str, Any]) -> None:
    """Without authentication there is a development server on loopback, and no other."""
    with pytest.raises(AuthOff):
        create_app(Settings(api_auth=False, **settings))


def test_development(process: Process) -> None:
    """Where it is off, whoever asks may do anything; where it is not said to be off, it is on."""
    off = made_again(process, Settings(api_auth=False, environment="development"))
    on = made_again(process, Settings(environment="development"))
    for each in (off, on):
        guarded(each.app)
    assert get(off, None, "admin").status_code == 200
    on.problem(get(on, None), "unauthorized", 401)


# ── signatures ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def signing(process: Process) -> Api:
    api = made(process, Settings(**SETTINGS, signed_admin=True))
    guarded(api.app)
    return api


def signed(key: str, target: str, body: bytes = b"", date: str | None = None, method: str = "POST") -> dict[str, str]:
    date = date or f"{time.time():.6f}"
    made = signature(hashed(key.split("_", 2)[2]), method, target, date, body)
    return {DATE_HEADER: date, SIGNATURE_HEADER: made}


def test_signed(signing: Api) -> None:
    """What needs the scope admin must be signed, once each time; other routes need not."""
    target = "/v1/test/admin?a=%20b"
    assert signing.admin.get("/v1/test/write").status_code == 200
    signing.problem(signing.admin.post(target, data=b"x"), "signature_refused", 403)
    headers = signed(signing.keys["admin"], target, b"x")
    assert signing.admin.post(target, data=b"x", headers=headers).status_code == 200
    replayed = signing.admin.post(target, data=b"x", headers=headers)
    assert "before" in signing.problem(replayed, "signature_refused", 403)["detail"]


@pytest.mark.parametrize("part", ["body", "path", "query", "method", "key", "date", "late", "early", "nan", "none"])
def test_signatures_of_something_else(signing: Api, part: str) -> None:
    """A signature is good for one method, address, date and body, by the key that asks, and five minutes."""
    target = "/v1/test/admin?a=1"
    headers = signed(signing.keys["admin"], target, b"x")
    dates = {"late": f"{time.time() - 301:.3f}", "early": f"{time.time() + 301:.3f}", "nan": "nan"}
    if part in dates:
        headers = signed(signing.keys["admin"], target, b"x", dates[part])
    elif part == "key":
        headers = signed(signing.keys["read"], target, b"x")
    elif part == "method":
        headers = signed(signing.keys["admin"], target, b"x", method="GET")
    elif part == "date":
        headers[DATE_HEADER] = f"{time.time() + 1:.6f}"
    elif part == "none":
        headers[SIGNATURE_HEADER] = "\xff"
    asked = {"path": "/v1/test/admin/?a=1", "query": "/v1/test/admin?a=2"}.get(part, target)
    answer = signing.admin.post(asked, data=b"y" if part == "body" else b"x", headers=headers)
    if part == "path":
        signing.problem(answer, "route_unknown", 404)
    else:
        says = signing.problem(answer, "signature_refused", 403)["detail"]
        assert ("s from now" if part in dates else "that of this request") in says


# ── the log ─────────────────────────────────────────────────────────────────────────────────────


def test_security_log(guards: Api) -> None:
    """Keys made and ended, and refusals, are in the log: once, however often somebody tries in ten seconds."""
    bad = "crk_aaaaaaaaaa_" + "A" * 43
    for _ in range(5):
        get(guards, bad)
        get(guards, guards.keys["read"], "admin")
    keys.revoke(guards.process.database, guards.keys["write"])
    read, write = (guards.keys[scope].split("_")[1] for scope in ("read", "write"))
    told = [row[:3] for row in log(guards)]
    assert [what for what, _, _ in told].count("key.created") == 4
    assert told[4:] == [
        ("refused.unauthorized", None, None),
        ("key.first_used", read, 1),
        ("refused.forbidden", read, 1),
        ("key.revoked", write, 1),
    ]


@pytest.mark.parametrize(
    "change", ["UPDATE security_log SET who = 'me'", "DELETE FROM security_log", "TRUNCATE security_log"]
)
def test_security_log_is_append_only(api: Api, change: str) -> None:
    """Nobody changes what it says."""
    with pytest.raises(Exception, match="append only"):
        steps.sql(api.process, change)


def test_what_is_kept_no_longer(guards: Api) -> None:
    """Sessions that ended, their tokens, old signatures and old lines of the log go; nothing else does."""
    process = guards.process
    kept, ended = (guards.read.post("/v1/tokens", json={}).get_json() for _ in range(2))
    session = jwt.decode(ended["access_token"], options={"verify_signature": False})["sid"]
    steps.sql(process, "UPDATE sessions SET expires_at = now() - interval '1 s' WHERE id = :id", id=session)
    steps.sql(process, "INSERT INTO signatures VALUES (sha256('old'), now() - interval '2 h'), (sha256('new'), now())")
    steps.sql(process, "INSERT INTO security_log (what, at) VALUES ('old', now() - interval '40 days')")
    before = steps.sql(process, "SELECT count(*) FROM security_log")
    relay = Relay(process, threading.Event())
    relay._tidy_up()
    assert steps.sql(process, "SELECT count(*) FROM security_log") == before
    relay._process = dataclasses.replace(process, settings=Settings(security_log_days=31))
    relay._tidy_up()
    assert steps.sql(process, "SELECT count(*) FROM security_log WHERE what = 'old'") == [(0,)]
    assert steps.sql(process, "SELECT count(*) - :n + 1 FROM security_log", n=before[0][0]) == [(0,)]
    assert steps.sql(process, "SELECT signature = sha256('new') FROM signatures") == [(True,)]
    assert steps.sql(process, "SELECT count(*) FROM sessions") == [(1,)]
    assert steps.sql(process, "SELECT count(*) FROM refresh_tokens") == [(1,)]
    assert get(guards, kept["access_token"]).status_code == 200


def test_request_ids_are_in_the_log(guards: Api) -> None:
    """A refusal can be found by what its client was told."""
    answer = get(guards, "crk_bbbbbbbbbb_" + "A" * 43)
    found = steps.sql(
        guards.process, "SELECT request, address FROM security_log WHERE details->>'claimed' = 'bbbbbbbbbb'"
    )
    assert found == [(answer.headers["X-Request-ID"], "127.0.0.1")]


# ── limits ──────────────────────────────────────────────────────────────────────────────────────

RATES = {**SETTINGS, "api_rate": 5, "api_rate_high": 9, "api_rate_anonymous": 3}


def left(answer: TestResponse) -> int:
    match = re.fullmatch(r'"requests";r=(\d+);t=\d+', answer.headers["RateLimit"])
    assert match is not None
    return int(match[1])


def limited(process: Process, **settings: Any) -> Api:
    api = made(process, Settings(**RATES, **settings))
    guarded(api.app)
    return api


def test_limits_are_per_key_and_tier(process: Process) -> None:
    """Each key has its own, a higher tier a higher one; the answer says what is left and when to come again."""
    api = limited(process)
    read, write = api.keys["read"], api.keys["write"]
    high = keys.create(process.database, Wanted("high", tier="high")).key
    answers = [get(api, read) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert [left(answer) for answer in answers[:5]] == [4, 3, 2, 1, 0]
    assert answers[0].headers["RateLimit-Policy"] == '"requests";q=5;w=60'
    api.problem(answers[5], "rate_limited", 429)
    assert 1 <= int(answers[5].headers["Retry-After"]) <= 60
    assert get(api, write).status_code == 200
    assert [get(api, high).status_code for _ in range(10)] == [200] * 9 + [429]


def test_limits_of_strangers_are_per_address(process: Process) -> None:
    """Who has no good key is counted by address. Probes are not counted."""
    api = limited(process)
    bad = "crk_aaaaaaaaaa_" + "A" * 43
    assert [get(api, bad).status_code for _ in range(4)] == [401] * 3 + [429]
    other: dict[str, Any] = {"environ_base": {"REMOTE_ADDR": "10.0.0.9"}}
    assert get(api, bad, **other).status_code == 401
    hosts: list[dict[str, Any]] = [{"environ_base": {"REMOTE_ADDR": f"2001:db8::{number}"}} for number in range(4)]
    assert [get(api, bad, **host).status_code for host in hosts] == [401] * 3 + [429]  # of one network
    assert [api.nobody.get("/health/live").status_code for _ in range(5)] == [200] * 5


def test_strangers_lock_nobody_out(process: Process) -> None:
    """From an address that is refused for them good keys and tokens get through; what is none is no SQL, a made-up
    key is one look.
    """
    api = limited(process)
    token = api.write.post("/v1/tokens", json={}).get_json()["access_token"]
    api.app.extensions["crochet.familiar"] = security.Familiar()  # a process that has seen nobody yet
    guesses = ["crk_" + letter * 10 + "_" + letter.upper() * 43 for letter in "abcdef"]
    assert [get(api, guess).status_code for guess in guesses[:4]] == [401] * 3 + [429]
    statements: list[str] = []

    def note(*given: Any) -> None:
        statements.append(given[2])

    engine = process.database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        nothing = [get(api, given) for given in ("crk_", "x.y.z", token[:-2] + "!!", None)]
        assert ([answer.status_code for answer in nothing], statements) == ([429] * 4, [])
        assert "Retry-After" in nothing[0].headers
        assert ([get(api, guess).status_code for guess in guesses], len(statements)) == ([429] * 6, 6)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert [get(api, good).status_code for good in (api.keys["read"], token)] == [200, 200]
    keys.revoke(process.database, api.keys["read"])
    assert get(api, api.keys["read"]).status_code == 429


def test_strangers_are_looked_up_a_few_at_a_time(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are; who was good here lately does not wait for them. None of them is counted for it."""
    monkeypatch.setattr(security, "PATIENCE_SECONDS", 0.01)
    api = limited(process)
    assert get(api, api.keys["read"]).status_code == 200
    with contextlib.ExitStack() as busy:
        for number in range(security.STRANGERS):
            busy.enter_context(api.app.extensions["crochet.familiar"].turn(f"somebody {number}"))
        for _ in range(2 * RATES["api_rate_anonymous"]):
            api.problem(get(api, api.keys["write"]), "too_busy", 503)
        assert get(api, api.keys["read"]).status_code == 200
    assert get(api, api.keys["write"]).status_code == 200


def test_while_the_database_is_away_nobody_is_a_stranger(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose request it is cannot be found out: 503 it is, each time, and nothing is counted."""
    api = limited(process)

    def away() -> NoReturn:
        raise DatabaseUnavailable(reason="it is away")

    with monkeypatch.context() as patch:
        patch.setattr(process.database, "transaction", away)
        for _ in range(2 * RATES["api_rate_anonymous"]):
            api.problem(get(api, api.keys["read"]), "database_unavailable", 503)
    assert get(api, None).status_code == 401


def test_limits_in_redis(process: Process, redis_server: Any, redis_url: str) -> None:
    """Processes share them; without Redis each counts for itself, more strictly, until it is back."""
    first, second = limited(process, redis_url=redis_url), limited(process, redis_url=redis_url)
    second.keys = first.keys
    both = [get(each, first.keys["read"]).status_code for each in (first, second) * 3]
    assert both == [200] * 5 + [429]
    redis_server.kill()
    alone = [get(first, first.keys["write"]).status_code for _ in range(3)]
    assert alone == [200, 429, 429]
    redis_server.start()
    until = time.monotonic() + 20
    while get(first, first.keys["write"]).status_code == 429:
        assert time.monotonic() < until
        time.sleep(0.3)
