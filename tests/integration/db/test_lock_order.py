"""Who locks several rows locks them in one order: no transaction waits for one that waits for it (ADR 0079).

Here one transaction has the first row in that order, and another one comes: while it waits it has locked nothing yet.
"""

from __future__ import annotations

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
    "release_all": ("search", PUBLISHED, lambda connection, items: publishing.release_all(connection, _corpus(items))),
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


def _remove(connection: Connection) -> int:
    (rule,) = (rule for rule in retention.RULES if rule.what == "work")
    return retention.remove_some(connection, rule, 1.0).rows


def _written(process: Process, corpus: Corpus, kind: str, values: str) -> list[Item]:
    """Work in the order of its ids, written in the opposite one."""
    made: Callable[[int], Item] = {
        "search": lambda number: outbox.search(corpus.id, 0, 1, (number, number + 1)),
        "remediations": lambda number: outbox.remediations(corpus.id, number + 1),
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
    """It waits for nobody; each look does what it can."""
    kind, values, step = PASS[what]
    items = _written(process, corpus, kind, values)
    with process.database.transaction() as first:
        first.execute(text("SELECT FROM work WHERE id = :id FOR UPDATE"), {"id": items[0].id})
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
