"""What operators see: names of work, lists, all about one piece of it, and the status again and again."""

from __future__ import annotations

import pytest

from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.errors import (
    CorpusUnknown,
    CrochetError,
    DatabaseRefused,
    DatabaseUnavailable,
    WorkAmbiguous,
    WorkUnknown,
    WrongCall,
)
from crochet_tasks.operate import actions, inspection
from crochet_tasks.reporting import reports
from crochet_tasks.schemas.reports import Status
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.failing_work import accepted, states, status, with_failed

pytestmark = pytest.mark.integration


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
        assert inspection.details(process, name).line.id == alike[2]
    for name in ("abcdef01-2345-0", "abcdef0123450", alike[0]):
        assert inspection.details(process, name).line.id == alike[0]


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
    for command in (inspection.details, lambda process, name: actions.retry(process, [name])):
        with pytest.raises(error):
            command(process, name)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────


def test_where_open_work_stands(process: Process, corpus: Corpus) -> None:
    """Open work is ready, published, waiting or parked; the list can be asked for each, or for all that is open."""
    accepted(corpus, "the sea", "the land", "the sky", "the sun")
    ids = [line.id for line in inspection.listed(process, corpus=corpus.name).work]
    change = "UPDATE work SET {} WHERE id = CAST(:id AS uuid)"
    steps.sql(process, change.format("published_at = now()"), id=ids[1])
    steps.sql(process, change.format("not_before = now() + interval '1 hour', attempts = 2"), id=ids[2])
    steps.sql(process, change.format("not_before = 'infinity'"), id=ids[3])
    for name, state in zip(ids, ["ready", "published", "waiting", "parked"], strict=True):
        assert [line.id for line in inspection.listed(process, corpus=corpus.name, state=state).work] == [name]
        assert inspection.details(process, name).line.state == state
    assert states(process, corpus, state="open") == ["ready", "published", "waiting", "parked"]
    assert status(process, corpus).by_kind == {"ingest": {"ready": 1, "published": 1, "waiting": 1, "parked": 1}}
    assert not status(process, corpus).closed
    assert (status(process, corpus).oldest_open or 0) > 0
    steps.sql(process, "UPDATE work SET state = 'cancelled', finished_at = now()")
    assert status(process, corpus).oldest_open is None


def test_the_list_is_bounded_and_says_so(process: Process, corpus: Corpus) -> None:
    """It can be asked for one kind, one corpus and so many."""
    steps.ingest_all(corpus, steps.TEXTS[:2])
    accepted(corpus, "the sea", "the land")
    found = inspection.listed(process, most=1)
    assert (len(found.work), found.more) == (1, 1)
    assert states(process, corpus) == ["ready", "ready"]
    assert set(states(process, corpus, state="done", most=1000)) == {"done"}
    assert {line.kind for line in inspection.listed(process, kind="context", state="done").work} == {"context"}
    assert inspection.listed(process, corpus=steps.new_corpus(process).name).work == []
    with pytest.raises(CorpusUnknown):
        inspection.listed(process, corpus="lost")


def test_all_about_a_piece_of_work(process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every try with its error, the text, when it is published next, and who changed its state."""
    (line,) = with_failed(process, corpus, monkeypatch, "ingest.text", "the sea and the land")
    detail = inspection.details(process, line.id)
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
    about = inspection.details(process, detail.related[0].id)
    assert [other.id for other in about.related] == [line.id]
    assert [entry.what for entry in about.audit] == ["text.accepted", "text.failed"]
    assert about.tries == detail.tries


def test_all_about_a_search(process: Process, corpus: Corpus) -> None:
    """Searches say what they search."""
    steps.ingest_all(corpus, steps.TEXTS)
    for kind, says in (("search", "starts 0 to"), ("remediations", "version ")):
        line = inspection.listed(process, kind=kind, state="done").work[-1]
        assert says in inspection.details(process, line.id).line.about
        assert inspection.details(process, line.id).next == "never: it is done"


# ── status and watching ─────────────────────────────────────────────────────────────────────────


def test_the_rate_is_that_of_the_statistics(process: Process, corpus: Corpus) -> None:
    """In the first poll as in any other: no state is kept between them."""
    assert [each.rate for each in next(inspection.poll_status(process, 0.01, lambda _: None)).corpora] == [0]
    steps.ingest_all(corpus, steps.TEXTS)
    for _ in range(2):
        (seen,) = next(inspection.poll_status(process, 0.01, lambda _: None)).corpora
        assert seen.rate == seen.statistics.paces[0].orthos_per_second == round(seen.total / 60, 3) > 0


def test_watching_outlasts_a_database_that_is_away(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported once; an error that is not an outage ends it."""
    errors: list[CrochetError] = [DatabaseUnavailable(reason="a test")] * 3
    read_status = reports.status

    def away(process: Process) -> Status:
        if errors:
            raise errors.pop()
        return read_status(process)

    monkeypatch.setattr(reports, "status", away)
    notes: list[str] = []
    polls = inspection.poll_status(process, 0.01, notes.append)
    assert next(polls).corpora == []
    assert len(notes) == 1
    errors.append(DatabaseRefused(reason="a test"))
    with pytest.raises(DatabaseRefused):
        next(polls)


def test_a_broker_that_is_away_is_no_error(database: str) -> None:
    """Its queues are unknown, with the reason."""
    settings = Settings(broker_url="amqp://guest:guest@127.0.0.1:1//", publish_timeout=1.0)  # type: ignore[arg-type]
    with open_process(settings, database) as process:
        seen = reports.status(process)
        assert (seen.broker, seen.queues) == ("unknown", {})
        assert "refused" in (seen.broker_problem or "")
