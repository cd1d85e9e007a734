"""Corpora over HTTP: made, listed, changed, deleted; budgets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from crochet_tasks import publish
from crochet_tasks.access import keys, tenancy
from crochet_tasks.access.keys import KeySpec, Scope
from crochet_tasks.db import corpora, outbox, publishing
from crochet_tasks.db.corpora import Corpus, Lock
from crochet_tasks.db.process import Process
from crochet_tasks.embedded.pipeline import close
from crochet_tasks.schemas.progress import EndReason
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.api import SETTINGS, Api, corpus_of, made, made_again

pytestmark = pytest.mark.integration

MERGE = "application/merge-patch+json"


def patch(api: Api, name: str, body: Any, match: str | None = "*", kind: str = MERGE) -> TestResponse:
    headers = {"Content-Type": kind} | ({} if match is None else {"If-Match": match})
    return api.write.patch(f"/v1/corpora/{name}", json=body, headers=headers)


# ── made, listed ────────────────────────────────────────────────────────────────────────────────


def test_a_corpus_is_made(api: Api) -> None:
    """201 says where it is and at which ETag; limits that were not given have their defaults."""
    given = {"name": "genesis", "limits": {"max_axes": 2}, "description": "the first book", "budget": 1000}
    answer = api.write.post("/v1/corpora", json=given)
    assert (answer.status_code, answer.headers["Location"]) == (201, "/v1/corpora/genesis")
    made = answer.get_json()
    rest = {"limits": {"max_axes": 2, "max_side": 8, "max_cells": 64}, "paused": False, "priority": 0, "revision": 1}
    assert made == {**given, **rest}
    seen = api.read.get("/v1/corpora/genesis")
    assert (seen.get_json(), seen.headers["ETag"]) == (made, answer.headers["ETag"])
    assert not seen.headers["ETag"].startswith("W/")
    again = api.read.get("/v1/corpora/genesis", headers={"If-None-Match": seen.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        ({"name": "genesis"}, "corpus_exists", 409),
        ({}, "invalid_request", 422),
        ({"name": "../etc"}, "invalid_request", 422),
        ({"name": "a\n"}, "invalid_request", 422),
        ({"name": "x" * 101}, "invalid_request", 422),
        ({"name": "a", "limits": {"max_axes": 9}}, "invalid_request", 422),
        ({"name": "a", "limits": {"max_axes": "3"}}, "invalid_request", 422),
        ({"name": "a", "budget": 0}, "invalid_request", 422),
        ({"name": "a", "budget": True}, "invalid_request", 422),
        ({"name": "a", "budget": 10**30}, "invalid_request", 422),
        ({"name": "a", "description": "x" * 2001}, "invalid_request", 422),
        ({"name": "a", "description": "nul\0"}, "invalid_request", 422),
        ({"name": "a", "tenant": 2}, "invalid_request", 422),
        ({"name": "a", "version": 7}, "invalid_request", 422),
        ({"name": "a", "limits": {"max_axes": 2, "more": 1}}, "invalid_request", 422),
    ],
)
def test_what_is_no_corpus(api: Api, body: Any, code: str, status: int) -> None:
    """Each is refused, also fields that cannot be set; and nothing was made."""
    corpus_of(api)
    api.problem(api.write.post("/v1/corpora", json=body), code, status)
    assert len(api.read.get("/v1/corpora").get_json()["corpora"]) == 1


def test_a_tenant_has_so_many_corpora(api: Api) -> None:
    """One more is refused, also of those that are made at the same time; a deleted one makes room."""
    api.process.settings = Settings(max_corpora=2)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda n: api.write.post("/v1/corpora", json={"name": f"c{n}"}), range(4)))
    assert sorted(answer.status_code for answer in made) == [201, 201, 409, 409]
    refused = next(answer for answer in made if answer.status_code == 409)
    assert "2" in api.problem(refused, "too_many_corpora", 409)["detail"]
    assert api.stranger.post("/v1/corpora", json={"name": "theirs"}).status_code == 201
    name = next(answer.get_json()["name"] for answer in made if answer.status_code == 201)
    api.problem(api.write.post("/v1/corpora", json={"name": name}), "corpus_exists", 409)
    api.admin.delete(f"/v1/corpora/{name}?confirm={name}")
    assert api.write.post("/v1/corpora", json={"name": "another"}).status_code == 201


def test_pages_of_corpora(api: Api) -> None:
    """In the order of their names, each once; a cursor that was changed is refused."""
    names = ["b", "a", "e", "d", "c"]
    for name in names:
        corpus_of(api, name)
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api.read.get(
            "/v1/corpora", query_string={"limit": 2, **({"cursor": cursor} if cursor else {})}
        ).get_json()
        seen += [corpus["name"] for corpus in page["corpora"]]
        cursor = page["next_cursor"]
    assert seen == sorted(names)
    good = api.read.get("/v1/corpora?limit=2").get_json()["next_cursor"]
    for bad in (good[:-1], good + "A", "x" + good[1:], "é", "AAAA"):
        api.problem(api.read.get("/v1/corpora", query_string={"cursor": bad}), "invalid_cursor", 422)
    for wrong in ("limit=0", "limit=1001", "limit=x", "page=2", "cursor="):
        api.problem(api.read.get(f"/v1/corpora?{wrong}"), "invalid_request", 422)


# ── changed ─────────────────────────────────────────────────────────────────────────────────────


def test_a_corpus_is_changed_by_who_has_seen_it(api: Api) -> None:
    """If-Match is needed and must fit; each change has a new ETag, none keeps it; null takes away."""
    corpus_of(api, description="old", budget=5)
    tag = api.read.get("/v1/corpora/genesis").headers["ETag"]
    api.problem(patch(api, "genesis", {"description": "new"}, None), "precondition_required", 428)
    for wrong in ('"0-0"', f"W/{tag}", '"x", "y"', '"*"'):
        api.problem(patch(api, "genesis", {"description": "new"}, wrong), "precondition_failed", 412)
    changed = patch(api, "genesis", {"description": "new"}, f'"x", {tag}')
    assert (changed.status_code, changed.get_json()["description"], changed.get_json()["budget"]) == (200, "new", 5)
    api.problem(patch(api, "genesis", {"description": "newer"}, tag), "precondition_failed", 412)
    same = patch(api, "genesis", {"description": "new"}, changed.headers["ETag"])
    assert same.headers["ETag"] == changed.headers["ETag"]
    gone = patch(api, "genesis", {"description": None, "budget": None}, same.headers["ETag"]).get_json()
    assert (gone["description"], gone["budget"], gone["revision"]) == ("", None, 3)


def test_if_match_holds_for_reading(api: Api) -> None:
    """A corpus that is not at that ETag is not shown: the answer is the problem, before If-None-Match is checked."""
    corpus_of(api)
    tag = api.read.get("/v1/corpora/genesis").headers["ETag"]
    for matches in (tag, "*", f'"zz", {tag}'):
        assert api.read.get("/v1/corpora/genesis", headers={"If-Match": matches}).status_code == 200
    for path, wrong in [("", '"zz"'), ("", '"*"'), ("/version", '"zz"'), ("/vocabulary", '"zz"')]:
        weak = api.read.get(f"/v1/corpora/genesis{path}").headers["ETag"]
        headers = {"If-Match": wrong, "If-None-Match": weak}
        api.problem(api.read.get(f"/v1/corpora/genesis{path}", headers=headers), "precondition_failed", 412)


def test_a_corpus_is_renamed(api: Api) -> None:
    """It is at its new address, at the version that it had; a name that is taken is refused."""
    corpus = corpus_of(api)
    corpus_of(api, "exodus")
    steps.ingest_all(corpus, steps.TEXTS[:1])
    api.problem(patch(api, "genesis", {"name": "exodus"}), "corpus_exists", 409)
    renamed = patch(api, "genesis", {"name": "bereshit"})
    assert (renamed.status_code, renamed.headers["Content-Location"]) == (200, "/v1/corpora/bereshit")
    api.problem(api.read.get("/v1/corpora/genesis/version"), "corpus_unknown", 404)
    assert api.read.get("/v1/corpora/bereshit/version").get_json() == {"corpus": "bereshit", "version": 1}


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        ({"limits": {"max_axes": 2}}, "limits_fixed", 409),
        ({"limits": None}, "limits_fixed", 409),
        ({"name": None}, "invalid_request", 422),
        ({"name": ""}, "invalid_request", 422),
        ({"version": 3}, "invalid_request", 422),
        ({"tenant": 2}, "invalid_request", 422),
        ({"revision": 9}, "invalid_request", 422),
        ({"removed_at": "2020-01-01"}, "invalid_request", 422),
        ({"budget": -1}, "invalid_request", 422),
        ({"priority": 4}, "invalid_request", 422),
        ({"priority": 2}, "priority_too_high", 403),
        ({"description": "new", "priority": 3}, "priority_too_high", 403),
        ([1], "invalid_request", 422),
    ],
)
def test_what_cannot_be_changed(api: Api, body: Any, code: str, status: int) -> None:
    """Limits have a code of their own; nothing unknown is taken."""
    corpus_of(api)
    before = api.read.get("/v1/corpora/genesis").data
    api.problem(patch(api, "genesis", body), code, status)
    assert api.read.get("/v1/corpora/genesis").data == before


def test_a_change_is_a_merge_patch(api: Api) -> None:
    """Other types are refused: they mean something else."""
    corpus_of(api)
    for kind in ("application/json", "application/json-patch+json", "text/plain", "application/x-www-form-urlencoded"):
        answer = api.write.patch("/v1/corpora/genesis", data="{}", headers={"Content-Type": kind, "If-Match": "*"})
        api.problem(answer, "wrong_content_type", 415)


@pytest.mark.parametrize(("scope", "highest"), [("write", 1), ("operate", 2), ("admin", 3)])
def test_each_role_gives_priorities_up_to_its_own(api: Api, scope: Scope, highest: int) -> None:
    """A corpus that has a higher one is still changed, and lowered, by who writes; and not raised again."""
    client = api.with_key(keys.create(api.process.database, KeySpec("another", (scope,))).key)
    headers = {"Content-Type": MERGE, "If-Match": "*"}

    def give(client: FlaskClient, **changes: Any) -> TestResponse:
        return client.patch("/v1/corpora/genesis", json=changes, headers=headers)

    assert client.post("/v1/corpora", json={"name": "genesis", "priority": highest}).status_code == 201
    assert give(api.admin, priority=3).get_json()["priority"] == 3
    assert give(client, description="as it is", priority=3).status_code == 200
    assert give(client, priority=-3).get_json()["priority"] == -3
    given = [give(client, priority=priority).status_code for priority in (1, 2, 3)]
    assert given == [200 if priority <= highest else 403 for priority in (1, 2, 3)]
    if highest < 3:
        body = {"name": "exodus", "priority": highest + 1}
        problem = api.problem(client.post("/v1/corpora", json=body), "priority_too_high", 403)
        assert f"give {highest} or less" in problem["detail"]


def test_a_priority_is_in_the_audit(api: Api) -> None:
    corpus_of(api)
    assert patch(api, "genesis", {"priority": 1}).status_code == 200
    (line,) = api.admin.get("/v1/audit?corpus=genesis&limit=1").get_json()["lines"]
    assert (line["what"], line["before"]["priority"], line["after"]["priority"]) == ("corpus.changed", 0, 1)


# ── deleted ─────────────────────────────────────────────────────────────────────────────────────

TABLES = ("texts", "words", "phrases", "batches", "counts", "work", "corpora")


def left(process: Process, corpus: Corpus) -> dict[str, object]:
    """How many rows there are of a corpus, per table that has some."""
    rows = {
        table: steps.sql(
            process,
            f"SELECT count(*) FROM {table} WHERE {'id' if table == 'corpora' else 'corpus'} = :corpus",
            corpus=corpus.id,
        )[0][0]
        for table in TABLES
    }
    return {table: number for table, number in rows.items() if number}


def test_deleting_asks_for_the_name(api: Api) -> None:
    """And for the scope of an administrator."""
    corpus_of(api)
    for query in ("", "?confirm=", "?confirm=Genesis", "?confirm=other"):
        api.problem(api.admin.delete(f"/v1/corpora/genesis{query}"), "not_confirmed", 409)
    api.problem(api.write.delete("/v1/corpora/genesis?confirm=genesis"), "forbidden", 403)
    assert api.read.get("/v1/corpora/genesis").status_code == 200


def test_a_deleted_corpus_is_gone_with_all_its_rows(api: Api) -> None:
    """At once for every request, and its name is free; its rows go in steps, and no other corpus loses any."""
    kept, corpus = corpus_of(api, "kept"), corpus_of(api)
    for each in (kept, corpus):
        steps.ingest_all(each, steps.TEXTS)
    steps.accept(corpus, "one that waits for ever")
    before = left(api.process, kept)
    assert api.admin.delete("/v1/corpora/genesis?confirm=genesis").status_code == 204
    api.problem(api.read.get("/v1/corpora/genesis"), "corpus_unknown", 404)
    api.problem(api.write.post("/v1/corpora/genesis/texts", json={"title": "t", "body": "a b"}), "corpus_unknown", 404)
    again = corpus_of(api)
    assert api.read.get("/v1/corpora/genesis/version").get_json()["version"] == 0
    assert tenancy.sweep(api.process.database, 60) is False
    assert left(api.process, corpus) == {}
    assert left(api.process, kept) == before
    assert left(api.process, again) == {"corpora": 1}
    assert steps.stored(api.process, kept) == steps.expected(steps.TEXTS)
    assert steps.sql(api.process, "SELECT count(*) FROM remediations WHERE batch NOT IN (SELECT id FROM batches)") == [
        (0,)
    ]


def test_deleting_goes_on_where_it_was_interrupted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little time is enough for one step; who is at work on the corpus is not waited for."""
    corpus = corpus_of(api)
    steps.ingest_all(corpus, steps.TEXTS)
    api.admin.delete("/v1/corpora/genesis?confirm=genesis")
    with api.process.database.transaction() as connection:
        corpora.take_lock(connection, corpus.id, Lock.MERGE)  # batches are being merged
        assert tenancy.sweep(api.process.database, 60) is True
    calls = 1
    while tenancy.sweep(api.process.database, 0):
        calls += 1
    assert calls > 3
    assert left(api.process, corpus) == {}


def test_messages_of_a_deleted_corpus_find_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every stage, before and after its rows are gone: they write nothing and raise nothing."""
    corpus = corpus_of(api)
    broker = steps.Broker(monkeypatch)
    kept = []
    steps.accept(corpus, *steps.TEXTS)
    broker.publish(corpus)
    while broker.messages:
        kept.append(broker.messages[0])
        if {task.name for task, _ in kept} >= {
            "ingest.text",
            "context.version",
            "remediations.due",
            "search.part",
            "orthos.store",
        }:
            break
        broker.deliver()
        broker.publish(corpus)
    api.admin.delete("/v1/corpora/genesis?confirm=genesis")
    while tenancy.sweep(api.process.database, 60):
        pass
    for task, call in kept + broker.messages:
        task.apply_async(args=[call.payload()])
    assert left(api.process, corpus) == {}


# ── budgets ─────────────────────────────────────────────────────────────────────────────────────


def test_a_corpus_without_a_budget_has_the_default(process: Process) -> None:
    """Null is none; what the corpora that there are have stays."""
    few = made(process, Settings(**SETTINGS, default_budget=7))
    bodies: dict[str, dict[str, Any]] = {"default": {}, "own": {"budget": 9}, "none": {"budget": None}}
    answers = {name: few.write.post("/v1/corpora", json={"name": name, **body}) for name, body in bodies.items()}
    assert {name: answer.get_json()["budget"] for name, answer in answers.items()} == {
        "default": 7, "own": 9, "none": None,
    }  # fmt: skip
    every = made_again(process, Settings(**SETTINGS, default_budget="all"))
    every.keys.update(few.keys)
    assert every.write.post("/v1/corpora", json={"name": "later"}).get_json()["budget"] is None
    assert every.read.get("/v1/corpora/default").get_json()["budget"] == 7


def test_a_spent_budget_holds_searches_back(api: Api) -> None:
    """Texts still become versions; more budget lets the rest be found, and it is all there in the end."""
    corpus = corpus_of(api, budget=5)
    kinds = []
    for body in steps.TEXTS:  # one by one: texts that wait together are one window, and one search
        steps.accept(corpus, body)
        kinds += [item.kind for item in steps.run(corpus)]
    seen = api.read.get("/v1/corpora/genesis/status").get_json()
    assert (seen["version"], seen["spent"], seen["closed"]) == (3, True, False)
    assert 5 <= seen["total"] < 35
    assert kinds.count("ingest") == kinds.count("context") == 3
    assert steps.run(corpus) == []
    steps.accept(corpus, "a text that comes later")
    assert {item.kind for item in steps.run(corpus)} == {"ingest", "context", "remediations"}
    assert close(api.process, corpus).ended is EndReason.BUDGET
    assert patch(api, "genesis", {"budget": 6}).status_code == 200
    patch(api, "genesis", {"budget": None})
    steps.run(corpus)
    assert steps.stored(api.process, corpus) == steps.expected([*steps.TEXTS, "a text that comes later"])


def test_one_corpus_budget_is_not_anothers(api: Api) -> None:
    """Whatever is held back, others are searched."""
    spent, other = corpus_of(api, budget=1), corpus_of(api, "other")
    for body in steps.TEXTS:
        for corpus in (spent, other):
            steps.accept(corpus, body)
        while publish.publish_next():
            pass
    assert steps.stored(api.process, other) == steps.expected(steps.TEXTS)
    assert sum(steps.stored(api.process, spent).values()) < 35


@pytest.mark.slow
def test_what_is_held_back_is_passed_over(api: Api) -> None:
    """Behind 20,000 searches that are held back the next one of another corpus is found."""
    spent, other = corpus_of(api, budget=1), corpus_of(api, "other")
    steps.ingest_all(spent, steps.TEXTS[:1])
    steps.sql(
        api.process,
        "INSERT INTO work (id, corpus, kind, subject, part, since, version, priority)"
        " SELECT gen_random_uuid(), :corpus, 'search', 1, '[0,1)', 0, 1, 9 FROM generate_series(1, 20000)",
        corpus=spent.id,
    )
    steps.sql(api.process, "ANALYZE work")
    searches = [outbox.search(other.id, 0, 1, (n, n + 1)) for n in range(20)]
    with api.process.database.transaction() as connection:
        outbox.add(connection, searches)
    for _ in searches:
        with api.process.database.transaction() as connection:
            taken = publishing.take_next(connection, None, 1000)
        assert taken
        assert taken.item.corpus == other.id
