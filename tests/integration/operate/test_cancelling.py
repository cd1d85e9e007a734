"""Cancelling texts, searches and all work of a corpus; what is left is what was there before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, text

from crochet_tasks import publish
from crochet_tasks.db import corpora, operators, outbox, publishing
from crochet_tasks.db.corpora import Corpus, Lock
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.errors import TextIsVersion, TextStarted, WorkNotCancellable
from crochet_tasks.operate import actions, cancelling, inspection
from crochet_tasks.schemas.names import text_name
from crochet_tasks.settings import Settings
from crochet_tasks.verify import verify
from tests.support import best, steps
from tests.support.failing_work import accepted, running, states, status, texts
from tests.support.waiting import SECONDS

pytestmark = pytest.mark.integration


@contextlib.contextmanager
def ingesting(process: Process, corpus: Corpus) -> Iterator[Connection]:
    """A transaction that locks the first text in line and its work, as an ingestion does."""
    with process.database.transaction() as connection:
        corpora.take_lock(connection, corpus.id, Lock.ORDER)
        first = connection.execute(
            text("SELECT id FROM texts WHERE corpus = :corpus AND state = 'accepted' ORDER BY seq LIMIT 1 FOR UPDATE"),
            {"corpus": corpus.id},
        ).scalar_one()
        assert outbox.claim(connection, [outbox.ingest(corpus.id, first).id])
        yield connection


def test_a_cancelled_text_is_never_a_version(process: Process, corpus: Corpus) -> None:
    """Its words are nowhere, the others are versions in their order, and the audit says who cancelled it."""
    names = accepted(corpus, *steps.TEXTS)
    changed = cancelling.cancel(process, [names[1]])
    assert [(line.id, line.state) for line in changed.changed] == [(names[1], "cancelled")]
    steps.run(corpus)
    assert texts(process, corpus) == [("current", 1), ("cancelled", None), ("current", 2)]
    assert steps.stored(process, corpus) == steps.expected([steps.TEXTS[0], steps.TEXTS[2]])
    assert verify(process, corpus, closure=True) == []
    assert [entry.what for entry in inspection.details(process, names[1]).audit] == ["text.accepted", "text.cancelled"]
    assert states(process, corpus, state="cancelled") == ["cancelled"]
    assert (status(process, corpus).dropped, status(process, corpus).closed) == (0, True)


def test_a_cancelled_text_can_be_given_again(process: Process, corpus: Corpus) -> None:
    """Given or retried, it stands at the end of the line."""
    names = accepted(corpus, *steps.TEXTS)
    cancelling.cancel(process, names[:2])
    assert accepted(corpus, steps.TEXTS[0]) == [names[0]]
    actions.retry(process, [names[1]])
    steps.run(corpus)
    found = steps.sql(process, "SELECT id FROM texts ORDER BY version")
    assert [text_name(int(str(number))) for (number,) in found] == [names[2], names[0], names[1]]
    assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def test_cancelling_is_asked_for_by_the_work_too(process: Process, corpus: Corpus) -> None:
    """And twice is once."""
    (name,) = accepted(corpus, steps.TEXTS[0])
    (line,) = inspection.listed(process, corpus=corpus.name).work
    for names in ([line.id[:8]], [line.id, name], [name]):
        assert [changed.state for changed in cancelling.cancel(process, names).changed] == ["cancelled"]
    assert steps.run(corpus) == []


def test_cancelling_the_first_in_line_gives_the_next_its_turn(process: Process, corpus: Corpus) -> None:
    """Also when that one had come too early and was parked."""
    names = accepted(corpus, *steps.TEXTS)
    steps.sql(process, "UPDATE work SET not_before = 'infinity' WHERE subject <> :first", first=int(names[0][5:]))
    cancelling.cancel(process, names[:2])
    assert states(process, corpus) == ["ready"]
    steps.run(corpus)
    assert texts(process, corpus) == [("cancelled", None), ("cancelled", None), ("current", 1)]


def test_cancelling_another_one_leaves_the_first_alone(process: Process, corpus: Corpus) -> None:
    """While the first is being ingested, those behind it can be cancelled: nothing waits for its lock."""
    names = accepted(corpus, *steps.TEXTS)
    with ingesting(process, corpus):
        cancelling.cancel(process, names[1:])
    steps.run(corpus)
    assert texts(process, corpus) == [("current", 1), ("cancelled", None), ("cancelled", None)]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "ORDER_WAIT", "100ms")


@pytest.mark.usefixtures("impatient")
def test_a_text_that_is_being_ingested_is_started(process: Process, corpus: Corpus) -> None:
    """While a part of it takes too long it is refused, and none of the others is cancelled."""
    names = accepted(corpus, *steps.TEXTS)
    with ingesting(process, corpus), pytest.raises(TextStarted):
        cancelling.cancel(process, [names[2], names[0]])
    steps.run(corpus)
    assert [state for state, _ in texts(process, corpus)] == ["current"] * 3


@pytest.mark.usefixtures("impatient")
def test_a_text_whose_failure_is_just_noted_is_started(process: Process, corpus: Corpus) -> None:
    """Who notes it holds the work and waits for the text; neither hinders the other for longer than a moment."""
    (name,) = accepted(corpus, steps.TEXTS[0])
    with process.database.transaction() as connection:
        assert outbox.claim(connection, [outbox.ingest(corpus.id, int(name[5:])).id])
        with pytest.raises(TextStarted):
            cancelling.cancel(process, [name])
    assert inspection.details(process, name).line.state == "accepted"


def test_cancelling_waits_for_the_part_that_is_being_ingested(process: Process, corpus: Corpus) -> None:
    (name,) = accepted(corpus, steps.TEXTS[0])
    with ingesting(process, corpus) as connection, running(lambda: cancelling.cancel(process, [name])) as cancelled:
        steps.until_blocked(process)
        connection.commit()
        cancelled.join(SECONDS)
    assert texts(process, corpus) == [("cancelled", None)]


CONTEXT = """
SELECT 'word', id, born, word, NULL FROM words WHERE corpus = :corpus
 UNION ALL SELECT 'phrases', first, born, encode(parent, 'hex'), word FROM phrases WHERE corpus = :corpus
 UNION ALL SELECT 'version', version, 0, '', NULL FROM corpora WHERE id = :corpus
 ORDER BY 1, 2
"""


@pytest.mark.parametrize("parts", [1, 2, "all"])
def test_a_text_in_ingestion_is_taken_back_exactly(database: str, parts: object) -> None:
    """After one part, two, and all of it: words, phrases and version are what they were, and the next texts get the
    same ids. Given again, it is as new: in the end nothing is missing.
    """
    with open_process(Settings(part_words=5), database) as process:
        corpus = steps.new_corpus(process)
        steps.ingest_all(corpus, steps.TEXTS[:1])
        before = steps.sql(process, CONTEXT, corpus=corpus.id)
        first, _ = accepted(corpus, *steps.TEXTS[1:])
        done = 0
        while (done != parts) if isinstance(parts, int) else texts(process, corpus)[1] != ("ingested", None):
            publish.publish_next(corpus.id)
            done += 1
        assert steps.sql(process, CONTEXT, corpus=corpus.id) != before
        assert [line.state for line in cancelling.cancel(process, [first]).changed] == ["cancelled"]
        assert steps.sql(process, CONTEXT, corpus=corpus.id) == before
        steps.run(corpus)
        assert texts(process, corpus) == [("current", 1), ("cancelled", None), ("current", 2)]
        assert steps.stored(process, corpus) == steps.expected([steps.TEXTS[0], steps.TEXTS[2]])
        actions.retry(process, [first])
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)
        assert verify(process, corpus, closure=True) == []


def test_a_version_is_not_taken_back(process: Process, corpus: Corpus) -> None:
    (name,) = accepted(corpus, steps.TEXTS[0])
    steps.run(corpus)
    with pytest.raises(TextIsVersion, match="is version 1 of its corpus"):
        cancelling.cancel(process, [name])
    assert status(process, corpus).closed


def test_an_ingestion_that_comes_while_a_text_is_cancelled_takes_the_next(process: Process, corpus: Corpus) -> None:
    """It waits for the cancellation, and then for no text that is cancelled."""
    names = accepted(corpus, *steps.TEXTS[:2])
    ids = [int(name[5:]) for name in names]
    with process.database.transaction() as connection:
        row = operators.text_row(connection, ids[0], lock=True)
        assert row is not None
        with running(lambda: publish.publish_next(corpus.id)) as ingestion:
            steps.until_blocked(process)
            operators.cancel_text(connection, row)
            publishing.release_next_text(connection, corpus.id)
            connection.commit()
            ingestion.join(SECONDS)
    assert texts(process, corpus) == [("cancelled", None), ("accepted", None)]
    steps.run(corpus)
    assert texts(process, corpus) == [("cancelled", None), ("current", 1)]


def test_the_next_is_not_forgotten_when_its_predecessor_is_cancelled_meanwhile(
    process: Process, corpus: Corpus
) -> None:
    """While a text becomes a version the next is cancelled: the one after it is published, though it was parked."""
    names = accepted(corpus, *steps.TEXTS)
    _, second, third = (int(name[5:]) for name in names)
    publish.publish_next(corpus.id)
    steps.sql(process, "UPDATE work SET not_before = 'infinity' WHERE subject = :third", third=third)
    with process.database.transaction() as connection:
        row = operators.text_row(connection, second, lock=True)
        assert row is not None
        operators.cancel_text(connection, row)
        with running(lambda: publish.publish_next(corpus.id)) as making_the_version:
            steps.until_blocked(process)
            connection.commit()
            making_the_version.join(SECONDS)
    assert steps.version(process, corpus) == 1
    assert states(process, corpus, kind="ingest") == ["ready"]


def test_a_search_for_the_best_is_not_cancelled_part_by_part(process: Process, corpus: Corpus) -> None:
    accepted(corpus, steps.TEXTS[0])
    steps.run(corpus)
    best.ask(process, corpus)
    (line,) = inspection.listed(process, corpus=corpus.name, kind="best", state="open").work
    with pytest.raises(WorkNotCancellable, match="its kind is best: stop the search"):
        cancelling.cancel(process, [line.id])


# ── searches ──────────────────────────────────────────────────────────────────────────────────────


def _until(process: Process, corpus: Corpus, kind: str) -> None:
    """Do work until some of this kind is next."""
    while not states(process, corpus, kind=kind, state="open"):
        assert publish.publish_next(corpus.id)


@pytest.mark.parametrize("kind", ["remediations", "search"])
def test_cancelled_and_retried_the_closure_is_exact(database: str, kind: str) -> None:
    """It is called incomplete, later texts become versions, and all is there when it is retried, before or after."""
    with open_process(Settings(batch_orthos=2), database) as process:
        corpus = steps.new_corpus(process)
        accepted(corpus, steps.TEXTS[0])
        _until(process, corpus, kind)
        items = [line.id for line in inspection.listed(process, corpus=corpus.name, kind=kind).work]
        made = cancelling.cancel(process, items)
        assert {line.state for line in made.changed} == {"cancelled"}
        assert [corpus.name in each for each in made.notes] == [True]
        steps.ingest_all(corpus, steps.TEXTS[1:])
        now = status(process, corpus)
        assert (now.version, now.dropped, now.closed) == (3, len(items), False)
        assert verify(process, corpus, closure=True) == []
        assert cancelling.cancel(process, items).changed
        actions.retry(process, items)
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)
        assert verify(process, corpus, closure=True) == []
        assert status(process, corpus).closed
        with pytest.raises(WorkNotCancellable, match="it is done"):
            cancelling.cancel(process, items[:1])


def test_the_result_of_a_search_that_is_cancelled_while_it_runs_is_dropped(
    process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retried before the late result comes, it and that of the second run are stored once."""
    broker = steps.Broker(monkeypatch)
    accepted(corpus, steps.TEXTS[0])
    broker.deliver_all(corpus, "orthos.store")
    (line,) = inspection.listed(process, corpus=corpus.name, kind="search").work
    cancelling.cancel(process, [line.id])
    broker.deliver(keep=True)
    assert states(process, corpus, state="cancelled") == ["cancelled"]
    assert not steps.stored(process, corpus)
    actions.retry(process, [line.id])
    broker.deliver(keep=True)
    broker.deliver_all(corpus)
    assert steps.stored(process, corpus) == steps.expected([steps.TEXTS[0]])
    assert verify(process, corpus, closure=True) == []


# ── all of a corpus ───────────────────────────────────────────────────────────────────────────────


def test_all_work_of_a_corpus_is_cancelled_and_retried(database: str) -> None:
    """A text that is half ingested, one that waits, searches, and a search for the best; other corpora go on."""
    with open_process(Settings(part_words=5), database) as process:
        corpus, other = steps.new_corpus(process), steps.new_corpus(process)
        for each in (corpus, other):
            accepted(each, steps.TEXTS[0])
            _until(process, each, "search")
        best.ask(process, corpus)
        before = steps.sql(process, CONTEXT, corpus=corpus.id)
        accepted(corpus, *steps.TEXTS[1:])
        publish.publish_next(corpus.id)
        done = cancelling.cancel_all(process, corpus.name)
        assert (done.texts, done.best) == (2, 1)
        assert done.work == status(process, corpus).dropped > 0
        assert steps.sql(process, CONTEXT, corpus=corpus.id) == before
        assert steps.run(corpus) == []
        again = cancelling.cancel_all(process, corpus.name)
        assert (again.texts, again.work, again.best) == (0, 0, 0)
        steps.run(other)
        assert status(process, other).closed
        assert steps.stored(process, other) == steps.expected(steps.TEXTS[:1])
        actions.retry_all(process, corpus.name, dropped=True)
        steps.ingest_all(corpus, steps.TEXTS[1:])
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)
        assert verify(process, corpus, closure=True) == []
