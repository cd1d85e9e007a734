"""No tenant sees, or changes, anything of another: every route, as the application has them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api import create_app
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.api import SETTINGS, Api, corpus_of

pytestmark = pytest.mark.integration

NAME = "mine"
ID = "0" * 32
REQUESTS: dict[tuple[str, str], dict[str, Any]] = {
    ("PATCH", ""): {"json": {"description": "theirs"}, "headers": {"If-Match": "*"}},
    ("DELETE", ""): {"query_string": {"confirm": NAME}},
    ("POST", "/texts"): {"json": {"title": "theirs", "body": "the sea"}},
    ("POST", "/texts/batch"): {"json": {"texts": [{"title": "theirs", "body": "the sea"}]}},
    ("POST", "/best"): {"json": {}},
    ("POST", "/orthos/check"): {"json": {"ids": [ID]}},
    ("GET", "/remediations"): {"query_string": {"phrase": "a"}},
}
"""what a request needs to be taken; the others need nothing"""
PARTS = {"corpus": NAME, "text": "text-1", "job": "best-1", "ortho": ID, "work": "text-1"}
OPEN_TO_ALL_TENANTS = {
    ("GET", "/v1/corpora"),
    ("POST", "/v1/corpora"),
    ("GET", "/v1/events"),
    ("GET", "/v1/status"),
    ("GET", "/v1/audit"),  # of its own: tests/integration/operate/test_audit.py
    ("POST", "/v1/tokens"),
    ("DELETE", "/v1/tokens"),
    ("POST", "/v1/tokens/refresh"),
    ("POST", "/v1/tokens/oidc"),
    ("GET", "/v1/keys"),  # these four: test_corpora_of_a_key.py
    ("POST", "/v1/keys"),
    ("POST", "/v1/keys/<key>/rotate"),
    ("POST", "/v1/keys/<key>/revoke"),
    ("DELETE", "/v1/keys/<key>/second-factor"),
    ("GET", "/v1/tenants"),  # these four: test_tenants_managed.py
    ("POST", "/v1/tenants"),
    ("GET", "/v1/tenants/<tenant>"),
    ("PATCH", "/v1/tenants/<tenant>"),
    ("DELETE", "/v1/tenants/<tenant>"),
}
"""routes that name no corpus"""


def routes() -> list[tuple[str, str]]:
    """Method and rule of every route of version 1."""
    rules = create_app(Settings(**SETTINGS)).url_map.iter_rules()
    return sorted(
        (method, rule.rule)
        for rule in rules
        if rule.rule.startswith("/v1/")
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS")
    )


OF_A_CORPUS = [each for each in routes() if "<corpus>" in each[1]]


@pytest.fixture
def mine(api: Api) -> Api:
    """A corpus of ours, with texts that are versions and one that waits."""
    corpus = corpus_of(api, NAME)
    steps.ingest_all(corpus, steps.TEXTS[:1])
    steps.accept(corpus, steps.TEXTS[1])
    return api


def ask(client: Any, method: str, rule: str) -> TestResponse:
    path = re.sub(r"<(?:\w+:)?(\w+)>", lambda part: PARTS[part[1]], rule)
    given = {"headers": {}, **REQUESTS.get((method, rule.removeprefix("/v1/corpora/<corpus>")), {})}
    if method == "PATCH":
        given["headers"] = {**given["headers"], "Content-Type": "application/merge-patch+json"}
    answer: TestResponse = client.open(path, method=method, **given)
    return answer


def test_every_route_is_known_here() -> None:
    """What names no corpus is in the list above: a new route is either asked for below or thought about."""
    assert {each for each in routes() if "<corpus>" not in each[1]} == OPEN_TO_ALL_TENANTS
    assert len(OF_A_CORPUS) >= 19


def test_another_tenants_corpus_does_not_exist(mine: Api) -> None:
    """Not found, not forbidden, whatever is asked; and nothing has changed. With our own key each route finds it."""
    before = steps.sql(mine.process, "SELECT * FROM texts ORDER BY id")
    for method, rule in OF_A_CORPUS:
        found = mine.problem(ask(mine.stranger, method, rule), "corpus_unknown", 404)
        assert "known: none" in found["detail"], rule
        mine.problem(ask(mine.anonymous, method, rule), "unauthorized", 401)
    assert steps.sql(mine.process, "SELECT * FROM texts ORDER BY id") == before
    assert steps.sql(mine.process, "SELECT revision, removed_at FROM corpora") == [(1, None)]
    for method, rule in sorted(OF_A_CORPUS, key=lambda each: each == ("DELETE", "/v1/corpora/<corpus>")):
        ours = ask(mine.admin, method, rule)
        assert ours.status_code < 404 or ours.get_json()["code"] != "corpus_unknown", rule


def test_cursors_of_others_lead_nowhere(mine: Api) -> None:
    """A cursor is good for the list that it was given out for: not for the same one of another tenant or corpus."""
    for client in (mine.write, mine.stranger):
        assert client.post("/v1/corpora", json={"name": "other"}).status_code == 201
    assert mine.stranger.post("/v1/corpora", json={"name": NAME}).status_code == 201
    for path in ("", f"/{NAME}/texts", f"/{NAME}/vocabulary", f"/{NAME}/phrases", f"/{NAME}/orthos"):
        cursor = mine.read.get(f"/v1/corpora{path}?limit=1").get_json()["next_cursor"]
        assert mine.read.get(f"/v1/corpora{path}?limit=1&cursor={cursor}").status_code == 200
        mine.problem(mine.stranger.get(f"/v1/corpora{path}?cursor={cursor}"), "invalid_cursor", 422)
        if path:
            elsewhere = path.replace(NAME, "other")
            mine.problem(mine.read.get(f"/v1/corpora{elsewhere}?cursor={cursor}"), "invalid_cursor", 422)


def test_what_names_no_corpus_shows_none_of_others(mine: Api) -> None:
    """Lists are of one's own; the same name is free for everybody, and then each sees the own one."""
    assert mine.stranger.get("/v1/corpora").get_json() == {"corpora": [], "next_cursor": None}
    mine.problem(mine.stranger.get(f"/v1/events?corpus={NAME}"), "corpus_unknown", 404)
    assert mine.stranger.post("/v1/corpora", json={"name": NAME, "description": "theirs"}).status_code == 201
    assert mine.read.get(f"/v1/corpora/{NAME}").get_json()["description"] == ""
    assert mine.stranger.get(f"/v1/corpora/{NAME}").get_json()["description"] == "theirs"
    assert mine.stranger.get(f"/v1/corpora/{NAME}/version").get_json()["version"] == 0


def test_texts_and_work_of_another_corpus(mine: Api) -> None:
    """A name of a text or of work leads nowhere but in its own corpus."""
    mine.stranger.post("/v1/corpora", json={"name": "theirs"})
    ours = mine.write.get(f"/v1/corpora/{NAME}/work?state=open").get_json()["work"][0]["id"]
    for path in ("texts/text-2", "work/text-2", f"work/{ours}"):
        for verb in ("cancel", "retry"):
            if verb == "cancel" or path.startswith("work"):
                answer = mine.stranger.post(f"/v1/corpora/theirs/{path}/{verb}")
                mine.problem(answer, "not_found", 404)
    mine.problem(mine.stranger.get("/v1/corpora/theirs/texts/text-2"), "not_found", 404)
    assert mine.read.get(f"/v1/corpora/{NAME}/texts/text-2").get_json()["state"] == "accepted"
