"""The best orthos over HTTP: asked once, followed, stopped; what cannot be asked."""

from __future__ import annotations

from typing import Any

import pytest

from crochet_tasks.db.corpora import Corpus
from crochet_tasks.engine.best import certificate
from crochet_tasks.operate.best_jobs import MOST_RUNNING
from crochet_tasks.query.best import CERTIFICATES
from tests.support import steps
from tests.support.api import Api, corpus_of

pytestmark = pytest.mark.integration

URL = "/v1/corpora/genesis/best"


@pytest.fixture
def corpus(api: Api) -> Corpus:
    corpus = corpus_of(api, limits={"max_axes": 3, "max_side": 5, "max_cells": 64})
    steps.ingest_all(corpus, steps.TEXTS)
    return corpus


def test_asked_and_followed_to_the_proof(api: Api, corpus: Corpus) -> None:
    """202 says where to look; there is the answer, whose orthos are those of the store, and the certificate."""
    asked = api.write.post(URL, json={})
    assert (asked.status_code, asked.headers["Location"]) == (202, f"{URL}/best-1")
    queued = asked.get_json()
    assert (queued["state"], queued["version"], queued["certificate"]) == ("queued", 3, None)
    assert queued["limits"] == {"max_axes": 3, "max_side": 5, "max_cells": 64}
    api.problem(api.read.get(f"{URL}/best-1/certificate"), "not_found", 404)
    steps.run(corpus)
    seen = api.read.get(asked.headers["Location"])
    job: dict[str, Any] = seen.get_json()
    assert (job["state"], job["gap"], job["upper"], job["error"]) == ("proven", 0, None, None)
    stored = api.read.get("/v1/corpora/genesis/orthos/best?limit=1000").get_json()["orthos"]
    best = [one for one in stored if len(one["words"]) == len(stored[0]["words"])]
    assert [(one["id"], one["shape"], one["words"]) for one in job["best"]] == [
        (one["id"], one["shape"], one["words"]) for one in best
    ]
    assert api.read.get(f"/v1/corpora/genesis/orthos/{job['best'][0]['id']}").status_code == 200
    proof = CERTIFICATES.validate_json(api.read.get(job["certificate"]).data)
    with api.process.database.snapshot() as connection:
        certificate.check(proof, api.process.tree(connection, corpus.id, 3))
    assert api.read.get(URL).get_json() == job
    unchanged = api.read.get(URL, headers={"If-None-Match": seen.headers["ETag"]})
    assert (unchanged.status_code, unchanged.headers["X-Crochet-Version"]) == (304, "3")
    again = api.write.post(URL, json={"max_axes": 3})
    assert (again.status_code, again.get_json()["id"], again.get_json()["state"]) == (200, "best-1", "proven")


def test_another_question_is_another_job(api: Api, corpus: Corpus) -> None:
    """Other limits or another number; `any` is no limit. The newest is that of the corpus."""
    given = {"max_axes": "any", "max_cells": "any", "max_side": 3, "top": 4}
    first, second = api.write.post(URL, json={}).get_json(), api.write.post(URL, json=given).get_json()
    assert (first["id"], second["id"], second["top"]) == ("best-1", "best-2", 4)
    assert second["limits"] == {"max_axes": None, "max_side": 3, "max_cells": None}
    steps.run(corpus)
    found = api.read.get(URL).get_json()
    assert (found["id"], found["state"], len(found["best"])) == ("best-2", "proven", 4)
    assert all(max(one["shape"]) <= 3 for one in found["best"])


def test_a_job_is_stopped_and_goes_on(api: Api, corpus: Corpus) -> None:
    api.write.post(URL, json={})
    stopped = api.write.post(f"{URL}/best-1/cancel").get_json()
    assert (stopped["state"], api.write.post(f"{URL}/best-1/cancel").get_json()) == ("stopped", stopped)
    assert steps.run(corpus) == []
    assert api.write.post(URL, json={}).get_json()["state"] == "queued"
    steps.run(corpus)
    assert api.read.get(URL).get_json()["state"] == "proven"


def test_a_request_with_a_key_is_done_once(api: Api, corpus: Corpus) -> None:
    """Also where the corpus has another version meanwhile; another question with the same key is refused."""
    headers = {"Idempotency-Key": "k1"}
    first = api.write.post(URL, json={"top": 2}, headers=headers)
    steps.accept(corpus, "one more text")
    steps.run(corpus)
    again = api.write.post(URL, json={"top": 2}, headers=headers)
    assert (again.status_code, again.get_json()) == (202, first.get_json())
    assert again.headers["Idempotent-Replayed"] == "true"
    refused = api.write.post(URL, json={"top": 3}, headers=headers)
    api.problem(refused, "idempotency_key_reused", 422)
    assert api.write.post(URL, json={"top": 2}).get_json()["id"] == "best-2"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"top": 0}, "invalid_request"),
        ({"top": 1001}, "invalid_request"),
        ({"top": "3"}, "invalid_request"),
        ({"max_axes": "all"}, "invalid_request"),
        ({"max_axes": 1}, "invalid_request"),
        ({"max_side": "any"}, "invalid_request"),
        ({"max_side": 6}, "limit_out_of_range"),
        ({"max_cells": 3}, "invalid_request"),
        ({"limits": {}}, "invalid_request"),
        ([], "invalid_request"),
    ],
)
def test_what_cannot_be_asked(api: Api, corpus: Corpus, body: object, code: str) -> None:
    api.problem(api.write.post(URL, json=body), code, 422)
    api.problem(api.read.get(URL), "not_found", 404)


def test_names_that_lead_nowhere(api: Api, corpus: Corpus) -> None:
    """Of no job, or of one of another corpus."""
    api.write.post(URL, json={})
    api.write.post("/v1/corpora", json={"name": "other"})
    for path in (
        "genesis/best/best-2",
        "genesis/best/best-01",
        "genesis/best/text-1",
        "other/best/best-1",
        "other/best",
    ):
        api.problem(api.read.get(f"/v1/corpora/{path}"), "not_found", 404)
    for path in ("genesis/best/best-2", "other/best/best-1"):
        api.problem(api.write.post(f"/v1/corpora/{path}/cancel"), "not_found", 404)
        api.problem(api.read.get(f"/v1/corpora/{path}/certificate"), "not_found", 404)


def test_who_may_ask(api: Api, corpus: Corpus) -> None:
    """Reading needs `read`; asking and stopping need `write`."""
    api.problem(api.read.post(URL, json={}), "forbidden", 403)
    api.write.post(URL, json={})
    api.problem(api.read.post(f"{URL}/best-1/cancel"), "forbidden", 403)
    assert api.read.get(URL).status_code == 200


def test_too_much_at_once(api: Api, corpus: Corpus) -> None:
    for top in range(1, MOST_RUNNING + 1):
        assert api.write.post(URL, json={"top": top}).status_code == 202
    refused = api.write.post(URL, json={})
    api.problem(refused, "too_busy", 503)
    assert int(refused.headers["Retry-After"]) > 0
