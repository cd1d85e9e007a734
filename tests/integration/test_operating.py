"""What operators do: look, cancel, retry, drop, watch; and texts that are handed in."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
from sqlalchemy import Connection, text

from crochet_tasks import accepting, app, ingest, looking, naming, operating, reports, work
from crochet_tasks.app import Process
from crochet_tasks.db import corpora, dead_letters, operators, outbox, publishing
from crochet_tasks.db.corpora import Corpus, Lock
from crochet_tasks.db.embedded import EmbeddedPostgres
from crochet_tasks.embedded import Progress
from crochet_tasks.errors import (
    CorpusUnknown,
    CrochetError,
    DatabaseRefused,
    DatabaseUnavailable,
    SettingMissing,
    TextStarted,
    WorkAmbiguous,
    WorkNotCancellable,
    WorkNotFailed,
    WorkUnknown,
    WrongCall,
)
from crochet_tasks.schemas import CorpusStatus, Status, WorkLine
from crochet_tasks.settings import Settings
from crochet_tasks.verify import verify
from tests.integration import steps

pytestmark = pytest.mark.integration

SECONDS = 30.0


class Bug(Exception):
    pass


@pytest.fixture
def corpus(process: Process) -> Corpus:
    return steps.new_corpus(process)


def accepted(corpus: Corpus, *texts: str) -> list[str]:
    """Accept texts; what they are called."""
    return [naming.text_name(ingest.accept(corpus, body[:20], body)[0].id) for body in texts]


def run_on(corpus: Corpus) -> None:
    """Do all work that can be done; what fails is noted with it."""
    while True:
        with contextlib.suppress(Bug):
            if not work.publish_next(corpus.id):
                return


def failing(patch: pytest.MonkeyPatch, stage: str) -> None:
    def bug(*args: object, **kwargs: object) -> NoReturn:
        raise Bug("a bug")

    patch.setattr(app.app.tasks[stage], "run", bug)


def with_failed(process: Process, corpus: Corpus, patch: pytest.MonkeyPatch, stage: str, *texts: str) -> list[WorkLine]:
    """Accept texts and have a stage fail on them; the work that failed."""
    with patch.context() as broken:
        failing(broken, stage)
        accepted(corpus, *texts or steps.TEXTS)
        run_on(corpus)
    return looking.listed(process, corpus=corpus.name, state="failed").work


def status(process: Process, corpus: Corpus) -> CorpusStatus:
    return next(each for each in reports.status(process).corpora if each.corpus == corpus.name)


def states(process: Process, corpus: Corpus, **wanted: Any) -> list[str]:
    return [line.state for line in looking.listed(process, corpus=corpus.name, **wanted).work]


def texts(process: Process, corpus: Corpus) -> list[tuple[object, ...]]:
    return steps.sql(process, "SELECT state, version FROM texts WHERE corpus = :corpus ORDER BY seq", corpus=corpus.id)


@contextlib.contextmanager
def ingesting(process: Process, corpus: Corpus) -> Iterator[Connection]:
    """Somebody holds the first text in line and its work, as an ingestion does."""
    with process.database.transaction() as connection:
        corpora.hold(connection, corpus.id, Lock.ORDER)
        first = connection.execute(
            text("SELECT id FROM texts WHERE corpus = :corpus AND state = 'accepted' ORDER BY seq LIMIT 1 FOR UPDATE"),
            {"corpus": corpus.id},
        ).scalar_one()
        assert outbox.claim(connection, [outbox.ingest(corpus.id, first).id])
        yield connection


def within(seconds: float, began: float) -> bool:
    return time.monotonic() - began < seconds


# ── names ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def alike(process: Process, corpus: Corpus) -> list[str]:
    """The ids of two pieces of work that begin with the same twelve digits, and of one of its own."""
    ids = ["abcdef01-2345-0000-0000-000000000001", "abcdef01-2345-1000-0000-000000000001"]
    ids.append("deadbeef-0000-0000-0000-000000000001")
    for number, name in enumerate(ids):
        steps.sql(
            process,
            "INSERT INTO work (id, corpus, kind, subject, since, version, priority)"
            " VALUES (CAST(:id AS uuid), :corpus, 'remediations', :subject, 0, 1, 1)",
            id=name,
            corpus=corpus.id,
            subject=number,
        )
    return ids


def test_the_beginning_of_an_id_names_work(process: Process, alike: list[str]) -> None:
    """Four digits or more, with or without dashes, in either case; the whole id, too."""
    for name in ("dead", "deadbeef", "DEADBEEF-0000-0", "deadbeef0", alike[2]):
        assert looking.shown(process, name).line.id == alike[2]
    for name in ("abcdef01-2345-0", "abcdef0123450", alike[0]):
        assert looking.shown(process, name).line.id == alike[0]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("abcd", WorkAmbiguous),
        ("abcdef01-2345", WorkAmbiguous),
        ("abc", WrongCall),
        ("", WorkUnknown),
        ("abce", WorkUnknown),
        ("dead-1", WorkUnknown),
        ("text-1", WorkUnknown),
        ("text-", WorkUnknown),
        ("xyz-1", WorkUnknown),
        ("abc-def", WorkUnknown),
        ("abcdef01-2345-0000-0000-000000000001-0", WorkUnknown),
        ("abcdef01%", WorkUnknown),
        ("text-99999999999999999999", WorkUnknown),
    ],
)
def test_names_that_name_nothing_or_too_much(
    process: Process, alike: list[str], name: str, error: type[CrochetError]
) -> None:
    """Each is refused for what is wrong with it, by every command alike."""
    for command in (looking.shown, lambda process, name: operating.retry(process, [name])):
        with pytest.raises(error):
            command(process, name)


# ── looking ─────────────────────────────────────────────────────────────────────────────────────


def test_where_open_work_stands(process: Process, corpus: Corpus) -> None:
    """Open work is ready, published, waiting or parked; the list can be asked for each, or for all that is open."""
    accepted(corpus, "the sea", "the land", "the sky", "the sun")
    ids = [line.id for line in looking.listed(process, corpus=corpus.name).work]
    change = "UPDATE work SET {} WHERE id = CAST(:id AS uuid)"
    steps.sql(process, change.format("published_at = now()"), id=ids[1])
    steps.sql(process, change.format("not_before = now() + interval '1 hour', attempts = 2"), id=ids[2])
    steps.sql(process, change.format("not_before = 'infinity'"), id=ids[3])
    for name, state in zip(ids, ["ready", "published", "waiting", "parked"], strict=True):
        assert [line.id for line in looking.listed(process, corpus=corpus.name, state=state).work] == [name]
        assert looking.shown(process, name).line.state == state
    assert states(process, corpus, state="open") == ["ready", "published", "waiting", "parked"]
    assert status(process, corpus).by_kind == {"ingest": {"ready": 1, "published": 1, "waiting": 1, "parked": 1}}
    assert not status(process, corpus).closed
    assert (status(process, corpus).oldest_open or 0) > 0


def test_the_list_is_bounded_and_says_so(process: Process, corpus: Corpus) -> None:
    """It can be asked for one kind, one corpus and so many."""
    steps.ingest_all(corpus, steps.TEXTS[:2])
    accepted(corpus, "the sea", "the land")
    found = looking.listed(process, most=1)
    assert (len(found.work), found.more) == (1, 1)
    assert states(process, corpus) == ["ready", "ready"]
    assert set(states(process, corpus, state="done", most=1000)) == {"done"}
    assert {line.kind for line in looking.listed(process, kind="context", state="done").work} == {"context"}
    assert looking.listed(process, corpus=steps.new_corpus(process).name).work == []
    with pytest.raises(CorpusUnknown):
        looking.listed(process, corpus="lost")


def test_all_about_a_piece_of_work(process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every try with its error, the text, when it is published next, and who changed its state."""
    (line,) = with_failed(process, corpus, monkeypatch, "ingest.text", "the sea and the land")
    detail = looking.shown(process, line.id)
    assert (detail.line.state, detail.next) == ("failed", "never, unless it is retried")
    (each,) = detail.tries
    assert (each.number, each.error["message"], each.error["type"], each.error["task"]) == (
        1,
        "a bug",
        "Bug",
        "ingest.text",
    )
    assert [(text.kind, text.state) for text in detail.related] == [("text", "failed")]
    assert [entry.what for entry in detail.audit] == ["work.open", "work.failed"]
    (who,) = steps.sql(process, "SELECT current_user")
    assert {entry.who for entry in detail.audit} == set(who)
    about = looking.shown(process, detail.related[0].id)
    assert [other.id for other in about.related] == [line.id]
    assert [entry.what for entry in about.audit] == ["text.accepted", "text.failed"]
    assert about.tries == detail.tries


def test_all_about_a_search(process: Process, corpus: Corpus) -> None:
    """Seeds and grows say what they search."""
    steps.ingest_all(corpus, steps.TEXTS)
    for kind, says in (("seed", "start pairs 0 to"), ("grow", "batch "), ("remediations", "version ")):
        line = looking.listed(process, kind=kind, state="done").work[-1]
        assert says in looking.shown(process, line.id).line.about
        assert looking.shown(process, line.id).next == "never: it is done"


# ── cancel ──────────────────────────────────────────────────────────────────────────────────────


def test_a_cancelled_text_is_never_a_version(process: Process, corpus: Corpus) -> None:
    """Its words are nowhere, the others are versions in their order, and the audit says who cancelled it."""
    names = accepted(corpus, *steps.TEXTS)
    changed = operating.cancel(process, [names[1]])
    assert [(line.id, line.state) for line in changed.changed] == [(names[1], "cancelled")]
    steps.run(corpus)
    assert texts(process, corpus) == [("current", 1), ("cancelled", None), ("current", 2)]
    assert steps.stored(process, corpus) == steps.expected([steps.TEXTS[0], steps.TEXTS[2]])
    assert verify(process, corpus, closure=True) == []
    assert [entry.what for entry in looking.shown(process, names[1]).audit] == ["text.accepted", "text.cancelled"]
    assert states(process, corpus, state="cancelled") == ["cancelled"]
    assert (status(process, corpus).dropped, status(process, corpus).closed) == (0, True)


def test_a_cancelled_text_can_be_given_again(process: Process, corpus: Corpus) -> None:
    """Given or retried, it stands at the end of the line."""
    names = accepted(corpus, *steps.TEXTS)
    operating.cancel(process, names[:2])
    assert accepted(corpus, steps.TEXTS[0]) == [names[0]]
    operating.retry(process, [names[1]])
    steps.run(corpus)
    found = steps.sql(process, "SELECT id FROM texts ORDER BY version")
    assert [naming.text_name(number) for (number,) in found] == [names[2], names[0], names[1]]  # type: ignore[arg-type]
    assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def test_cancelling_is_asked_for_by_the_work_too(process: Process, corpus: Corpus) -> None:
    """And twice is once."""
    (name,) = accepted(corpus, steps.TEXTS[0])
    (line,) = looking.listed(process, corpus=corpus.name).work
    for names in ([line.id[:8]], [line.id, name], [name]):
        assert [changed.state for changed in operating.cancel(process, names).changed] == ["cancelled"]
    assert steps.run(corpus) == []


def test_cancelling_the_first_in_line_gives_the_next_its_turn(process: Process, corpus: Corpus) -> None:
    """Also when that one had come too early and was parked."""
    names = accepted(corpus, *steps.TEXTS)
    steps.sql(process, "UPDATE work SET not_before = 'infinity' WHERE subject <> :first", first=int(names[0][5:]))
    operating.cancel(process, names[:2])
    assert states(process, corpus) == ["ready"]
    steps.run(corpus)
    assert texts(process, corpus) == [("cancelled", None), ("cancelled", None), ("current", 1)]


def test_cancelling_another_one_leaves_the_first_alone(process: Process, corpus: Corpus) -> None:
    """While the first is being ingested, those behind it can be cancelled, at once."""
    names = accepted(corpus, *steps.TEXTS)
    with ingesting(process, corpus):
        began = time.monotonic()
        operating.cancel(process, names[1:])
        assert within(0.4, began)
    steps.run(corpus)
    assert texts(process, corpus) == [("current", 1), ("cancelled", None), ("cancelled", None)]


def test_a_text_that_is_being_ingested_is_started(process: Process, corpus: Corpus) -> None:
    """That is said within a second, while the ingestion goes on; and none of the others is cancelled."""
    names = accepted(corpus, *steps.TEXTS)
    with ingesting(process, corpus):
        began = time.monotonic()
        with pytest.raises(TextStarted, match="being ingested"):
            operating.cancel(process, [names[2], names[0]])
        assert within(1.0, began)
    steps.run(corpus)
    assert [state for state, _ in texts(process, corpus)] == ["current"] * 3


def test_a_text_whose_failure_is_just_noted_is_started(process: Process, corpus: Corpus) -> None:
    """Who notes it holds the work and waits for the text; neither hinders the other for longer than a moment."""
    (name,) = accepted(corpus, steps.TEXTS[0])
    with process.database.transaction() as connection:
        assert outbox.claim(connection, [outbox.ingest(corpus.id, int(name[5:])).id])
        began = time.monotonic()
        with pytest.raises(TextStarted, match="being ingested"):
            operating.cancel(process, [name])
        assert within(1.0, began)
    assert looking.shown(process, name).line.state == "accepted"


def test_a_text_of_which_a_part_is_ingested_is_started(database: str) -> None:
    """Between two parts nobody holds it, but its phrases are there."""
    with app.process(Settings(part_words=3), database) as process:
        corpus = steps.new_corpus(process)
        (name,) = accepted(corpus, steps.TEXTS[0])
        work.publish_next(corpus.id)
        with pytest.raises(TextStarted, match="being ingested"):
            operating.cancel(process, [name])
        steps.run(corpus)
        with pytest.raises(TextStarted, match="is current"):
            operating.cancel(process, [name])


def test_an_ingestion_that_comes_while_a_text_is_cancelled_takes_the_next(process: Process, corpus: Corpus) -> None:
    """It waits for the cancellation, and then for no text that is cancelled."""
    names = accepted(corpus, *steps.TEXTS[:2])
    ids = [int(name[5:]) for name in names]
    with process.database.transaction() as connection:
        row = operators.text_row(connection, ids[0], lock=True)
        assert row is not None
        with running(lambda: work.publish_next(corpus.id)) as ingestion:
            steps.until_blocked(process)
            operators.cancel_text(connection, row)
            publishing.knock(connection, corpus.id)
            connection.commit()
            ingestion.join(SECONDS)
    assert texts(process, corpus) == [("cancelled", None), ("accepted", None)]
    steps.run(corpus)
    assert texts(process, corpus) == [("cancelled", None), ("current", 1)]


def test_the_next_is_not_forgotten_when_its_predecessor_is_cancelled_meanwhile(
    process: Process, corpus: Corpus
) -> None:
    """While a text becomes a version the next is cancelled: the one after it is knocked for, wherever it was parked."""
    names = accepted(corpus, *steps.TEXTS)
    _, second, third = (int(name[5:]) for name in names)
    work.publish_next(corpus.id)
    steps.sql(process, "UPDATE work SET not_before = 'infinity' WHERE subject = :third", third=third)
    with process.database.transaction() as connection:
        row = operators.text_row(connection, second, lock=True)
        assert row is not None
        operators.cancel_text(connection, row)
        with running(lambda: work.publish_next(corpus.id)) as making_the_version:
            steps.until_blocked(process)
            connection.commit()
            making_the_version.join(SECONDS)
    assert steps.version(process, corpus) == 1
    assert states(process, corpus, kind="ingest") == ["ready"]


@contextlib.contextmanager
def running(step: Callable[[], object]) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=step)
    thread.start()
    yield thread
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_only_texts_can_be_cancelled(process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without other work orthos would be missing; nothing is changed, also not the text asked for beside it."""
    (line, *_) = with_failed(process, corpus, monkeypatch, "search.seed", steps.TEXTS[0])
    (name,) = accepted(corpus, "the sea")
    with pytest.raises(WorkNotCancellable, match="seed"):
        operating.cancel(process, [name, line.id])
    assert looking.shown(process, name).line.state == "accepted"


# ── retry ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stage", ["ingest.text", "context.version"])
def test_a_failed_text_is_retried(
    process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """By its work or its name, at the end of the line and with fresh tries."""
    with_failed(process, corpus, monkeypatch, stage, *steps.TEXTS[:2])
    assert [state for state, _ in texts(process, corpus)] == ["failed", "failed"]
    (by_work, *_) = looking.listed(process, corpus=corpus.name, state="failed").work
    (name,) = (related.id for related in looking.shown(process, by_work.id).related)
    (other,) = {line.id for line in operating.retry_all(process, corpus.name).changed} - {name}
    assert states(process, corpus, kind="ingest") == ["ready", "ready"]
    assert {line.tries for line in looking.listed(process, corpus=corpus.name, state="open").work} == {0}
    with pytest.raises(WorkNotFailed, match="is accepted: only what has failed can be retried"):
        operating.retry(process, [other])
    accepted(corpus, steps.TEXTS[2])
    steps.run(corpus)
    assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)
    assert verify(process, corpus, closure=True) == []


@pytest.mark.parametrize("stage", ["remediations.due", "search.seed", "search.grow", "orthos.store"])
def test_failed_work_is_retried(database: str, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """One by one or all at once: afterwards the store holds exactly the closure."""
    with app.process(Settings(batch_orthos=1), database) as process:
        corpus = steps.new_corpus(process)
        failed = with_failed(process, corpus, monkeypatch, stage)
        assert failed
        assert not status(process, corpus).closed
        assert status(process, corpus).by_kind[failed[0].kind]["failed"] >= 1
        opened = operating.retry(process, [failed[0].id])
        assert [(line.id, line.state, line.tries) for line in opened.changed] == [(failed[0].id, "ready", 0)]
        operating.retry_all(process)
        steps.run(corpus)
        assert states(process, corpus) == []
        assert status(process, corpus).closed
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def test_what_has_not_failed_is_not_retried(process: Process, corpus: Corpus) -> None:
    """Neither open work, nor what is done, nor a dead letter; and nothing that was named beside it."""
    (name,) = accepted(corpus, steps.TEXTS[0])
    letter = _letter(process)
    (ready,) = looking.listed(process, corpus=corpus.name).work
    operating.cancel(process, [name])
    steps.ingest_all(corpus, steps.TEXTS[1:2])
    (done, *_) = looking.listed(process, corpus=corpus.name, state="done").work
    for other, state in ((done.id, "done"), (letter, "a dead letter")):
        with pytest.raises(WorkNotFailed, match=f"is {state}: only what has failed can be retried"):
            operating.retry(process, [name, other])
    assert looking.shown(process, ready.id).line.state == "cancelled"


def test_retrying_all_leaves_others_alone(process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of other corpora, what was cancelled, and what was dropped, unless that is asked for."""
    other = steps.new_corpus(process)
    (failed, *_) = with_failed(process, other, monkeypatch, "search.seed", steps.TEXTS[0])
    (dropped, *_) = with_failed(process, corpus, monkeypatch, "search.seed", steps.TEXTS[0])
    operating.drop(process, [dropped.id])
    (name,) = accepted(corpus, "the sea")
    operating.cancel(process, [name])
    assert operating.retry_all(process, corpus.name).changed == []
    assert [line.id for line in operating.retry_all(process, corpus.name, dropped=True).changed] == [dropped.id]
    assert looking.shown(process, name).line.state == "cancelled"
    assert looking.shown(process, failed.id).line.state == "failed"
    with pytest.raises(CorpusUnknown):
        operating.retry_all(process, "lost")


# ── drop ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stage", ["search.seed", "search.grow", "orthos.store"])
def test_dropped_and_retried_the_closure_is_exact(database: str, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """Dropped searches are shown, no corpus that lacks them is called closed, the fsck names it, and nothing is lost.

    Also when a later text was searched meanwhile.
    """
    with app.process(Settings(batch_orthos=2), database) as process:
        corpus = steps.new_corpus(process)
        failed = with_failed(process, corpus, monkeypatch, stage, *steps.TEXTS[:2])
        dropped = operating.drop(process, [line.id for line in failed])
        assert {line.state for line in dropped.changed} == {"cancelled"}
        assert corpus.name in dropped.notes[0]
        steps.ingest_all(corpus, steps.TEXTS[2:])
        now = status(process, corpus)
        assert (now.dropped, now.work["open"], now.work["failed"], now.closed) == (len(failed), 0, 0, False)
        assert steps.stored(process, corpus) != steps.expected(steps.TEXTS)
        said: list[str] = []
        assert verify(process, corpus, closure=True, progress=said.append) == []
        assert any("failed or dropped" in line for line in said)
        operating.retry(process, [line.id for line in failed])
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)
        assert verify(process, corpus, closure=True) == []
        assert (status(process, corpus).dropped, status(process, corpus).closed) == (0, True)


def test_what_a_version_makes_due_cannot_be_dropped(
    process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later versions would search through a window that leaves it out, and no retry would bring that back."""
    (line, *_) = with_failed(process, corpus, monkeypatch, "remediations.due", steps.TEXTS[0])
    with pytest.raises(WorkNotCancellable, match="remediations"):
        operating.drop(process, [line.id])
    assert looking.shown(process, line.id).line.state == "failed"


def test_a_failed_text_is_dropped(process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its work or its name: it counts as cancelled, and can be retried."""
    (line,) = with_failed(process, corpus, monkeypatch, "ingest.text", steps.TEXTS[0])
    (changed,) = operating.drop(process, [line.id]).changed
    assert (changed.kind, changed.state) == ("text", "cancelled")
    assert looking.shown(process, line.id).line.state == "cancelled"
    assert status(process, corpus).closed
    assert [each.error["message"] for each in looking.shown(process, changed.id).tries] == ["a bug"]
    operating.retry(process, [changed.id])
    steps.run(corpus)
    assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[:1])


def test_only_what_has_failed_is_dropped(process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of what is named or none."""
    (line, *_) = with_failed(process, corpus, monkeypatch, "search.seed", steps.TEXTS[0])
    (name,) = accepted(corpus, "the sea")
    letter = _letter(process)
    with pytest.raises(WorkNotFailed, match="only what has failed can be dropped"):
        operating.drop(process, [letter, line.id, name])
    assert looking.shown(process, line.id).line.state == "failed"
    assert looking.shown(process, letter).line.state == "dead"


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
        return f"dead-{dead_letters.every(connection)[-1].id}"


def test_dead_letters_are_listed_shown_and_dropped(process: Process, corpus: Corpus) -> None:
    """Beside work that is open or failed, or alone; a dropped one is gone."""
    first, second = _letter(process), _letter(process)
    assert [line.id for line in looking.listed(process, state="dead").work] == [first, second]
    assert [line.id for line in looking.listed(process).work] == [first, second]
    assert states(process, corpus) == []
    detail = looking.shown(process, first)
    assert (detail.line.kind, detail.details["queue"], detail.details["body"]) == ("message", "search", "\\xffnonsense")
    assert reports.status(process).dead_letters == 2
    with pytest.raises(WorkNotCancellable, match="dead letter"):
        operating.cancel(process, [first])
    assert operating.drop(process, [first]).notes == []
    assert [line.id for line in looking.listed(process).work] == [second]
    with pytest.raises(WorkUnknown):
        operating.drop(process, [first])


# ── status and watching ─────────────────────────────────────────────────────────────────────────


def test_rates_count_between_two_looks(process: Process, corpus: Corpus) -> None:
    """The first look has none."""
    looks = looking.looks(process, 0.01, lambda _: None)
    assert [each.rate for each in next(looks).corpora] == [None]
    steps.ingest_all(corpus, steps.TEXTS)
    (seen,) = next(looks).corpora
    assert (seen.rate or 0) > 0
    (still,) = next(looks).corpora
    assert still.rate == 0


def test_watching_outlasts_a_database_that_is_away(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is said once; what waiting does not mend ends it."""
    errors: list[CrochetError] = [DatabaseUnavailable(reason="a test")] * 3
    look = reports.status

    def away(process: Process) -> Status:
        if errors:
            raise errors.pop()
        return look(process)

    monkeypatch.setattr(reports, "status", away)
    notes: list[str] = []
    looks = looking.looks(process, 0.01, notes.append)
    assert next(looks).corpora == []
    assert len(notes) == 1
    errors.append(DatabaseRefused(reason="a test"))
    with pytest.raises(DatabaseRefused):
        next(looks)


def test_a_broker_that_is_away_is_no_error(database: str) -> None:
    """Its queues are unknown, and why is said."""
    settings = Settings(broker_url="amqp://guest:guest@127.0.0.1:1//", publish_timeout=1.0)  # type: ignore[arg-type]
    with app.process(settings, database) as process:
        seen = reports.status(process)
        assert (seen.broker, seen.queues) == ("unknown", {})
        assert "refused" in (seen.broker_problem or "")


# ── handing in ──────────────────────────────────────────────────────────────────────────────────


def test_handing_in_needs_a_shared_database() -> None:
    """A private one has no workers beside the command."""
    with pytest.raises(SettingMissing, match="CROCHET_DATABASE_URL"):
        accepting.hand_in(Settings(), accepting.Request([], "main", {}, wait=False), lambda _: None)


def test_waiting_ends_when_all_is_done(process: Process, corpus: Corpus) -> None:
    """The texts are versions, and what they made due is searched; progress is shown meanwhile."""
    ids = [int(name[5:]) for name in accepted(corpus, *steps.TEXTS)]
    seen: list[Progress] = []
    with running(lambda: accepting.until_done(process, corpus.id, ids, seen.append, lambda _: None)) as waiting:
        while not seen:
            time.sleep(0.01)
        for _ in iter(lambda: work.publish_next(corpus.id), []):
            assert waiting.is_alive()
    assert (seen[0].version, seen[-1].version, seen[-1].work.open) == (0, 3, 0)
    assert seen[-1].total == sum(steps.expected(steps.TEXTS).values())


def test_waiting_ends_for_texts_that_fail_and_are_cancelled(
    process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed is reported as by a run: the text first."""
    failing(monkeypatch, "ingest.text")
    one, other = (int(name[5:]) for name in accepted(corpus, *steps.TEXTS[:2]))
    operating.cancel(process, [naming.text_name(other)])
    run_on(corpus)
    accepting.until_done(process, corpus.id, [one, other], lambda _: None, lambda _: None)
    with process.database.transaction() as connection:
        error = accepting.failure(connection, corpus, {one: "one.txt", other: "other.txt"})
    assert (error.code, str(error)) == ("text_failed", "one.txt could not be ingested: a bug") if error else False


def test_waiting_ends_behind_work_that_failed(
    process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a later version makes due stays open while that of an older one has failed: nobody waits for it."""
    with_failed(process, corpus, monkeypatch, "remediations.due", steps.TEXTS[0])
    ids = [int(name[5:]) for name in accepted(corpus, steps.TEXTS[1])]
    steps.run(corpus)
    assert status(process, corpus).work["open"] == 1
    accepting.until_done(process, corpus.id, ids, lambda _: None, lambda _: None)
    with process.database.transaction() as connection:
        error = accepting.failure(connection, corpus, {})
    assert error is not None
    assert error.code == "work_failed"


def test_waiting_survives_a_database_that_restarts(tmp_path: Any, migrated: str) -> None:
    """It is said once each time, and the waiting goes on."""
    from crochet_tasks.db import schema
    from crochet_tasks.db.sessions import Database

    notes: list[str] = []
    seen: list[Progress] = []
    server = EmbeddedPostgres(tmp_path / "state")
    with server as started:
        url = started.url
        database = Database(url, Settings())
        schema.migrate(database)
        database.close()
    with app.process(Settings(), url) as process:
        with EmbeddedPostgres(tmp_path / "state"):
            corpus = steps.new_corpus(process)
            (number,) = (int(name[5:]) for name in accepted(corpus, steps.TEXTS[0]))
            thread = threading.Thread(
                target=lambda: accepting.until_done(process, corpus.id, [number], seen.append, notes.append)
            )
            thread.start()
            _until(lambda: bool(seen))
        _until(lambda: bool(notes))
        time.sleep(1.0)
        with EmbeddedPostgres(tmp_path / "state"):
            before = len(seen)
            _until(lambda: len(seen) > before)
            steps.run(corpus)
            thread.join(SECONDS)
            assert not thread.is_alive()
    assert len(notes) == 1
    assert "does not answer" in notes[0]


def _until(met: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not met():
        assert time.monotonic() < end
        time.sleep(0.01)
