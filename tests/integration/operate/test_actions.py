"""What operators do about work: cancel, retry, drop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, text

from crochet_tasks import publish
from crochet_tasks.db import corpora, dead_letters, operators, outbox, publishing
from crochet_tasks.db.corpora import Corpus, Lock
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.errors import CorpusUnknown, TextStarted, WorkNotCancellable, WorkNotFailed, WorkUnknown
from crochet_tasks.operate import actions, inspection
from crochet_tasks.reporting import reports
from crochet_tasks.schemas.names import text_name
from crochet_tasks.settings import Settings
from crochet_tasks.verify import verify
from tests.support import best, steps
from tests.support.failing_work import accepted, running, states, status, texts, with_failed
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


# ── cancel ──────────────────────────────────────────────────────────────────────────────────────


def test_a_cancelled_text_is_never_a_version(process: Process, corpus: Corpus) -> None:
    """Its words are nowhere, the others are versions in their order, and the audit says who cancelled it."""
    names = accepted(corpus, *steps.TEXTS)
    changed = actions.cancel(process, [names[1]])
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
    actions.cancel(process, names[:2])
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
        assert [changed.state for changed in actions.cancel(process, names).changed] == ["cancelled"]
    assert steps.run(corpus) == []


def test_cancelling_the_first_in_line_gives_the_next_its_turn(process: Process, corpus: Corpus) -> None:
    """Also when that one had come too early and was parked."""
    names = accepted(corpus, *steps.TEXTS)
    steps.sql(process, "UPDATE work SET not_before = 'infinity' WHERE subject <> :first", first=int(names[0][5:]))
    actions.cancel(process, names[:2])
    assert states(process, corpus) == ["ready"]
    steps.run(corpus)
    assert texts(process, corpus) == [("cancelled", None), ("cancelled", None), ("current", 1)]


def test_cancelling_another_one_leaves_the_first_alone(process: Process, corpus: Corpus) -> None:
    """While the first is being ingested, those behind it can be cancelled: nothing waits for its lock."""
    names = accepted(corpus, *steps.TEXTS)
    with ingesting(process, corpus):
        actions.cancel(process, names[1:])
    steps.run(corpus)
    assert texts(process, corpus) == [("current", 1), ("cancelled", None), ("cancelled", None)]


def test_a_text_that_is_being_ingested_is_started(process: Process, corpus: Corpus) -> None:
    """It is refused while the ingestion goes on, which is not waited for; and none of the others is cancelled."""
    names = accepted(corpus, *steps.TEXTS)
    with ingesting(process, corpus), pytest.raises(TextStarted, match="being ingested"):
        actions.cancel(process, [names[2], names[0]])
    steps.run(corpus)
    assert [state for state, _ in texts(process, corpus)] == ["current"] * 3


def test_a_text_whose_failure_is_just_noted_is_started(process: Process, corpus: Corpus) -> None:
    """Who notes it holds the work and waits for the text; neither hinders the other for longer than a moment."""
    (name,) = accepted(corpus, steps.TEXTS[0])
    with process.database.transaction() as connection:
        assert outbox.claim(connection, [outbox.ingest(corpus.id, int(name[5:])).id])
        with pytest.raises(TextStarted, match="being ingested"):
            actions.cancel(process, [name])
    assert inspection.details(process, name).line.state == "accepted"


def test_a_text_of_which_a_part_is_ingested_is_started(database: str) -> None:
    """Between two parts no transaction locks it, but its phrases are there."""
    with open_process(Settings(part_words=3), database) as process:
        corpus = steps.new_corpus(process)
        (name,) = accepted(corpus, steps.TEXTS[0])
        publish.publish_next(corpus.id)
        with pytest.raises(TextStarted, match="being ingested"):
            actions.cancel(process, [name])
        steps.run(corpus)
        with pytest.raises(TextStarted, match="is current"):
            actions.cancel(process, [name])


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


def test_only_texts_can_be_cancelled(process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without other work orthos would be missing; nothing is changed, also not the text asked for beside it."""
    (line, *_) = with_failed(process, corpus, monkeypatch, "search.part", steps.TEXTS[0])
    (name,) = accepted(corpus, "the sea")
    with pytest.raises(WorkNotCancellable, match="its kind is search: only a text that has not been started can be"):
        actions.cancel(process, [name, line.id])
    assert inspection.details(process, name).line.state == "accepted"


def test_a_search_for_the_best_is_not_cancelled_part_by_part(process: Process, corpus: Corpus) -> None:
    accepted(corpus, steps.TEXTS[0])
    steps.run(corpus)
    best.ask(process, corpus)
    (line,) = inspection.listed(process, corpus=corpus.name, kind="best", state="open").work
    with pytest.raises(WorkNotCancellable, match="its kind is best: stop the search"):
        actions.cancel(process, [line.id])


# ── retry ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stage", ["ingest.text", "context.version"])
def test_a_failed_text_is_retried(
    process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """By its work or its name, at the end of the line and with fresh tries."""
    with_failed(process, corpus, monkeypatch, stage, *steps.TEXTS[:2])
    assert [state for state, _ in texts(process, corpus)] == ["failed", "failed"]
    (by_work, *_) = inspection.listed(process, corpus=corpus.name, state="failed").work
    (name,) = (related.id for related in inspection.details(process, by_work.id).related)
    (other,) = {line.id for line in actions.retry_all(process, corpus.name).changed} - {name}
    assert states(process, corpus, kind="ingest") == ["ready", "ready"]
    assert {line.tries for line in inspection.listed(process, corpus=corpus.name, state="open").work} == {0}
    with pytest.raises(WorkNotFailed, match="is accepted: only what has failed can be retried"):
        actions.retry(process, [other])
    accepted(corpus, steps.TEXTS[2])
    steps.run(corpus)
    assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)
    assert verify(process, corpus, closure=True) == []


@pytest.mark.parametrize("stage", ["remediations.due", "search.part", "orthos.store"])
def test_failed_work_is_retried(database: str, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """One by one or all at once: afterwards the store holds exactly the closure."""
    with open_process(Settings(batch_orthos=1), database) as process:
        corpus = steps.new_corpus(process)
        failed = with_failed(process, corpus, monkeypatch, stage)
        assert failed
        assert not status(process, corpus).closed
        assert status(process, corpus).by_kind[failed[0].kind]["failed"] >= 1
        opened = actions.retry(process, [failed[0].id])
        assert [(line.id, line.state, line.tries) for line in opened.changed] == [(failed[0].id, "ready", 0)]
        actions.retry_all(process)
        steps.run(corpus)
        assert states(process, corpus) == []
        assert status(process, corpus).closed
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def test_what_has_not_failed_is_not_retried(process: Process, corpus: Corpus) -> None:
    """Neither open work, nor what is done, nor a dead letter; and nothing that was named beside it."""
    (name,) = accepted(corpus, steps.TEXTS[0])
    letter = _letter(process)
    (ready,) = inspection.listed(process, corpus=corpus.name).work
    actions.cancel(process, [name])
    steps.ingest_all(corpus, steps.TEXTS[1:2])
    (done, *_) = inspection.listed(process, corpus=corpus.name, state="done").work
    for other, state in ((done.id, "done"), (letter, "a dead letter")):
        with pytest.raises(WorkNotFailed, match=f"is {state}: only what has failed can be retried"):
            actions.retry(process, [name, other])
    assert inspection.details(process, ready.id).line.state == "cancelled"


def test_retrying_all_leaves_others_alone(process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of other corpora, what was cancelled, and what was dropped, unless that is asked for."""
    other = steps.new_corpus(process)
    (failed, *_) = with_failed(process, other, monkeypatch, "search.part", steps.TEXTS[0])
    (dropped, *_) = with_failed(process, corpus, monkeypatch, "search.part", steps.TEXTS[0])
    actions.drop(process, [dropped.id])
    (name,) = accepted(corpus, "the sea")
    actions.cancel(process, [name])
    assert actions.retry_all(process, corpus.name).changed == []
    assert [line.id for line in actions.retry_all(process, corpus.name, dropped=True).changed] == [dropped.id]
    assert inspection.details(process, name).line.state == "cancelled"
    assert inspection.details(process, failed.id).line.state == "failed"
    with pytest.raises(CorpusUnknown):
        actions.retry_all(process, "lost")


# ── drop ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stage", ["search.part", "orthos.store"])
def test_dropped_and_retried_the_closure_is_exact(database: str, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """Dropped searches are shown, no corpus that lacks them is called closed, the fsck names it, and nothing is lost.

    Also when a later text was searched meanwhile.
    """
    with open_process(Settings(batch_orthos=2), database) as process:
        corpus = steps.new_corpus(process)
        failed = with_failed(process, corpus, monkeypatch, stage, *steps.TEXTS[:2])
        dropped = actions.drop(process, [line.id for line in failed])
        assert {line.state for line in dropped.changed} == {"cancelled"}
        assert corpus.name in dropped.notes[0]
        steps.ingest_all(corpus, steps.TEXTS[2:])
        now = status(process, corpus)
        assert (now.dropped, now.work["open"], now.work["failed"], now.closed) == (len(failed), 0, 0, False)
        assert steps.stored(process, corpus) != steps.expected(steps.TEXTS)
        lines: list[str] = []
        assert verify(process, corpus, closure=True, progress=lines.append) == []
        assert any("failed or dropped" in line for line in lines)
        actions.retry(process, [line.id for line in failed])
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)
        assert verify(process, corpus, closure=True) == []
        assert (status(process, corpus).dropped, status(process, corpus).closed) == (0, True)


def test_what_a_version_makes_due_cannot_be_dropped(
    process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later versions would search through a window that leaves it out, and no retry would bring that back."""
    (line, *_) = with_failed(process, corpus, monkeypatch, "remediations.due", steps.TEXTS[0])
    with pytest.raises(WorkNotCancellable, match="cannot be dropped, its kind is remediations: later"):
        actions.drop(process, [line.id])
    assert inspection.details(process, line.id).line.state == "failed"


def test_a_failed_text_is_dropped(process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its work or its name: it counts as cancelled, and can be retried."""
    (line,) = with_failed(process, corpus, monkeypatch, "ingest.text", steps.TEXTS[0])
    (changed,) = actions.drop(process, [line.id]).changed
    assert (changed.kind, changed.state) == ("text", "cancelled")
    assert inspection.details(process, line.id).line.state == "cancelled"
    assert status(process, corpus).closed
    assert [each.error["message"] for each in inspection.details(process, changed.id).tries] == ["a bug"]
    actions.retry(process, [changed.id])
    steps.run(corpus)
    assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[:1])


def test_only_what_has_failed_is_dropped(process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of what is named or none."""
    (line, *_) = with_failed(process, corpus, monkeypatch, "search.part", steps.TEXTS[0])
    (name,) = accepted(corpus, "the sea")
    letter = _letter(process)
    with pytest.raises(WorkNotFailed, match="only what has failed can be dropped"):
        actions.drop(process, [letter, line.id, name])
    assert inspection.details(process, line.id).line.state == "failed"
    assert inspection.details(process, letter).line.state == "dead"


def _letter(process: Process) -> str:
    """A dead letter; its name."""
    with process.database.transaction() as connection:
        dead_letters.add(
            connection,
            queue="search",
            reason="rejected",
            task="who.knows",
            message="m1",
            body=b"\xffnonsense",
            died_at=connection.execute(text("SELECT now()")).scalar_one(),
        )
        return f"dead-{dead_letters.first(connection, 10)[-1].id}"


def test_dead_letters_are_listed_shown_and_dropped(process: Process, corpus: Corpus) -> None:
    """Beside work that is open or failed, or alone; a dropped one is gone."""
    first, second = _letter(process), _letter(process)
    assert [line.id for line in inspection.listed(process, state="dead").work] == [first, second]
    assert [line.id for line in inspection.listed(process).work] == [first, second]
    assert states(process, corpus) == []
    detail = inspection.details(process, first)
    assert (detail.line.kind, detail.details["queue"], detail.details["body"]) == ("message", "search", "\\xffnonsense")
    assert reports.status(process).dead_letters == 2
    with pytest.raises(WorkNotCancellable, match="dead letter"):
        actions.cancel(process, [first])
    assert actions.drop(process, [first]).notes == []
    assert [line.id for line in inspection.listed(process).work] == [second]
    with pytest.raises(WorkUnknown):
        actions.drop(process, [first])
