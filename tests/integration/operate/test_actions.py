"""What operators do about work: cancel, retry, drop."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from crochet_tasks.db import dead_letters
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.errors import CorpusUnknown, WorkNotCancellable, WorkNotFailed, WorkUnknown
from crochet_tasks.operate import actions, cancelling, inspection
from crochet_tasks.operate.best_jobs import JobSpec
from crochet_tasks.reporting import reports
from crochet_tasks.settings import Settings
from crochet_tasks.verify import verify
from tests.support import best, steps
from tests.support.failing_work import accepted, states, status, texts, with_failed

pytestmark = pytest.mark.integration


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


def test_all_that_has_failed_is_retried_with_searches_for_the_best(
    process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that failed is proven then; one that was stopped stays so, also where dropped work is asked for."""
    steps.ingest_all(corpus, steps.TEXTS[:1])
    failed, stopped = best.ask(process, corpus), best.ask(process, corpus, JobSpec({}, 1))
    best.stop(process, corpus, stopped.id)
    with_failed(process, corpus, monkeypatch, "best.part")
    assert best.read(process, corpus, failed.id).state == "failed"
    actions.retry_all(process, corpus.name, dropped=True)
    steps.run(corpus)
    assert best.read(process, corpus, failed.id).state == "proven"
    assert best.read(process, corpus, stopped.id).state == "stopped"


def test_what_has_not_failed_is_not_retried(process: Process, corpus: Corpus) -> None:
    """Neither open work, nor what is done, nor a dead letter; and nothing that was named beside it."""
    (name,) = accepted(corpus, steps.TEXTS[0])
    letter = _letter(process)
    (ready,) = inspection.listed(process, corpus=corpus.name).work
    cancelling.cancel(process, [name])
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
    cancelling.cancel(process, [name])
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
        cancelling.cancel(process, [first])
    assert actions.drop(process, [first]).notes == []
    assert [line.id for line in inspection.listed(process).work] == [second]
    with pytest.raises(WorkUnknown):
        actions.drop(process, [first])
