"""The store: what people read in it, the audit, and the outbox."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from crochet_tasks.db import attempts, outbox, publishing, retention, tally
from crochet_tasks.db.attempts import Pauses
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.process import Process
from crochet_tasks.db.tally import Change
from tests.support import steps

pytestmark = pytest.mark.integration


# ── counters ─────────────────────────────────────────────────────────────────────────────────────


def test_counters_add_up(process: Process) -> None:
    """Counters are changed by the given differences, up and down, for new and known shapes."""
    corpus = steps.new_corpus(process)
    with process.database.transaction() as connection:
        tally.count(connection, corpus.id, {(2, 2): Change(5, 2), (2, 3): Change(1, 1)})
        tally.count(connection, corpus.id, {(2, 2): Change(0, -1), (3, 3): Change(4, 1)})
        tally.count(connection, corpus.id, {})
        counted = tally.counted(connection, corpus.id)
        assert counted == {(2, 2): (5, 1), (2, 3): (1, 1), (3, 3): (4, 1)}
        assert tally.total(connection, corpus.id) == 10


# ── the audit ───────────────────────────────────────────────────────────────────────────────────


def test_audit_tells_the_states(process: Process) -> None:
    """Every state that a text and its work were in is in the audit, in order."""
    corpus = steps.new_corpus(process)
    steps.accept(corpus, "the seas")
    steps.run(corpus)
    rows = steps.sql(process, "SELECT what, before->>'state', after->>'version' FROM audit ORDER BY id")
    assert [row for row in rows if str(row[0]).startswith("text")] == [
        ("text.accepted", None, None),
        ("text.ingested", "accepted", None),
        ("text.current", "ingested", "1"),
    ]
    trail = "SELECT what FROM audit JOIN work ON audit.subject = 'work ' || work.id WHERE kind = :k ORDER BY audit.id"
    for kind in ("ingest", "context", "remediations", "search"):
        assert steps.sql(process, trail, k=kind) == [("work.open",), ("work.done",)]


def test_audit_tells_of_failures(process: Process, corpus: int) -> None:
    """Every try that failed is in the audit, and what an operator did about it."""
    item = search(corpus, 1)
    add(process, item)
    with process.database.transaction() as connection:
        attempts.record(connection, [item.id], {"code": "one"}, Pauses(2, 1, 1), later=True)
        attempts.record(connection, [item.id], {"code": "two"}, Pauses(2, 1, 1), later=True)
        attempts.reopen(connection, [item.id])
    rows = steps.sql(process, "SELECT what, after->'error'->>'code' FROM audit WHERE subject LIKE 'work%' ORDER BY id")
    assert rows == [("work.open", None), ("work.postponed", "one"), ("work.failed", "two"), ("work.open", "two")]


@pytest.mark.parametrize("change", ["UPDATE audit SET who = 'me'", "DELETE FROM audit", "TRUNCATE audit"])
def test_audit_is_append_only(process: Process, change: str) -> None:
    """The audit cannot be changed."""
    steps.accept(steps.new_corpus(process), "the seas")
    with pytest.raises(DBAPIError, match="append only"):
        steps.sql(process, change)


# ── the outbox ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def corpus(process: Process) -> int:
    return steps.new_corpus(process).id


def add(process: Process, *items: Item) -> None:
    for item in items:  # one by one: the outbox keeps the order in which work came
        with process.database.transaction() as connection:
            outbox.add(connection, [item])


def take(process: Process, corpus: int) -> int | None:
    """The first start of the search that is taken next, or the subject of other work."""
    with process.database.transaction() as connection:
        taken = publishing.take_next(connection, corpus)
    return None if taken is None else taken.item.part[0] if taken.item.part else taken.item.subject


def search(corpus: int, first: int, version: int = 1) -> Item:
    return outbox.search(corpus, version - 1, version, (first, first + 1))


def test_ordered_stages_go_first(process: Process, corpus: int) -> None:
    """The stages that make versions come before searches, and what is left over before new starts."""
    add(process, search(corpus, 1), search(corpus, 2), outbox.search(corpus, 0, 3, b"boxes"))
    add(process, outbox.remediations(corpus, 4), outbox.ingest(corpus, 5), outbox.context(corpus, 6))
    assert [take(process, corpus) for _ in range(7)] == [6, 5, 4, 3, 1, 2, None]


def test_left_over_boxes_are_read_once_and_kept_until_they_are_searched(process: Process, corpus: int) -> None:
    """Only the search itself reads them; done, they take no room."""
    item = outbox.search(corpus, 0, 1, b"boxes")
    add(process, item)
    with process.database.transaction() as connection:
        (claimed,) = outbox.claim(connection, [item.id])
        assert (claimed.part, claimed.boxes, outbox.boxes(connection, item)) == (None, None, b"boxes")
        outbox.done(connection, [item.id])
        assert outbox.boxes(connection, item) == b""


def test_taken_is_stamped(process: Process, corpus: int) -> None:
    """What was taken is stamped and not taken again, until it is handed back or found abandoned."""
    item = search(corpus, 1)
    add(process, item)
    assert take(process, corpus) == 1
    assert take(process, corpus) is None
    assert steps.sql(process, "SELECT published_at IS NOT NULL FROM work") == [(True,)]
    with process.database.transaction() as connection:
        publishing.republish(connection, [item.id])
    assert take(process, corpus) == 1
    with process.database.transaction() as connection:
        publishing.release_all(connection, corpus)
    assert take(process, corpus) == 1


def test_work_that_waits_for_a_retry_is_not_taken_early(process: Process, corpus: int) -> None:
    """Work that waits for a later try is not taken before its time."""
    add(process, search(corpus, 1), search(corpus, 2))
    steps.sql(process, "UPDATE work SET not_before = now() + interval '1 hour' WHERE lower(part) = 1")
    assert [take(process, corpus), take(process, corpus)] == [2, None]
    steps.sql(process, "UPDATE work SET not_before = now() - interval '1 hour'")
    assert take(process, corpus) == 1


def test_done_stays_done(process: Process, corpus: int) -> None:
    """What is done is neither taken, handed back, failed nor claimed any more."""
    item = search(corpus, 1)
    add(process, item)
    with process.database.transaction() as connection:
        outbox.done(connection, [item.id])
        publishing.republish(connection, [item.id])
        publishing.release_all(connection, corpus)
        attempts.fail(connection, [item.id], {"code": "internal"})
        assert outbox.claim(connection, [item.id]) == outbox.opened(connection, [item.id]) == []
        assert tally.states(connection, corpus) == (0, 1, 0)
    assert take(process, corpus) is None


def test_pauses_grow_and_end(process: Process, corpus: int) -> None:
    """A temporary error backs off about twice as long each time, and fails permanently after so many attempts."""
    item = search(corpus, 1)
    add(process, item)
    pauses = []
    for attempt in range(1, 6):
        take(process, corpus)
        with process.database.transaction() as connection:
            failed = attempts.record(connection, [item.id], {"code": "away"}, Pauses(5, 10, 35), later=True)
        assert [each.id for each in failed] == ([item.id] if attempt == 5 else [])
        query = "SELECT extract(epoch FROM not_before - clock_timestamp()), attempts, published_at FROM work"
        ((pause, attempts_made, published),) = steps.sql(process, query)
        assert (attempts_made, published) == (attempt, None)
        assert take(process, corpus) is None
        pauses.append(pause)
    for pause, middle in zip(pauses[:4], (10, 20, 35, 35), strict=True):
        assert 0.5 * middle - 1 < float(str(pause)) <= 1.5 * middle
    assert pauses[4] is None
    assert steps.sql(process, "SELECT number, error->>'code' FROM attempts ORDER BY id") == [
        (number, "away") for number in range(1, 6)
    ]


def test_a_message_is_noted_once(process: Process, corpus: int) -> None:
    """Whether the outcome of a message was recorded with its work, or no longer applies to it."""
    items = [search(corpus, first).id for first in (1, 2)]
    add(process, search(corpus, 1), search(corpus, 2))
    with process.database.transaction() as connection:
        attempts.record(connection, items[:1], {"code": "bug", "message_id": "m"}, Pauses(5, 1, 1), later=True)
        now = datetime.now(UTC)
        assert attempts.settled(connection, items, "m", now) == {items[0]}
        assert attempts.settled(connection, items, "n", now) == set()
        attempts.fail(connection, [items[1]], {"code": "bug"})
        attempts.reopen(connection, [items[1]])
        assert attempts.settled(connection, items, "n", now) == {items[1]}


def test_what_rested_is_taken_when_due(process: Process, corpus: int) -> None:
    """Work that may succeed later is published again when its time has come, and not before."""
    item = search(corpus, 1)
    add(process, item)
    with process.database.transaction() as connection:
        attempts.record(connection, [item.id], {"code": "away"}, Pauses(5, 3600, 3600), later=True)
    assert take(process, corpus) is None
    steps.sql(process, "UPDATE work SET not_before = not_before - interval '1 h'")
    assert take(process, corpus) == 1


def test_overdue_work_is_published_again(process: Process, corpus: int) -> None:
    """What was published long ago and is not done is taken again; what was published just now is not."""
    add(process, search(corpus, 1), search(corpus, 2))
    assert take(process, corpus) == 1
    steps.sql(process, "UPDATE work SET published_at = published_at - interval '10 s'")
    assert take(process, corpus) == 2
    with process.database.transaction() as connection:
        assert publishing.release_overdue(connection, 5, ["ingest"]) == 0
        assert publishing.release_overdue(connection, 5, ["ingest", "search"]) == 1
    assert take(process, corpus) == 1


def test_published_work_is_bounded(process: Process, corpus: int) -> None:
    """No more searches are taken than may be published at the same time; ordered stages always are."""
    add(process, *(search(corpus, first) for first in (1, 2, 3)))
    with process.database.transaction() as connection:
        first, second, third = (publishing.take_next(connection, corpus, 2) for _ in range(3))
        assert first
        assert second
        assert third is None
        outbox.add(connection, [outbox.remediations(corpus, 1)])
        assert publishing.take_next(connection, corpus, 2)
        outbox.done(connection, [first.item.id])
        assert publishing.take_next(connection, corpus, 2)


def test_failed_stays_visible(process: Process, corpus: int) -> None:
    """Failed work keeps its error and is not published until an operator opens it again."""
    item = search(corpus, 1)
    add(process, item)
    with process.database.transaction() as connection:
        attempts.fail(connection, [item.id], {"code": "internal", "message": "why"})
        assert tally.states(connection, corpus) == (0, 0, 1)
    assert steps.sql(process, "SELECT error->>'message', attempts FROM work") == [("why", 1)]
    assert take(process, corpus) is None
    with process.database.transaction() as connection:
        assert attempts.reopen_failed(connection, corpus) == 1
    assert take(process, corpus) == 1


def test_same_work_exists_once(process: Process, corpus: int) -> None:
    """The same work asked for again is the same row, done or not."""
    item = search(corpus, 1)
    add(process, item, item, item)
    assert steps.sql(process, "SELECT count(*) FROM work") == [(1,)]
    with process.database.transaction() as connection:
        outbox.done(connection, [item.id])
    add(process, item)
    assert steps.sql(process, "SELECT state FROM work") == [("done",)]


def test_an_answer_that_is_kept_anew_is_not_forgotten(process: Process) -> None:
    """Old ones are; also where one is kept again while they are deleted, that stays."""
    corpus = steps.new_corpus(process)
    keep = (
        "INSERT INTO idempotency (corpus, key, request, status, answer) VALUES (:corpus, :key, sha256(''), 200, '{}')"
    )
    for key in ("old", "again", "new"):
        steps.sql(process, keep, corpus=corpus.id, key=key)
    steps.sql(process, "UPDATE idempotency SET created_at = now() - interval '2 days' WHERE key <> 'new'")
    with ThreadPoolExecutor(1) as pool:
        with process.database.transaction() as connection:
            connection.execute(text("UPDATE idempotency SET created_at = now() WHERE key = 'again'"))
            forgotten = pool.submit(_forget, process)
            steps.until_blocked(process)
        assert forgotten.result() == 1
    assert steps.sql(process, "SELECT key FROM idempotency ORDER BY key") == [("again",), ("new",)]


def _forget(process: Process) -> int:
    (rule,) = (rule for rule in retention.RULES if rule.what == "idempotency")
    with process.database.transaction() as connection:
        return retention.remove_some(connection, rule, rule.kept_for(process.settings)).rows


def test_a_connection_is_tried_after_a_rest_only(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not between statements that follow each other; where the server has ended it meanwhile another one is made."""
    dialect = process.database.engine.dialect
    do_ping, tried = dialect.do_ping, []

    def ping(connection: Any) -> bool:
        tried.append(connection)
        return do_ping(connection)

    monkeypatch.setattr(dialect, "do_ping", ping)
    ours, *others = (steps.sql(process, "SELECT pg_backend_pid()")[0][0] for _ in range(3))
    assert (others, tried) == ([ours] * 2, [])
    monkeypatch.setattr("crochet_tasks.db.sessions.PING_AFTER_SECONDS", 0.0)
    with psycopg.connect(process.database.engine.url.set(drivername="postgresql").render_as_string(False)) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", [ours])
    ((theirs,),) = steps.sql(process, "SELECT pg_backend_pid()")
    assert theirs != ours
    assert len(tried) == 1
