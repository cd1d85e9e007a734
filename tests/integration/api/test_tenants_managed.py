"""Tenants are listed, renamed, limited, suspended and deleted by operators of the deployment, and by nobody else."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug.test import TestResponse

import web
from crochet_tasks.access import keys, people, tenancy, tenants, tokens
from crochet_tasks.access.keys import KeySpec
from crochet_tasks.db import corpora, publishing
from crochet_tasks.db import tenants as managed
from crochet_tasks.db.access import Entry, KeyRow
from crochet_tasks.db.corpora import Lock
from crochet_tasks.db.process import Process
from crochet_tasks.errors import LogInRefused, TenantSuspended
from crochet_tasks.settings import Settings
from tests.support import api as apis
from tests.support import steps
from tests.support.api import SETTINGS, Api
from tests.support.pages import Visitor, code

pytestmark = pytest.mark.integration

PATCH = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture
def api(process: Process) -> Api:
    """With the page, and a corpus of the tenant `other` that has a text."""
    made = apis.made(process, Settings(**SETTINGS), web.create_app)
    assert made.stranger.post("/v1/corpora", json={"name": "theirs"}).status_code == 201
    assert made.stranger.post("/v1/corpora/theirs/texts", json={"body": "the sea"}).status_code == 202
    return made


def change(api: Api, tenant: str = "other", /, **changes: Any) -> TestResponse:
    return api.admin.patch(f"/v1/tenants/{tenant}", data=json.dumps(changes), headers=PATCH)


def refreshed(api: Api, tokens: dict[str, Any]) -> TestResponse:
    return api.anonymous.post("/v1/tokens/refresh", json={"refresh_token": tokens["refresh_token"]})


def what(api: Api, about: str) -> list[object]:
    rows = steps.sql(api.process, f"SELECT what FROM audit WHERE what LIKE '{about}.%' ORDER BY id")
    return [row[0] for row in rows]


def publishable(api: Api) -> bool:
    """Whether work of some corpus would be published now. Nothing is left of it."""
    with api.process.database.transaction() as connection:
        found = publishing.take_next(connection, None)
        connection.rollback()
    return found is not None


def test_another_tenants_administrator_is_refused_everywhere(api: Api) -> None:
    """Reading, too: whose data is here is no business of a tenant."""
    before = steps.sql(api.process, "SELECT * FROM tenants ORDER BY id")
    for answer in (
        api.stranger.get("/v1/tenants"),
        api.stranger.post("/v1/tenants", json={"name": "more"}),
        api.stranger.patch("/v1/tenants/other", data='{"rate": 1000000}', headers=PATCH),
        api.stranger.delete("/v1/tenants/other?confirm=other"),
    ):
        api.problem(answer, "operator_needed", 403)
    for path in ("/console/tenants", "/console/tenants/other"):
        assert code(Visitor(api, "stranger").get(path)) == "operator_needed"
    assert code(Visitor(api, "stranger").post("/console/tenants/other", {"suspended": "no"})) == "operator_needed"
    assert steps.sql(api.process, "SELECT * FROM tenants ORDER BY id") == before


def test_they_are_listed_and_renamed(api: Api) -> None:
    api.problem(api.admin.post("/v1/tenants", json={"name": "other"}), "tenant_exists", 409)
    assert api.admin.post("/v1/tenants", json={"name": "third"}).status_code == 201
    listed = api.admin.get("/v1/tenants?limit=2").get_json()
    assert [each["name"] for each in listed["tenants"]] == ["third", "other"]
    assert (listed["tenants"][1]["corpora"], listed["tenants"][1]["keys"]) == (1, 1)
    rest = api.admin.get(f"/v1/tenants?cursor={listed['next_cursor']}").get_json()
    assert [each["name"] for each in rest["tenants"]] == ["default"]
    assert change(api, name="other").status_code == 200
    assert change(api, "other", name="moved").get_json()["name"] == "moved"
    api.problem(change(api, "other"), "tenant_unknown", 404)
    api.problem(change(api, "moved", name="third"), "tenant_exists", 409)
    assert api.stranger.get("/v1/corpora/theirs").status_code == 200
    assert what(api, "tenant")[-1] == "tenant.changed"


def test_limits_are_their_own(api: Api, start_of_a_window: None) -> None:
    """They take effect with the next request, and the limits of others stay."""
    assert change(api, max_corpora=1, rate=3).status_code == 200
    api.problem(api.stranger.post("/v1/corpora", json={"name": "second"}), "too_many_corpora", 409)
    statuses = [api.stranger.get("/v1/corpora").status_code for _ in range(4)]
    assert statuses[-1] == 429
    assert api.read.get("/v1/corpora").status_code == 200
    assert change(api, max_corpora=None, rate=None).get_json()["max_corpora"] is None
    assert api.stranger.post("/v1/corpora", json={"name": "second"}).status_code == 201


def test_weights_and_quotas_are_set_by_operators(api: Api) -> None:
    """Each within its bounds; null takes a quota away; the audit has what was there before."""
    quotas = {"max_searches": 3, "max_orthos": 10_000, "max_texts": 5, "max_bytes": 1_000_000}
    changed = change(api, weight=3, **quotas).get_json()
    assert {**changed, "weight": 3, **quotas, "full": False} == changed
    seen = api.admin.get("/v1/tenants/other").get_json()
    assert {**seen, **changed} == seen
    assert (seen["orthos"], seen["texts"], seen["bytes"]) == (0, 1, len("the sea"))
    api.problem(api.stranger.get("/v1/tenants/other"), "operator_needed", 403)
    api.problem(api.admin.get("/v1/tenants/nobody"), "tenant_unknown", 404)
    for wrong in ({"weight": 0}, {"weight": 101}, {"weight": None}, {"max_orthos": 0}, {"max_searches": 0}):
        api.problem(change(api, **wrong), "invalid_request", 422)
    assert change(api, max_orthos=None).get_json()["max_orthos"] is None
    rows = steps.sql(api.process, "SELECT before->>'weight', after->>'weight' FROM audit ORDER BY id DESC LIMIT 2")
    assert rows == [("3", "3"), ("1", "3")]


def test_a_suspended_tenant_is_refused_with_all_that_it_has(api: Api) -> None:
    """Keys, access tokens, refresh tokens, sessions of the page; its work waits. What is others' goes on."""
    tokens = api.stranger.post("/v1/tokens", json={}).get_json()
    visitor = Visitor(api, "stranger")
    assert publishable(api)
    assert change(api, suspended=True).get_json()["suspended"] is True
    api.problem(api.stranger.get("/v1/corpora"), "tenant_suspended", 403)
    api.problem(api.with_key(tokens["access_token"]).get("/v1/corpora"), "tenant_suspended", 403)
    for _ in range(2):
        api.problem(refreshed(api, tokens), "tenant_suspended", 403)
    assert code(visitor.get("/corpora")) == "tenant_suspended"
    assert not publishable(api)
    assert api.read.get("/v1/corpora").status_code == 200
    assert change(api, suspended=False).get_json()["suspended"] is False
    assert api.stranger.get("/v1/corpora").status_code == 200
    assert api.with_key(refreshed(api, tokens).get_json()["access_token"]).get("/v1/corpora").status_code == 200
    assert publishable(api)
    assert [each for each in what(api, "tenant") if each != "tenant.created"] == ["tenant.suspended", "tenant.resumed"]
    assert what(api, "corpus")[-2:] == ["corpus.paused", "corpus.resumed"]


def test_a_refresh_token_that_is_used_twice_ends_its_session_during_a_suspension_too(api: Api) -> None:
    """The suspension keeps sessions, but not those that somebody has stolen."""
    tokens = api.stranger.post("/v1/tokens", json={}).get_json()
    newer = refreshed(api, tokens).get_json()
    change(api, suspended=True)
    api.problem(refreshed(api, tokens), "unauthorized", 401)
    change(api, suspended=False)
    api.problem(refreshed(api, newer), "unauthorized", 401)


def test_what_was_paused_before_stays_paused(api: Api) -> None:
    headers = {**PATCH, "If-Match": "*"}
    assert api.stranger.patch("/v1/corpora/theirs", data='{"paused": true}', headers=headers).status_code == 200
    change(api, suspended=True)
    change(api, suspended=True)
    change(api, suspended=False)
    assert api.stranger.get("/v1/corpora/theirs").get_json()["paused"] is True


def test_a_deleted_tenant_leaves_the_audit_and_nothing_else(api: Api) -> None:
    """Confirmed by its name. Keys end at once, its corpora are gone, and a new tenant of that name sees none of it."""
    api.problem(api.admin.delete("/v1/tenants/other"), "tenant_not_confirmed", 409)
    api.problem(api.admin.delete("/v1/tenants/other?confirm=default"), "tenant_not_confirmed", 409)
    assert api.stranger.get("/v1/corpora").status_code == 200
    assert api.admin.delete("/v1/tenants/other?confirm=other").status_code == 204
    api.problem(api.stranger.get("/v1/corpora"), "unauthorized", 401)
    assert [each["name"] for each in api.admin.get("/v1/tenants").get_json()["tenants"]] == ["default"]
    while tenancy.sweep(api.process.database, 5.0):
        pass
    for table in ("texts", "work", "corpora"):
        assert steps.sql(api.process, f"SELECT count(*) FROM {table}") == [(0,)]
    lines = steps.sql(api.process, "SELECT what, by->>'via' FROM audit WHERE tenant = 2 ORDER BY id")
    assert ("tenant.deleted", "api") in lines
    assert ("key.revoked", "api") in lines
    again = keys.create(api.process.database, KeySpec("new", ("admin",), tenant="other"), new_tenant=True)
    assert api.with_key(again.key).get("/v1/corpora").get_json()["corpora"] == []
    assert len(api.with_key(again.key).get("/v1/keys").get_json()["keys"]) == 1


MAKES = {
    "an operator's key": ("admin", "/v1/keys", {"name": "late", "tenant": "other"}, ("tenant_unknown", 404)),
    "a key": ("stranger", "/v1/keys", {"name": "late"}, ("tenant_suspended", 403)),
    "a corpus": ("stranger", "/v1/corpora", {"name": "late"}, ("tenant_suspended", 403)),
}


@pytest.mark.parametrize("what", MAKES)
def test_nothing_is_made_for_a_tenant_that_is_being_deleted(api: Api, what: str) -> None:
    """Asked for while the deletion waits for a text of the tenant: it comes too late, and reads no other's name."""
    client, path, body, refused = MAKES[what]
    settings, entry = Settings(**SETTINGS), Entry("tenant.deleted")
    with ThreadPoolExecutor(2) as threads:
        with api.process.database.transaction() as accepting:
            corpora.take_lock(accepting, corpora.named(accepting, "theirs", 2).id, Lock.ACCEPTANCE)
            deleted = threads.submit(tenants.remove, api.process.database, settings, "other", "other", entry)
            steps.until_blocked(api.process)
            made = threads.submit(getattr(api, client).post, path, json=body)
            steps.until_blocked(api.process, 2)
        deleted.result()
    problem = api.problem(made.result(), *refused)
    assert ("default" in problem["detail"]) == (client == "admin")
    assert steps.sql(api.process, "SELECT name FROM keys WHERE tenant = 2 AND revoked_at IS NULL") == []
    assert steps.sql(api.process, "SELECT name FROM corpora WHERE tenant = 2 AND removed_at IS NULL") == []


def test_no_corpus_is_made_for_a_tenant_that_is_being_suspended(api: Api) -> None:
    """It would not be paused. An archive is refused, too."""
    with ThreadPoolExecutor(1) as threads, api.process.database.transaction() as connection:
        managed.suspend(connection, managed.number(connection, "other", lock=True))
        made = threads.submit(api.stranger.post, "/v1/corpora", json={"name": "late"})
        steps.until_blocked(api.process)
        connection.commit()
        api.problem(made.result(), "tenant_suspended", 403)
    with pytest.raises(TenantSuspended), api.process.database.transaction() as connection:
        corpora.owned(connection, 2)
    assert steps.sql(api.process, "SELECT name FROM corpora WHERE tenant = 2 AND paused_at IS NULL") == []


def test_a_key_of_a_deleted_tenant_is_refused_even_if_it_was_not_revoked(api: Api) -> None:
    tokens = api.stranger.post("/v1/tokens", json={}).get_json()
    steps.sql(api.process, "UPDATE tenants SET removed_at = clock_timestamp() WHERE name = 'other'")
    for key in (api.keys["stranger"], tokens["access_token"]):
        api.problem(api.with_key(key).get("/v1/corpora"), "tenant_suspended", 403)


def test_people_of_a_deleted_tenant_come_back_in_another_one(api: Api) -> None:
    """Where the provider has them next, or when the tenant is made again; the sessions that they had are over."""
    settings, database = Settings(**SETTINGS, oidc_tenant_claim="org"), api.process.database
    claims = {"iss": "https://id.example", "sub": "1", "email": "ada@example.org", "roles": ["reader"]}

    def tokens_in(tenant: str) -> str:
        with database.transaction() as connection:
            row = people.admitted(connection, settings, {**claims, "org": tenant}, Entry("person"))
            if isinstance(row, KeyRow):
                return tokens.exchange(connection, settings, row, None).access_token
        raise row

    before = tokens_in("other")
    assert api.with_key(before).get("/v1/corpora").status_code == 200
    assert api.admin.delete("/v1/tenants/other?confirm=other").status_code == 204
    api.problem(api.with_key(before).get("/v1/corpora"), "unauthorized", 401)
    with pytest.raises(LogInRefused):
        tokens_in("other")
    assert api.admin.post("/v1/tenants", json={"name": "other"}).status_code == 201
    assert api.with_key(tokens_in("default")).get("/v1/corpora").get_json()["corpora"] == []
    assert api.with_key(tokens_in("other")).get("/v1/corpora").get_json()["corpora"] == []
    api.problem(api.with_key(before).get("/v1/corpora"), "unauthorized", 401)


def test_nobody_locks_themselves_out(api: Api) -> None:
    for answer in (
        change(api, "default", suspended=True),
        change(api, "default", name="moved"),
        api.admin.delete("/v1/tenants/default?confirm=default"),
    ):
        api.problem(answer, "tenant_needed", 409)
    assert change(api, "default", max_corpora=5).status_code == 200


def test_the_page_does_the_same(api: Api) -> None:
    visitor = Visitor(api, "admin")
    assert "other" in visitor.get("/console/tenants").text
    assert visitor.post("/console/tenants/other", {"name": "other", "max_corpora": "7", "rate": ""}).status_code == 303
    assert tenants.one(api.process.database, "other").max_corpora == 7
    for wrong in ({"max_corpora": "x"}, {"weight": ""}, {"weight": "101"}, {"max_orthos": "0"}, {"max_texts": "-1"}):
        answer = visitor.post("/console/tenants/other", {"name": "other", "rate": "", **wrong})
        assert (answer.status_code, "is a whole number from" in answer.text) == (422, True), wrong
    given = {"weight": "3", "max_searches": "4", "max_orthos": " 5000 ", "max_texts": "0", "max_bytes": ""}
    assert visitor.post("/console/tenants/other", {"name": "other", **given}).status_code == 303
    line = tenants.one(api.process.database, "other")
    found = (line.weight, line.max_searches, line.max_orthos, line.max_texts, line.max_bytes)
    assert found == (3, 4, 5000, 0, None)
    shown = visitor.get("/console/tenants/other").text
    assert 'value="5000"' in shown
    assert "1 kept" in shown
    assert visitor.post("/console/tenants/other", {"suspended": "yes"}).status_code == 303
    assert tenants.one(api.process.database, "other").suspended
    assert visitor.post("/console/tenants/other/delete", {"confirm": "no"}).status_code == 422
    assert visitor.post("/console/tenants/other/delete", {"confirm": "other"}).status_code == 303
    assert "other" not in visitor.get("/console/tenants").text.partition("New tenant")[0]
