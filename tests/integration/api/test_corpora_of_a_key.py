"""A key that is limited to corpora: what an attacker who has it could try, on every route that there is."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

import web
from crochet_tasks.access import keys
from crochet_tasks.access.keys import KeySpec
from crochet_tasks.db.process import Process
from crochet_tasks.errors import CorpusUnknown
from crochet_tasks.settings import Settings
from tests.integration.api.test_tenants import NAME, OF_A_CORPUS, ask, routes
from tests.support import api as apis
from tests.support import steps
from tests.support.api import Api, corpus_of
from tests.support.pages import Visitor, code

pytestmark = pytest.mark.integration

STATES = "SELECT id::text, state FROM texts UNION ALL SELECT id::text, state FROM work ORDER BY 1"
FILTERED = {
    ("GET", "/v1/corpora"),
    ("GET", "/v1/events"),
    ("GET", "/v1/status"),
    ("GET", "/v1/audit"),
    ("POST", "/v1/tokens"),
    ("DELETE", "/v1/tokens"),
    ("POST", "/v1/tokens/refresh"),
    ("POST", "/v1/tokens/oidc"),
}
"""routes that name no corpus in their path, and answer limited keys"""


@pytest.fixture
def api(process: Process) -> Api:
    """With the page."""
    return apis.made(process, Settings(**apis.SETTINGS), web.create_app)


@pytest.fixture
def two(api: Api) -> Api:
    """A corpus that the key may use, `open`, and another one."""
    corpus_of(api, "open")
    corpus = corpus_of(api, NAME)
    steps.ingest_all(corpus, steps.TEXTS[:1])
    steps.accept(corpus, steps.TEXTS[1])
    return api


def limited(api: Api, *corpora: str, scope: keys.Scope = "admin") -> str:
    return keys.create(api.process.database, KeySpec("limited", (scope,), corpora=corpora)).key


def ask_any(client: FlaskClient, method: str, rule: str) -> Any:
    return ask(client, method, rule.replace("<key>", "abcdefghij").replace("<tenant>", "other"))


def test_no_route_shows_or_changes_another_corpus(two: Api) -> None:
    """By its name in the path: it is not found, and the names of the others are not in the answer."""
    client = two.with_key(limited(two, "open"))
    before = steps.sql(two.process, STATES)
    for method, rule in OF_A_CORPUS:
        found = two.problem(ask(client, method, rule), "corpus_unknown", 404)
        assert found["detail"].endswith("known: open"), rule
    after = steps.sql(two.process, STATES)
    assert after == before
    assert steps.sql(two.process, "SELECT revision, removed_at FROM corpora") == [(1, None)] * 2


def test_its_own_corpus_is_there(two: Api) -> None:
    client = two.with_key(limited(two, "open"))
    assert client.post("/v1/corpora/open/texts", json={"body": "the sea"}).status_code == 202
    for path in ("", "/texts", "/orthos", "/orthos/best", "/work", "/status", "/estimate", "/version"):
        assert client.get(f"/v1/corpora/open{path}").status_code == 200, path


def test_every_other_route_filters_or_refuses(two: Api) -> None:
    """A route that is added later answers limited keys only where somebody has thought of it: here and there."""
    client = two.with_key(limited(two, "open"))
    for method, rule in [each for each in routes() if "<corpus>" not in each[1]]:
        if (method, rule) not in FILTERED:
            two.problem(ask_any(client, method, rule), "corpora_only", 403)


def test_lists_hold_its_own_only(two: Api) -> None:
    client = two.with_key(limited(two, "open"))
    assert [each["name"] for each in client.get("/v1/corpora").get_json()["corpora"]] == ["open"]
    assert client.get("/v1/status").get_json()["corpora"] == 1
    lines = client.get("/v1/audit?limit=1000").get_json()["lines"]
    assert {each["corpus"] for each in lines} == {"open"}
    assert client.get(f"/v1/audit?corpus={NAME}").get_json()["lines"] == []
    two.problem(client.get(f"/v1/events?corpus={NAME}"), "corpus_unknown", 404)
    stream: Any = client.get("/v1/events", buffered=False)
    events = stream.iter_encoded()
    first = next(events) + next(events)
    assert b'"open"' in first
    assert NAME.encode() not in first
    stream.close()


def test_a_cursor_of_an_unlimited_key_shows_no_more(two: Api) -> None:
    for name in ("a", "zz"):
        corpus_of(two, name)
    cursor = two.read.get("/v1/corpora?limit=1").get_json()["next_cursor"]
    found = two.with_key(limited(two, "open")).get(f"/v1/corpora?cursor={cursor}").get_json()
    assert [each["name"] for each in found["corpora"]] == ["open"]


def test_its_tokens_are_limited_as_well(two: Api) -> None:
    token = two.with_key(limited(two, "open")).post("/v1/tokens", json={}).get_json()["access_token"]
    two.problem(two.with_key(token).get(f"/v1/corpora/{NAME}"), "corpus_unknown", 404)
    two.problem(two.with_key(token).post("/v1/keys", json={"name": "more", "scope": "admin"}), "corpora_only", 403)


def test_it_goes_by_the_corpus_not_by_its_name(two: Api) -> None:
    """One that is renamed stays its own; another one that takes the name is not, nor is one made after a deletion."""
    client = two.with_key(limited(two, "open"))
    patch = {"Content-Type": "application/merge-patch+json", "If-Match": "*"}
    assert two.write.patch("/v1/corpora/open", json={"name": "moved"}, headers=patch).status_code == 200
    assert two.write.patch(f"/v1/corpora/{NAME}", json={"name": "open"}, headers=patch).status_code == 200
    two.problem(client.get("/v1/corpora/open"), "corpus_unknown", 404)
    assert client.get("/v1/corpora/moved").status_code == 200
    assert two.admin.delete("/v1/corpora/moved?confirm=moved").status_code == 204
    corpus_of(two, "moved")
    two.problem(client.get("/v1/corpora/moved"), "corpus_unknown", 404)
    assert client.get("/v1/corpora").get_json()["corpora"] == []


def test_rotation_keeps_the_limit(two: Api) -> None:
    key = limited(two, "open")
    made = keys.rotate(two.process.database, key)
    assert made.line.corpora == ["open"]
    two.problem(two.with_key(made.key).get(f"/v1/corpora/{NAME}"), "corpus_unknown", 404)


def test_keys_are_made_for_corpora_of_their_tenant_only(two: Api) -> None:
    with pytest.raises(CorpusUnknown):
        keys.create(two.process.database, KeySpec("limited", ("read",), tenant="other", corpora=("open",)))
    two.problem(two.admin.post("/v1/keys", json={"name": "x", "corpora": ["none"]}), "corpus_unknown", 404)
    made = two.admin.post("/v1/keys", json={"name": "x", "corpora": ["open"]})
    assert made.status_code == 201
    two.problem(two.with_key(made.get_json()["key"]).get(f"/v1/corpora/{NAME}"), "corpus_unknown", 404)
    newest = steps.sql(two.process, "SELECT what, by->>'via', after->>'scopes' FROM audit ORDER BY id DESC LIMIT 2")
    assert ("key.created", "api", '["read"]') in newest


def test_the_page_is_limited_as_well(two: Api) -> None:
    visitor = Visitor(two, limited(two, "open"))
    assert NAME not in visitor.get("/corpora").text
    assert code(visitor.get(f"/corpora/{NAME}")) == "corpus_unknown"
    assert code(visitor.get(f"/corpora/{NAME}/work")) == "corpus_unknown"
    for path in ("/console", "/console/work", "/console/keys", "/console/log", "/console/tenants", "/new-corpus"):
        assert code(visitor.get(path)) == "corpora_only", path
    assert visitor.get("/corpora/open").status_code == 200


# ── roles ───────────────────────────────────────────────────────────────────────────────────────


def test_an_operator_works_on_work_and_deletes_nothing(two: Api) -> None:
    operator = two.with_key(keys.create(two.process.database, KeySpec("operator", ("operate",))).key)
    for path in ("work/cancel", "work/retry"):
        two.problem(two.write.post(f"/v1/corpora/{NAME}/{path}"), "forbidden", 403)
        assert operator.post(f"/v1/corpora/{NAME}/{path}").status_code == 200
    two.problem(operator.delete(f"/v1/corpora/{NAME}?confirm={NAME}"), "forbidden", 403)
    for path in ("/v1/keys", "/v1/audit"):
        two.problem(operator.get(path), "forbidden", 403)
    two.problem(operator.post("/v1/keys", json={"name": "x", "scope": "admin"}), "forbidden", 403)


def test_an_operators_page(two: Api) -> None:
    visitor = Visitor(two, keys.create(two.process.database, KeySpec("operator", ("operate",))).key)
    assert visitor.get("/console").status_code == 200
    assert visitor.get("/console/work").status_code == 200
    for path in ("/console/keys", "/console/log", "/console/tenants", "/console/queues"):
        assert code(visitor.get(path)) == "forbidden", path


def test_keys_of_other_tenants_are_for_operators_of_the_deployment(two: Api) -> None:
    """`default` is the operators' tenant; what is another's is not found, and naming one is refused."""
    theirs = two.stranger.post("/v1/keys", json={"name": "theirs"}).get_json()["line"]["key"]
    two.problem(two.stranger.get("/v1/keys?tenant=default"), "operator_needed", 403)
    two.problem(two.stranger.post("/v1/keys", json={"name": "x", "tenant": "default"}), "operator_needed", 403)
    mine = two.admin.get("/v1/keys").get_json()["keys"]
    assert {each["tenant"] for each in mine} == {"default"}
    ours = mine[0]["key"]
    for act in ("rotate", "revoke"):
        two.problem(two.stranger.post(f"/v1/keys/{ours}/{act}", json={}), "key_unknown", 404)
    assert two.admin.get("/v1/keys?tenant=other").get_json()["keys"][0]["key"] == theirs
    assert two.admin.post(f"/v1/keys/{theirs}/revoke").get_json()["state"] == "revoked"
