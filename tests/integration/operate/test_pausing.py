"""A paused corpus: nothing of it is begun, texts wait, reads go on; resumed, nothing is missing."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import TestResponse

from crochet_tasks import publish
from crochet_tasks.access import tenancy
from crochet_tasks.db import corpora, operators, outbox
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.operate import inspection
from crochet_tasks.verify import verify
from tests.support import steps
from tests.support.api import Api
from tests.support.failing_work import accepted, states, status, texts

pytestmark = pytest.mark.integration


def _set(process: Process, corpus: Corpus, *, paused: bool) -> None:
    tenancy.change(process, corpora.DEFAULT_TENANT, corpus.name, None, {"paused": paused})


def test_nothing_of_a_paused_corpus_is_begun(process: Process, corpus: Corpus) -> None:
    """At whatever stage it is paused; work of others goes on; nobody waits for it; what was found is read."""
    other = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS[:1])
    accepted(corpus, *steps.TEXTS[1:])
    accepted(other, steps.TEXTS[0])
    stages = set()
    while not status(process, corpus).closed:
        _set(process, corpus, paused=True)
        assert steps.run(corpus) == []
        assert set(states(process, corpus, state="open")) <= {"held", "parked"}
        with process.database.snapshot() as connection:
            assert not operators.unfinished(connection, corpus.id, [])
        _set(process, corpus, paused=False)
        item = publish.publish_next(corpus.id)
        assert item
        stages.add(item.kind)
    assert stages >= {"ingest", "context", "remediations", "search"}
    assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)
    assert verify(process, corpus, closure=True) == []
    _set(process, other, paused=True)
    accepted(corpus, "the land, and the sea")
    assert {item.corpus for item in iter(lambda: publish.publish_next(None), None)} == {corpus.id}
    assert texts(process, other) == [("accepted", None)]


def test_messages_of_a_paused_corpus_are_left_and_published_again(
    process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker begins none of them; the result of a search that ran is stored; after that all goes on at once."""
    broker = steps.Broker(monkeypatch)
    accepted(corpus, *steps.TEXTS[:2])
    broker.deliver_all(corpus, "search.part", "orthos.store")
    broker.deliver()
    broker.publish(corpus)
    _set(process, corpus, paused=True)
    while broker.messages:
        broker.deliver()
    found = steps.stored(process, corpus)
    assert sum(found.values()) > 0 or states(process, corpus, state="done")
    left = states(process, corpus, state="open")
    assert accepted(corpus, steps.TEXTS[2])
    broker.publish(corpus)
    assert not broker.messages
    _set(process, corpus, paused=False)
    broker.deliver_all(corpus)
    assert "published" not in left or not states(process, corpus, state="open")
    assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)
    assert verify(process, corpus, closure=True) == []


def test_remediations_of_a_paused_corpus_wait(
    process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that comes during the pause opens no window."""
    broker = steps.Broker(monkeypatch)
    accepted(corpus, *steps.TEXTS[:2])
    broker.deliver_all(corpus, "remediations.due")
    _set(process, corpus, paused=True)
    while broker.messages:
        broker.deliver()
    assert steps.sql(process, "SELECT count(*) FROM windows WHERE corpus = :corpus", corpus=corpus.id) == [(0,)]
    _set(process, corpus, paused=False)
    broker.deliver_all(corpus)
    assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[:2])


def of(answer: TestResponse) -> Any:
    assert answer.status_code == 200
    return answer.json


def test_a_corpus_is_paused_by_the_api(api: Api) -> None:
    """With its ETag or any; texts are accepted, orthos are read; the answers say so."""
    corpus = steps.new_corpus(api.process)
    steps.ingest_all(corpus, steps.TEXTS[:1])
    path = f"/v1/corpora/{corpus.name}"

    def patched(paused: bool) -> Any:
        headers = {"If-Match": "*", "Content-Type": "application/merge-patch+json"}
        answer = api.write.patch(path, json={"paused": paused}, headers=headers)
        return of(answer)

    assert patched(paused=True)["paused"] is True
    assert of(api.read.get(path))["paused"] is True
    assert api.write.post(f"{path}/texts", json={"title": "t", "body": steps.TEXTS[1]}).status_code == 202
    assert steps.run(corpus) == []
    assert of(api.read.get(f"{path}/status"))["paused"] is True
    assert of(api.read.get(f"{path}/orthos"))["orthos"]
    assert patched(paused=False)["revision"] == corpus.revision + 2
    steps.run(corpus)
    assert steps.stored(api.process, corpus) == steps.expected(steps.TEXTS[:2])


def test_all_work_is_cancelled_and_retried_by_the_api(api: Api) -> None:
    corpus = steps.new_corpus(api.process)
    accepted(corpus, *steps.TEXTS[:1])
    while not states(api.process, corpus, kind="search", state="open"):
        publish.publish_next(corpus.id)
    (line,) = inspection.listed(api.process, corpus=corpus.name, kind="search").work
    path = f"/v1/corpora/{corpus.name}/work"
    assert of(api.admin.post(f"{path}/{line.id}/cancel"))["changed"][0]["state"] == "cancelled"
    assert of(api.admin.post(f"{path}/retry")) == {"corpus": corpus.name, "retried": 1}
    accepted(corpus, steps.TEXTS[1])
    cancelled = of(api.admin.post(f"{path}/cancel"))
    assert (cancelled["texts"], cancelled["work"], cancelled["best"]) == (1, 1, 0)
    assert of(api.admin.post(f"{path}/retry")) == {"corpus": corpus.name, "retried": 1}
    steps.run(corpus)
    assert steps.stored(api.process, corpus) == steps.expected(steps.TEXTS[:1])


def test_runnable_work_is_that_of_a_corpus_that_is_not_paused(process: Process, corpus: Corpus) -> None:
    """A worker that stores a result does not ask: what ran is kept."""
    accepted(corpus, steps.TEXTS[0])
    (line,) = inspection.listed(process, corpus=corpus.name).work
    _set(process, corpus, paused=True)
    with process.database.transaction() as connection:
        item = outbox.ingest(corpus.id, int(steps.sql(process, "SELECT max(id) FROM texts")[0][0])).id  # type: ignore[call-overload]
        assert str(item) == line.id
        assert not outbox.claim(connection, [item], runnable=True)
        assert outbox.claim(connection, [item])
