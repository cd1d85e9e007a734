"""Texts and work that fail: with their error, alone, and done when they are given again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from sqlalchemy import text

from crochet_tasks import app, publish
from crochet_tasks.db import attempts, failures, outbox
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.embedded import pipeline
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.errors import (
    DatabaseRefused,
    StoreCorrupt,
    TextWithoutWords,
    WorkerLost,
)
from crochet_tasks.schemas.progress import EndReason
from crochet_tasks.settings import Settings
from crochet_tasks.verify import verify
from tests.support import steps
from tests.support.failing_work import Poison, poison

pytestmark = pytest.mark.integration


def test_a_poisonous_text(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that fails half-way is marked with its error, its phrases are gone, and the next one gets its turn."""
    poison(monkeypatch)
    good = steps.TEXTS
    with open_process(Settings(part_words=3), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, good[0], "new words here. and old a b c. then poison", good[1])
        raised = []
        for _ in range(1000):
            try:
                if not publish.publish_next(corpus.id):
                    break
            except Poison as error:
                raised.append(error)
                assert steps.sql(process, "SELECT state, error->>'message' FROM texts WHERE seq = 2") == [
                    ("failed", "cannot be swallowed")
                ]
                assert steps.sql(process, "SELECT FROM words WHERE word = 'here'") == []
                assert verify(process, corpus, closure=False) == []
        assert len(raised) == 1
        assert steps.version(process, corpus) == 2
        steps.ingest_all(corpus, good[2:])
        assert steps.stored(process, corpus) == steps.expected(good)
        monkeypatch.undo()
        assert verify(process, corpus, closure=True) == []


def test_half_made_phrases_are_waited_for(database: str) -> None:
    """While a text is being ingested nothing of it is searched, and the fsck has nothing to say."""
    with open_process(Settings(part_words=3), database) as process:
        corpus = steps.new_corpus(process)
        steps.ingest_all(corpus, steps.TEXTS[:1])
        steps.accept(corpus, steps.TEXTS[1])
        publish.publish_next(corpus.id)
        assert steps.version(process, corpus) == 1
        assert verify(process, corpus, closure=False) == []
        notes: list[str] = []
        assert verify(process, corpus, closure=True, progress=notes.append) == []
        assert any("cannot be compared yet" in note for note in notes)
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[:2])


def test_others_forget_a_failed_text(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has seen the phrases of a text that then failed elsewhere does not keep them."""
    poison(monkeypatch)
    with open_process(Settings(part_words=3), database) as process:
        corpus = steps.new_corpus(process)
        steps.ingest_all(corpus, steps.TEXTS[:1])
        steps.accept(corpus, "new words here. then poison")
        publish.publish_next(corpus.id)
        index, pending = process.indexes.get(corpus.id), dict(process.pending)
        assert pending
        assert index is not None
        with pytest.raises(Poison):
            steps.run(corpus)
        # This process is now a worker that did not see the failure.
        process.indexes.put(corpus.id, index, index.bytes)
        process.pending = pending
        steps.ingest_all(corpus, steps.TEXTS[1:])
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def test_a_text_fails_for_two_workers(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers that fail on one text, the second after the first gave it up, leave the next text alone."""
    poison(monkeypatch)
    record = failures.record

    def twice(*args: Any, **where: Any) -> list[Item]:
        record(*args, **where)
        return record(*args, **where)

    monkeypatch.setattr(failures, "record", twice)
    with open_process(Settings(), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, "words and then poison", steps.TEXTS[0])
        with pytest.raises(Poison):
            steps.run(corpus)
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[:1])


def test_a_failure_is_that_texts_alone(database: str) -> None:
    """A text whose message comes before its turn waits, whatever becomes of the one before it."""
    with open_process(Settings(), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, "1 2 3", steps.TEXTS[0])
        steps.sql(process, "UPDATE work SET published_at = now() WHERE subject = (SELECT id FROM texts WHERE seq = 1)")
        assert len(steps.run(corpus)) == 1  # the second one's message, which finds that it is not its turn
        assert steps.sql(process, "SELECT DISTINCT state FROM texts") == [("accepted",)]
        publish.release_unfinished(corpus.id)
        with pytest.raises(TextWithoutWords):
            publish.publish_next(corpus.id)
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[:1])


def test_a_text_that_is_given_again_starts_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that ingested a part of a text before it failed goes by what others have made of the corpus since."""
    with open_process(Settings(part_words=3), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, steps.TEXTS[0])
        publish.publish_next(corpus.id)
        kept = dict(process.pending)
        assert kept
        first = outbox.ingest(corpus.id, 1)
        assert failures.record(process.database, process.settings, corpus.id, [first.id], ValueError("a bug"))
        process.pending = {}
        steps.ingest_all(corpus, steps.TEXTS[1:])
        steps.accept(corpus, steps.TEXTS[0])
        publish.publish_next(corpus.id)
        process.pending = {**process.pending, **kept}
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def test_no_version_is_made_of_less_than_was_ingested(process: Process) -> None:
    """Where phrases of an ingested text were deleted the text fails: no version lacks them unnoticed."""
    corpus = steps.new_corpus(process)
    steps.accept(corpus, *steps.TEXTS[:2])
    publish.publish_next(corpus.id)
    steps.sql(process, "DELETE FROM phrases")
    with pytest.raises(StoreCorrupt, match="left 22 phrases, and there are 1"):
        publish.publish_next(corpus.id)
    steps.run(corpus)
    assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[1:2])


def test_an_error_of_a_later_text_is_not_the_first_ones(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of a message that comes before its text's turn, the text before keeps what it has brought."""
    with open_process(Settings(part_words=3, max_attempts=1), database) as process:
        corpus, broker = steps.new_corpus(process), steps.Broker(monkeypatch)
        steps.accept(corpus, *steps.TEXTS[:2])
        broker.publish(corpus)
        early = broker.messages[broker.named("ingest.text")[1]][1]
        broker.deliver(broker.named("ingest.text")[0])  # one part of the first text
        for error in (WorkerLost(times=4), ValueError("a bug")):
            assert failures.record(process.database, process.settings, corpus.id, early.items, error) == []
        broker.deliver_all(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[:2])


def test_a_text_that_cannot_become_a_version(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in the making of a version fails the text, not the corpus; the text can be given again."""
    with open_process(Settings(), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, steps.TEXTS[0], steps.TEXTS[1])
        with monkeypatch.context() as patch:
            patch.setattr(app.app.tasks["context.version"], "run", raises(ValueError("a bug")))
            assert publish.publish_next(corpus.id)
            with pytest.raises(ValueError, match="a bug"):
                publish.publish_next(corpus.id)
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[1:2])
        steps.ingest_all(corpus, steps.TEXTS[:1])
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[:2])


def test_a_version_waits_for_the_remediations_of_the_one_before(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where finding what is due has failed, later versions wait with theirs: else windows of searches were wrong."""
    with open_process(Settings(), database) as process:
        corpus = steps.new_corpus(process)
        steps.ingest_all(corpus, steps.TEXTS[:1])
        with monkeypatch.context() as patch:
            patch.setattr(app.app.tasks["remediations.due"], "run", raises(ValueError("a bug")))
            steps.accept(corpus, steps.TEXTS[1])
            with pytest.raises(ValueError, match="a bug"):
                steps.run(corpus)
        steps.ingest_all(corpus, steps.TEXTS[2:])
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[:1])
        assert pipeline.close(process, corpus).ended is EndReason.WAITING
        with process.database.transaction() as connection:
            assert attempts.reopen_failed(connection, corpus.id) == 1
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def raises(error: Exception) -> Callable[..., NoReturn]:
    def bug(*args: object, **kwargs: object) -> NoReturn:
        raise type(error)(*error.args)  # a new one each time

    return bug


@pytest.mark.parametrize("stage", ["remediations.due", "search.part", "orthos.store"])
def test_a_bug_is_visible_and_can_be_retried(database: str, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """Work that hits a bug is kept as failed, with its error; opened again after the repair it is done."""
    with open_process(Settings(batch_orthos=1), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, *steps.TEXTS)
        with monkeypatch.context() as patch:
            patch.setattr(app.app.tasks[stage], "run", raises(ValueError("a bug")))
            failed = 0
            for _ in range(1000):
                try:
                    if not publish.publish_next(corpus.id):
                        break
                except ValueError:
                    failed += 1
        errors = steps.sql(process, "SELECT DISTINCT error->>'message' FROM work WHERE state = 'failed'")
        assert errors == [("a bug",)]
        assert failed
        assert verify(process, corpus, closure=False) == []
        with process.database.transaction() as connection:
            assert attempts.reopen_failed(connection, corpus.id)
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def test_a_failed_text_may_be_given_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given again after the cause is gone, a text that failed is ingested, at the end of the line."""
    with open_process(Settings(), database) as process:
        corpus = steps.new_corpus(process)
        with monkeypatch.context() as patch:
            patch.setattr(PhraseIndex, "additions", _poisoned)
            steps.accept(corpus, steps.TEXTS[0])
            with pytest.raises(Poison):
                steps.run(corpus)
        steps.accept(corpus, steps.TEXTS[1], steps.TEXTS[0])
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected([steps.TEXTS[1], steps.TEXTS[0]])
        assert verify(process, corpus, closure=True) == []


def _poisoned(*_: object) -> NoReturn:
    raise Poison


def test_a_refusal_is_no_reason_to_try_again(process: Process) -> None:
    """Missing rights and read-only servers have errors of their own, which are not retried."""

    def write() -> None:
        with process.database.transaction() as connection:
            connection.execute(text("SET TRANSACTION READ ONLY"))
            connection.execute(text("DELETE FROM corpora"))

    with pytest.raises(DatabaseRefused, match="read-only"):
        write()
