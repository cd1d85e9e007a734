"""Who locks several rows locks them in one order: no transaction waits for one that waits for it (ADR 0079).

Here one transaction has the first row in that order, and another one comes: while it waits it has locked nothing yet.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, text

from crochet_tasks.db import attempts, best, operators, outbox, publishing, quotas, removal, retention
from crochet_tasks.db.best import Job, Question
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.process import Process
from crochet_tasks.engine.best.shapes import Scope
from crochet_tasks.errors import NotFound, TextStarted
from crochet_tasks.operate import actions, cancelling
from tests.support import steps
from tests.support.failing_work import accepted, running

pytestmark = pytest.mark.integration


@pytest.fixture
def corpus(process: Process) -> Corpus:
    return steps.new_corpus(process)


Step = Callable[[Connection, list[Item]], object]

PUBLISHED = "state = 'open', published_at = clock_timestamp() - interval '1 h'"
FAILED = "state = 'failed', error = '{}'"
OPEN = "state = 'open'"
HELD = "state = 'open', not_before = 'infinity'"
DONE = "state = 'done', finished_at = clock_timestamp() - interval '99 d'"


WAIT: dict[str, tuple[str, str, Step]] = {
    "claim": ("search", PUBLISHED, lambda connection, items: outbox.claim(connection, _ids(items))),
    "republish": ("search", PUBLISHED, lambda connection, items: publishing.republish(connection, _ids(items))),
    "unstamp": ("search", PUBLISHED, lambda connection, items: publishing.unstamp(connection, _ids(items))),
    "cancel_items": ("search", PUBLISHED, lambda connection, items: operators.cancel_items(connection, _ids(items))),
    "cancel_open": (
        "search",
        PUBLISHED,
        lambda connection, items: operators.cancel_open(connection, _corpus(items), ["search"], 9),
    ),
    "drop": ("search", FAILED, lambda connection, items: operators.drop(connection, _ids(items))),
    "reopen": ("search", FAILED, lambda connection, items: attempts.reopen(connection, _ids(items))),
    "reopen_failed": ("search", FAILED, lambda connection, items: attempts.reopen_failed(connection, _corpus(items))),
    "fail": ("search", PUBLISHED, lambda connection, items: attempts.fail(connection, _ids(items), {})),
    "delete_some": ("search", FAILED, lambda connection, items: removal.delete_some(connection, _corpus(items))),
    "waiting_versions": (
        "remediations",
        PUBLISHED,
        lambda connection, items: outbox.waiting_versions(connection, _corpus(items)),
    ),
    "best.stop": ("best", PUBLISHED, lambda connection, items: best.stop(connection, _job(items))),
    "best.end_parts": ("best", PUBLISHED, lambda connection, items: best.end_parts(connection, _job(items))),
}
PASS: dict[str, tuple[str, str, Step]] = {
    "release_overdue": (
        "search",
        PUBLISHED,
        lambda connection, _: publishing.release_overdue(connection, 5, ["search"]),
    ),
    "release_all": ("search", PUBLISHED, lambda connection, items: _released(connection, _corpus(items))),
    "take_next": ("search", OPEN, lambda connection, _: publishing.take_next(connection, None)),
    "hold_searches": ("search", HELD, lambda connection, _: publishing.hold_searches(connection)),
    "remove_some": ("search", DONE, lambda connection, _: _remove(connection)),
}


def _corpus(items: list[Item]) -> int:
    return items[0].corpus


def _job(items: list[Item]) -> Job:
    return Job(items[0].subject, _corpus(items), Question(1, Scope(2, 2, 4), None), 1, None)


def _ids(items: list[Item]) -> list[uuid.UUID]:
    return [item.id for item in items]


def _released(connection: Connection, corpus: int) -> int:
    publishing.release_all(connection, corpus)
    return len(connection.execute(text("SELECT FROM work WHERE published_at IS NULL")).all())


def _remove(connection: Connection) -> int:
    (rule,) = (rule for rule in retention.RULES if rule.what == "work")
    return retention.remove_some(connection, rule, 1.0).rows


def _remediations(corpus: Corpus) -> list[Item]:
    """Five, of which the one with the lowest id is of the last version."""
    last = min((outbox.remediations(corpus.id, version) for version in range(100, 200)), key=lambda item: item.id)
    before = (outbox.remediations(corpus.id, version) for version in range(1, 100))
    return [last, *itertools.islice((item for item in before if item.id > last.id), 4)]


def _written(process: Process, corpus: Corpus, kind: str, values: str) -> list[Item]:
    """Work in the order of its ids, written in the opposite one."""
    made: Callable[[int], Item] = {
        "search": lambda number: outbox.search(corpus.id, 0, 1, (number, number + 1)),
        "remediations": lambda number: _remediations(corpus)[number],
        "best": lambda number: outbox.best(corpus.id, 1, 1, "2x2", (number, number + 1)),
    }[kind]
    items = sorted((made(number) for number in range(5)), key=lambda item: item.id)
    for item in reversed(items):
        with process.database.transaction() as connection:
            outbox.add(connection, [item])
            connection.execute(text(f"UPDATE work SET {values} WHERE id = :id"), {"id": item.id})
    return items


FREE = "SELECT id FROM work ORDER BY id FOR UPDATE SKIP LOCKED"


@pytest.mark.parametrize("what", WAIT)
def test_work_is_locked_in_the_order_of_its_ids(
    process: Process, corpus: Corpus, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, values, step = WAIT[what]
    monkeypatch.setattr(removal, "LOCK_WAIT", "1min")
    items = _written(process, corpus, kind, values)

    def other() -> None:
        with process.database.transaction() as connection:
            step(connection, items)

    with process.database.transaction() as first:
        first.execute(text("SELECT FROM work WHERE id = :id FOR UPDATE"), {"id": items[0].id})
        with running(other):
            steps.until_blocked(process)
            assert list(first.execute(text(FREE)).scalars()) == _ids(items)
            first.rollback()


@pytest.mark.parametrize("what", PASS)
def test_the_relay_passes_over_work_that_is_locked(process: Process, corpus: Corpus, what: str) -> None:
    """It waits for no other transaction; each look does what it can."""
    kind, values, step = PASS[what]
    items = _written(process, corpus, kind, values)
    with process.database.transaction() as first:
        oldest = text("SELECT FROM work WHERE id = :id FOR UPDATE")  # what each of them would take first
        first.execute(oldest, {"id": items[-1].id})
        with process.database.transaction() as relay:
            relay.execute(text("SET LOCAL lock_timeout = '1ms'"))
            assert step(relay, items)
            relay.rollback()


def test_full_tenants_are_marked_without_a_wait(process: Process) -> None:
    steps.sql(process, "UPDATE tenants SET full_at = clock_timestamp()")
    full = "SELECT count(*) FROM tenants WHERE full_at IS NOT NULL"
    with process.database.transaction() as first:
        first.execute(text("SELECT FROM tenants FOR UPDATE"))
        with process.database.transaction() as relay:
            relay.execute(text("SET LOCAL lock_timeout = '1ms'"))
            quotas.mark_full(relay)
    assert steps.sql(process, full) == [(1,)]
    with process.database.transaction() as relay:
        quotas.mark_full(relay)
    assert steps.sql(process, full) == [(0,)]


# ── jobs before their work ────────────────────────────────────────────────────────────────────────

OF_JOBS: dict[str, Callable[[Process, Corpus, list[str]], object]] = {
    "reopen_failed": lambda process, corpus, _: _changed(process, attempts.reopen_failed, corpus),
    "delete_some": lambda process, corpus, _: _changed(process, removal.delete_some, corpus),
    "retry": lambda process, _, names: actions.retry(process, names),
    "retry_all": lambda process, corpus, _: actions.retry_all(process, corpus.name),
    "drop": lambda process, _, names: actions.drop(process, names),
    "cancel_all": lambda process, corpus, _: cancelling.cancel_all(process, corpus.name),
}


def _changed(process: Process, change: Callable[[Connection, int], object], corpus: Corpus) -> None:
    with process.database.transaction() as connection:
        change(connection, corpus.id)


def _job_with_parts(process: Process, corpus: Corpus, values: str) -> tuple[Job, list[str]]:
    made = "INSERT INTO best (corpus, version, max_side) VALUES (:c, 1, 8) RETURNING id"
    ((number,),) = steps.sql(process, made, c=corpus.id)
    assert isinstance(number, int)
    items = [outbox.best(corpus.id, number, 1, "2x2", (first, first + 1)) for first in range(3)]
    with process.database.transaction() as connection:
        outbox.add(connection, items)
        connection.execute(text(f"UPDATE work SET {values}"))
        job = best.read(connection, number)
    assert job
    return job, [str(item.id) for item in items]


@pytest.mark.parametrize("what", OF_JOBS)
def test_a_job_is_locked_before_its_work(
    process: Process, corpus: Corpus, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a part that is done, which goes on to the others of its job."""
    monkeypatch.setattr(removal, "LOCK_WAIT", "1min")
    monkeypatch.setattr(operators, "LOCK_WAIT", "1min")
    job, names = _job_with_parts(process, corpus, PUBLISHED if what == "cancel_all" else FAILED)
    with process.database.transaction() as part:
        assert best.read(part, job.id, lock=True)
        with running(lambda: OF_JOBS[what](process, corpus, names)):
            steps.until_blocked(process)
            assert len(part.execute(text(FREE)).all()) == len(names)
            part.rollback()


def test_a_part_is_retried_by_its_state_when_its_job_is_locked(process: Process, corpus: Corpus) -> None:
    """Stopped meanwhile, the job is planned anew: alone the part would end, and nothing would come after it."""
    job, names = _job_with_parts(process, corpus, FAILED)
    with process.database.transaction() as connection:
        assert best.read(connection, job.id, lock=True)
        with running(lambda: actions.retry(process, names[:1])):
            steps.until_blocked(process)
            best.stop(connection, job)
            connection.commit()
    assert steps.sql(process, "SELECT part IS NULL FROM work WHERE state = 'open'") == [(True,)]


def test_work_of_a_job_that_was_deleted_is_not_retried_and_ends(process: Process, corpus: Corpus) -> None:
    """It would be published again without end."""
    job, names = _job_with_parts(process, corpus, FAILED)
    steps.sql(process, "DELETE FROM best WHERE id = :id", id=job.id)
    with pytest.raises(NotFound, match="no search for the best any more for work"):
        actions.retry(process, names[:1])
    steps.sql(process, "UPDATE work SET state = 'open', error = NULL")
    steps.run(corpus)
    assert steps.sql(process, "SELECT DISTINCT state FROM work") == [("cancelled",)]


def test_old_jobs_are_deleted_with_what_has_failed(
    process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its work is cancelled; that of jobs that are kept stays, and a job of which some is open."""
    monkeypatch.setattr(best, "KEPT", 1)
    old, _ = _job_with_parts(process, corpus, FAILED)
    newest = [Question(version, Scope(2, 2, 4), None) for version in (2, 3)]
    with process.database.transaction() as connection:
        numbers = [best.ask(connection, corpus.id, question) for question in newest]
        assert best.read(connection, old.id) is None
        assert [job.id for job in best.lock(connection, [old.id, *numbers])] == numbers[-1:]
    assert steps.sql(process, "SELECT DISTINCT state FROM work") == [("cancelled",)]


# ── texts ─────────────────────────────────────────────────────────────────────────────────────────


def test_who_waits_for_the_next_text_in_line_says_so(
    process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation of the first and the third waits for the second, which another one may have: it begins again."""
    monkeypatch.setattr(operators, "LOCK_WAIT", "1ms")
    monkeypatch.setattr(cancelling, "ORDER_WAIT", "1ms")
    names = accepted(corpus, *steps.TEXTS[:3])
    with process.database.transaction() as holder:
        holder.execute(text("SELECT FROM texts WHERE id = :id FOR UPDATE"), {"id": int(names[1][5:])})
        with pytest.raises(TextStarted):
            cancelling.cancel(process, [names[0], names[2]])
    assert [line.state for line in cancelling.cancel(process, [names[0], names[2]]).changed] == ["cancelled"] * 2


@pytest.mark.parametrize("how", ["cancel", "cancel the first", "drop"])
def test_all_work_of_texts_is_locked_in_one_order(
    process: Process, corpus: Corpus, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the deletion of the corpus; with that of the next text in line."""
    monkeypatch.setattr(operators, "LOCK_WAIT", "1min")
    names = accepted(corpus, *steps.TEXTS[:3])
    if how == "drop":
        steps.sql(process, "UPDATE texts SET state = 'failed', error = '{}'")
        steps.sql(process, "UPDATE work SET state = 'failed', error = '{}'")
    chosen = names[:1] if how == "cancel the first" else names[:2]
    touched = names[:2] if how == "cancel the first" else names[: 2 if how == "drop" else 3]
    ids = sorted(outbox.ingest(corpus.id, int(name[5:])).id for name in touched)
    with process.database.transaction() as holder:
        holder.execute(text("SELECT FROM work WHERE id = :id FOR UPDATE"), {"id": ids[0]})
        change = actions.drop if how == "drop" else cancelling.cancel
        with running(lambda: change(process, chosen)):
            steps.until_blocked(process)
            assert len(holder.execute(text(FREE)).all()) == len(names)
            holder.rollback()


@pytest.mark.parametrize("how", ["cancel", "drop", "delete"])
def test_texts_are_locked_in_the_order_of_acceptance(
    process: Process, corpus: Corpus, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a text that is cancelled, or that became a version, the next one in line is locked (schedule 51248)."""
    monkeypatch.setattr(removal, "LOCK_WAIT", "1min")
    monkeypatch.setattr(operators, "LOCK_WAIT", "1min")
    names = accepted(corpus, *steps.TEXTS[:2])
    cancelling.cancel(process, names[:1])
    accepted(corpus, steps.TEXTS[0])  # now it is the last one
    if how == "drop":
        steps.sql(process, "UPDATE texts SET state = 'failed', error = '{}'")
    if how == "delete":
        steps.sql(process, "DELETE FROM work")

    def other() -> None:
        if how == "delete":
            with process.database.transaction() as connection:
                assert removal.delete_some(connection, corpus.id)
        else:
            {"cancel": cancelling.cancel, "drop": actions.drop}[how](process, names)

    last, first = (int(name[5:]) for name in names)
    with process.database.transaction() as holder:
        holder.execute(text("SELECT FROM texts WHERE id = :id FOR UPDATE"), {"id": first})
        with running(other):
            steps.until_blocked(process)
            free = "SELECT id FROM texts ORDER BY seq FOR UPDATE SKIP LOCKED"
            assert list(holder.execute(text(free)).scalars()) == [first, last]
            holder.rollback()
