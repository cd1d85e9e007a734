"""Quotas of a tenant: what is too much is refused, or held, and what others have counts for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug.test import TestResponse

from crochet_tasks.access import tenancy, tenants
from crochet_tasks.db import corpora, publishing, statistics, tally
from crochet_tasks.db.access import Entry
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.intake import admission
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.api import SETTINGS, Api, corpus_of

pytestmark = pytest.mark.integration

TEXTS = ["the sea", "the land", "the air"]


def limit(api: Api, **changes: Any) -> None:
    """Change the quotas of the tenant of the keys."""
    tenants.change(api.process.database, Settings(**SETTINGS), "default", changes, Entry("tenant.changed"))


def post(api: Api, body: str, corpus: str = "genesis") -> TestResponse:
    return api.write.post(f"/v1/corpora/{corpus}/texts", json={"body": body})


def kept(api: Api) -> int:
    return tenants.one(api.process.database, "default").texts


# ── texts ───────────────────────────────────────────────────────────────────────────────────────


def test_one_text_too_many_is_refused(api: Api) -> None:
    """It says what the quota is, and what to do. What is known is no new text, and a deleted corpus makes room."""
    corpus_of(api)
    corpus_of(api, "exodus")
    limit(api, max_texts=2)
    assert post(api, TEXTS[0]).status_code == 202
    cancelled = post(api, TEXTS[1], "exodus").get_json()["id"]
    problem = api.problem(post(api, TEXTS[2]), "quota_reached", 409)
    for part in ("2 texts", "make it 3", "delete a corpus", "ask the operator"):
        assert part in problem["detail"]
    assert post(api, TEXTS[0]).status_code == 200
    assert api.write.post(f"/v1/corpora/exodus/texts/{cancelled}/cancel").status_code == 200
    api.problem(post(api, TEXTS[2]), "quota_reached", 409)
    assert post(api, TEXTS[1], "exodus").status_code == 202
    assert kept(api) == 2
    assert api.stranger.post("/v1/corpora", json={"name": "theirs"}).status_code == 201
    assert api.stranger.post("/v1/corpora/theirs/texts", json={"body": TEXTS[2]}).status_code == 202
    assert api.admin.delete("/v1/corpora/exodus?confirm=exodus").status_code == 204
    assert post(api, TEXTS[2]).status_code == 202
    limit(api, max_texts=1)
    api.problem(post(api, "the moon"), "quota_reached", 409)
    limit(api, max_texts=None)
    assert post(api, "the moon").status_code == 202


def test_bytes_are_those_of_utf_8(api: Api) -> None:
    corpus_of(api)
    limit(api, max_bytes=len("the sea") + len("l'été".encode()) - 1)
    assert post(api, "the sea").status_code == 202
    problem = api.problem(post(api, "l'été"), "quota_reached", 409)
    assert "bytes of texts" in problem["detail"]
    assert post(api, "l'ete").status_code == 202


def test_of_a_batch_those_are_accepted_for_which_there_is_room(api: Api) -> None:
    corpus_of(api)
    limit(api, max_texts=2)
    answer = api.write.post("/v1/corpora/genesis/texts/batch", json={"texts": [{"body": body} for body in TEXTS]})
    taken = answer.get_json()["texts"]
    assert [each["status"] for each in taken] == [202, 202, 409]
    assert taken[2]["error"]["code"] == "quota_reached"


@pytest.mark.parametrize(("committed", "status"), [(True, 409), (False, 202)])
def test_texts_that_are_posted_at_the_same_time_are_counted_together(api: Api, committed: bool, status: int) -> None:
    """To two corpora, so neither waits for the other's order: the second one is counted when the first has ended."""
    first, second = corpus_of(api, "first"), corpus_of(api, "second")
    limit(api, max_texts=1)
    with ThreadPoolExecutor(1) as pool:
        with api.process.database.transaction() as connection:
            assert corpora.lock_for_acceptance(connection, first.id)
            assert admission.accepted(connection, first.id, "first", TEXTS[0])[1]
            other = pool.submit(post, api, TEXTS[1], second.name)
            steps.until_blocked(api.process)
            if not committed:
                connection.rollback()
        assert other.result().status_code == status
    assert kept(api) == 1


# ── orthos ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def full(api: Api) -> Corpus:
    """A corpus with searches that wait, of a tenant that has as many orthos as it may, nearly all of another corpus."""
    corpus = corpus_of(api)
    steps.ingest_all(corpus, steps.TEXTS[:1])
    held = corpus_of(api, "held")
    steps.accept(held, *steps.TEXTS[1:])
    limit(api, max_orthos=1)
    steps.run(held)
    return held


def searches(api: Api, corpus: Corpus) -> int:
    """How many are held."""
    with api.process.database.transaction() as connection:
        return statistics.read(connection, [corpus.id], 1000)[corpus.id].work["search", "held"]


def by_the_relay(api: Api) -> None:
    with api.process.database.transaction() as connection:
        publishing.hold_searches(connection)


def _raised(api: Api) -> None:
    limit(api, max_orthos=1_000_000)


def _taken_away(api: Api) -> None:
    limit(api, max_orthos=None)


def _deleted(api: Api) -> None:
    tenancy.remove(api.process, corpora.DEFAULT_TENANT, "genesis", "genesis")
    by_the_relay(api)


@pytest.mark.parametrize("released", [_raised, _taken_away, _deleted])
def test_searches_are_held_until_there_is_room(api: Api, full: Corpus, released: Callable[[Api], None]) -> None:
    """Texts still become versions; then nothing is missing."""
    assert searches(api, full) > 0
    assert steps.version(api.process, full) == len(steps.TEXTS) - 1
    assert api.read.get("/v1/corpora/held/estimate").get_json()["spent"] is True
    line = tenants.one(api.process.database, "default")
    assert (line.full, line.orthos > 1) == (True, True)
    assert steps.run(full) == []
    released(api)
    assert searches(api, full) == 0
    assert steps.run(full)
    assert steps.stored(api.process, full) == steps.expected(steps.TEXTS[1:])
    changes = [what for (what,) in steps.sql(api.process, "SELECT what FROM audit WHERE what LIKE 'tenant.%full'")]
    assert changes == ["tenant.full", "tenant.not_full"]


def test_what_is_found_meanwhile_counts(api: Api) -> None:
    """The relay looks every two seconds; others' searches go on."""
    corpus = corpus_of(api)
    limit(api, max_orthos=1)
    steps.ingest_all(corpus, steps.TEXTS[:1])
    assert tenants.one(api.process.database, "default").full is False
    by_the_relay(api)
    assert tenants.one(api.process.database, "default").full is True
    assert api.stranger.post("/v1/corpora", json={"name": "theirs"}).status_code == 201
    assert api.stranger.post("/v1/corpora/theirs/texts", json={"body": steps.TEXTS[0]}).status_code == 202
    with api.process.database.transaction() as connection:
        theirs = corpora.named(connection, "theirs", 2)
        assert not tally.spent(connection, theirs.id)
        assert tally.spent(connection, corpus.id)


def test_quotas_are_given_as_json(api: Api) -> None:
    """By who operates the place; a text that is refused then is refused with the next request."""
    corpus_of(api)
    headers = {"Content-Type": "application/merge-patch+json"}
    changed = api.admin.patch("/v1/tenants/default", data=json.dumps({"max_texts": 0}), headers=headers)
    assert changed.get_json()["max_texts"] == 0
    api.problem(post(api, TEXTS[0]), "quota_reached", 409)
