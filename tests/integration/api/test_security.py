"""Who may ask: keys, scopes, signatures; what is refused, and what the log says of it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
import threading
import time
from typing import Any

import jwt
import pytest

from api import create_app, security
from crochet_tasks.access import keys
from crochet_tasks.access.keys import KeySpec
from crochet_tasks.access.signing import DATE_HEADER, SIGNATURE_HEADER, hashed, signature, split
from crochet_tasks.db import tenants
from crochet_tasks.db.access import Entry
from crochet_tasks.db.process import Process
from crochet_tasks.errors import AuthOff, KeyEnded, KeyUnknown, TenantUnknown
from crochet_tasks.services.relay import Relay
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.api import SETTINGS, Api, get, guarded, made, made_again, security_log

pytestmark = pytest.mark.integration

OPEN = {"/health/", "/docs", "/openapi.json", "/problems/", "/v1/tokens/refresh", "/v1/tokens/oidc"}


# ── keys ────────────────────────────────────────────────────────────────────────────────────────


def test_every_route_needs_a_key() -> None:
    """All routes of the API but the public ones need a scope."""
    app = create_app(Settings())
    for rule in app.url_map.iter_rules():
        if not any(rule.rule == "/" or rule.rule.startswith(path) for path in (*OPEN, "/static")):
            assert security.scope_of(app.view_functions[rule.endpoint]) is not None, rule


@pytest.mark.parametrize(
    ("scope", "may"),
    [("read", {"read"}), ("write", {"read", "write"}), ("admin", {"read", "write", "operate", "admin"})],
)
def test_a_scope_includes_those_below_it_only(guards: Api, scope: str, may: set[str]) -> None:
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
    answer = guards.anonymous.get("/v1/test/read", headers={} if header is None else {"Authorization": header})
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
    answer = api.anonymous.post("/v1/tokens", data="{", headers={"Content-Type": "text/csv"})
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


def test_a_key_expires(guards: Api) -> None:
    """A key ends by itself."""
    made = keys.create(guards.process.database, KeySpec("short", days=1))
    assert get(guards, made.key).status_code == 200
    steps.sql(guards.process, "UPDATE keys SET expires_at = clock_timestamp() WHERE name = 'short'")
    assert "expired" in guards.problem(get(guards, made.key), "unauthorized", 401)["detail"]


def test_a_rotated_key_has_a_successor_and_ends_with_its_grace(guards: Api) -> None:
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


def test_a_key_of_another_tenant_cannot_be_ended(api: Api) -> None:
    """It is not there. What is done is recorded with the request that asked for it, in the log of the key's tenant."""
    database = api.process.database
    (theirs,) = keys.listed(database, "other")
    with database.snapshot() as connection:
        mine, other = (tenants.number(connection, name) for name in ("default", "other"))
    for end in (keys.rotate, keys.revoke):
        with pytest.raises(KeyUnknown):
            end(database, theirs.key, tenant=mine)
    asked = Entry("", mine, "aaaaaaaaaa", "192.0.2.7", "request-1")
    new = keys.rotate(database, theirs.key, tenant=other, by=asked)
    keys.revoke(database, new.line.key, tenant=other, by=asked)
    made = keys.create(database, KeySpec("later", tenant="other"), by=asked)
    logged = {line.what: line for line in keys.log(database, 3)}
    assert {what: line.key for what, line in logged.items()} == {
        "key.rotated": theirs.key,
        "key.revoked": new.line.key,
        "key.created": made.line.key,
    }
    for line in logged.values():
        assert (line.tenant, line.address, line.request) == ("other", "192.0.2.7", "request-1")
        assert line.details is not None
        assert line.details["by"] == "aaaaaaaaaa"


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


def test_keys_of_an_unknown_tenant(api: Api) -> None:
    """What there is not is named, but no secret in the wrong place is repeated."""
    database = api.process.database
    with pytest.raises(TenantUnknown, match="default, other"):
        keys.create(database, KeySpec("x", tenant="unknown"))
    for name in ("a" * 10, "crk_" + "a" * 10 + "_" + "B" * 43, "B" * 43):
        with pytest.raises(KeyUnknown) as unknown:
            keys.revoke(database, name)
        assert "B" * 43 not in str(unknown.value)


def test_keys_come_in_pages_each_once(guards: Api) -> None:
    """Newest first, also where one is made meanwhile; a cursor of another tenant's keys is refused."""
    for number in range(5):
        assert guards.admin.post("/v1/keys", json={"name": f"key {number}"}).status_code == 201
    every = [line["key"] for line in guards.admin.get("/v1/keys").get_json()["keys"]]
    assert len(every) > 5
    cursor, found = None, []
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = guards.admin.get("/v1/keys", query_string=query).get_json()
        found += [line["key"] for line in page["keys"]]
        if (cursor := page["next_cursor"]) is None:
            break
        assert guards.admin.post("/v1/keys", json={"name": "meanwhile"}).status_code == 201
        last = cursor
    assert found == every
    assert guards.admin.post("/v1/tenants", json={"name": "third"}).status_code == 201
    refused = guards.admin.get("/v1/keys", query_string={"tenant": "third", "cursor": last})
    guards.problem(refused, "invalid_cursor", 422)


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
        assert re.sub("^(crk_[^_]*_|crr_)", "", secret) not in stored


# ── without authentication ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "settings",
    [{}, {"environment": "development", "api_host": "0.0.0.0"}, {"environment": "development", "api_host": "me"}],
)
def test_open_to_this_machine_only(settings: dict[str, Any]) -> None:
    """Without authentication there is a development server on loopback, and no other."""
    with pytest.raises(AuthOff):
        create_app(Settings(api_auth=False, **settings))


def test_with_authentication_off_any_caller_may_do_anything(process: Process) -> None:
    """With authentication off every caller may do anything; it is on by default."""
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


def test_what_needs_admin_must_be_signed_once_each_time(signing: Api) -> None:
    """What needs the scope admin must be signed, once each time; other routes need not."""
    target = "/v1/test/admin?a=%20b"
    assert signing.admin.get("/v1/test/write").status_code == 200
    signing.problem(signing.admin.post(target, data=b"x"), "signature_refused", 403)
    headers = signed(signing.keys["admin"], target, b"x")
    assert signing.admin.post(target, data=b"x", headers=headers).status_code == 200
    replayed = signing.admin.post(target, data=b"x", headers=headers)
    assert "before" in signing.problem(replayed, "signature_refused", 403)["detail"]


def test_a_key_in_an_address_is_not_written_down(signing: Api) -> None:
    """Routes take whole keys; of a refused or replayed request the log has the prefix, also where it is cut short."""
    key, admin = keys.create(signing.process.database, KeySpec("sent", ("read",))).key, signing.keys["admin"]
    signing.problem(signing.read.post(f"/v1/keys/{key}/revoke"), "forbidden", 403)
    headers = signed(admin, f"/v1/keys/{key}/revoke")
    assert signing.admin.post(f"/v1/keys/{key}/revoke", headers=headers).status_code == 200
    signing.problem(signing.admin.post(f"/v1/keys/{key}/revoke", headers=headers), "signature_refused", 403)
    signing.problem(signing.anonymous.get(f"/v1/corpora/{'x' * 150}/texts/{key}"), "unauthorized", 401)
    _, prefix, secret = key.split("_", 2)
    paths = [str(path) for (path,) in steps.sql(signing.process, "SELECT details->>'path' FROM security_log") if path]
    assert len(paths) == 4
    assert all(f"crk_{prefix}_***" in path and secret[:8] not in path for path in paths)


@pytest.mark.parametrize("part", ["body", "path", "query", "method", "key", "date", "late", "early", "nan", "none"])
def test_signatures_of_something_else(signing: Api, part: str) -> None:
    """A signature is good for one method, address, date and body, by the key that asks, and five minutes."""
    target = "/v1/test/admin?a=1"
    headers = signed(signing.keys["admin"], target, b"x")
    dates = {"late": f"{time.time() - 301:.3f}", "early": f"{time.time() + 3600:.3f}", "nan": "nan"}
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


def test_keys_and_refusals_are_in_the_security_log(guards: Api) -> None:
    """Keys made and ended, and refusals, are in the log: once, however often a client tries in ten seconds."""
    bad = "crk_aaaaaaaaaa_" + "A" * 43
    for _ in range(5):
        get(guards, bad)
        get(guards, guards.keys["read"], "admin")
    keys.revoke(guards.process.database, guards.keys["write"])
    read, write = (guards.keys[scope].split("_")[1] for scope in ("read", "write"))
    recorded = [row[:3] for row in security_log(guards)]
    assert [what for what, _, _ in recorded].count("key.created") == 4
    assert recorded[4:] == [
        ("refused.unauthorized", None, None),
        ("key.first_used", read, 1),
        ("refused.forbidden", read, 1),
        ("key.revoked", write, 1),
    ]


@pytest.mark.parametrize(
    "change", ["UPDATE security_log SET who = 'me'", "DELETE FROM security_log", "TRUNCATE security_log"]
)
def test_security_log_is_append_only(api: Api, change: str) -> None:
    """It cannot be changed."""
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
    Relay(process, threading.Event()).delete_expired()
    assert steps.sql(process, "SELECT count(*) FROM security_log") == before
    shorter = dataclasses.replace(process, settings=Settings(security_log_days=31))
    Relay(shorter, threading.Event()).delete_expired()
    assert steps.sql(process, "SELECT count(*) FROM security_log WHERE what = 'old'") == [(0,)]
    assert steps.sql(process, "SELECT count(*) - :n + 1 FROM security_log", n=before[0][0]) == [(0,)]
    assert steps.sql(process, "SELECT signature = sha256('new') FROM signatures") == [(True,)]
    assert steps.sql(process, "SELECT count(*) FROM sessions") == [(1,)]
    assert steps.sql(process, "SELECT count(*) FROM refresh_tokens") == [(1,)]
    assert get(guards, kept["access_token"]).status_code == 200


def test_request_ids_are_in_the_log(guards: Api) -> None:
    """A refusal can be found by the request id of its answer."""
    answer = get(guards, "crk_bbbbbbbbbb_" + "A" * 43)
    found = steps.sql(
        guards.process, "SELECT request, address FROM security_log WHERE details->>'claimed' = 'bbbbbbbbbb'"
    )
    assert found == [(answer.headers["X-Request-ID"], "127.0.0.1")]
