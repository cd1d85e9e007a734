"""The store: what people read in it, the audit, and the outbox."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from crochet_tasks.db import attempts, batches, bulk, idempotency, outbox, publishing, tally
from crochet_tasks.db.attempts import Pauses
from crochet_tasks.db.batches import NewBatch
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.process import Process
from crochet_tasks.db.tally import Change
from crochet_tasks.engine.geometry import Cells, Sides, pack_cells, unpack_cells
from tests.support import steps

pytestmark = pytest.mark.integration


# ── reading ─────────────────────────────────────────────────────────────────────────────────────


def written(connection: Connection, corpus: int, sides: Sides, cells: Cells, born: int = 1) -> int:
    """A batch of these orthos; returns its id."""
    new = NewBatch(uuid.uuid4(), sides, cells.shape[1], cells.dtype.itemsize, pack_cells(cells))
    return batches.add(connection, corpus, [new], by=uuid.UUID(int=2), born=born)[0]


def test_view_is_what_is_stored(process: Process) -> None:
    """The view `orthos` shows every ortho with its words, whichever width its batch has."""
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS)
    with process.database.transaction() as connection:
        for batch in list(batches.every(connection, corpus.id)):
            written(connection, corpus.id, batch.sides, batch.cells.astype(np.uint32))
    rows = steps.sql(process, "SELECT sides, words, shape FROM orthos WHERE corpus = :name", name=corpus.name)
    assert {(tuple(sides), tuple(words)) for sides, words, _ in rows} == set(steps.expected(steps.TEXTS))  # type: ignore[arg-type]
    assert len(rows) == 2 * len(steps.expected(steps.TEXTS))
    assert {shape for _, _, shape in rows} >= {"2x2", "2x3", "2x2x3"}


@pytest.mark.parametrize(("width", "numbers"), [(2, [0, 1, 255, 256, 65535]), (4, [0, 65536, 2**24 + 3, 2**31 - 1])])
def test_word_at(process: Process, width: int, numbers: list[int]) -> None:
    """SQL reads the packed word ids that numpy wrote."""
    packed = np.array(numbers, f"<u{width}").tobytes()
    places = range(len(numbers))
    query = "SELECT word_at(:packed, :width, place) FROM unnest(CAST(:places AS int[])) AS place"
    rows = steps.sql(process, query, packed=packed, width=width, places=list(places))
    assert [number for (number,) in rows] == numbers


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize("shape", [(4, 1), (4, 3), (12, 2)])
def test_packed_and_back(dtype: type[np.unsignedinteger], shape: tuple[int, int]) -> None:
    """Cells come back from their packed form as they were, also when they were packed from a slice."""
    wide = np.arange(shape[0] * shape[1] * 2).astype(dtype).reshape(shape[0], -1)
    for cells in (wide[:, : shape[1]], np.asfortranarray(wide)[:, ::2]):
        back = unpack_cells(pack_cells(cells), cells.shape[1], cells.dtype.itemsize)
        assert back.dtype.itemsize == cells.dtype.itemsize
        np.testing.assert_array_equal(back, cells)


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


def test_due_for_consulted_phrases(process: Process) -> None:
    """Due is what waits on a continued phrase and was not searched up to the new version."""
    corpus = steps.new_corpus(process)
    cells = np.arange(4, dtype=np.uint16).reshape(4, 1)
    waits = {"first": [1, 5], "last": [5, 9], "none": [], "others": [2, 3, 10], "unsearched": None, "new": [5]}
    with process.database.transaction() as connection:
        ids = {}
        for name, phrases in waits.items():
            ids[name] = written(connection, corpus.id, (2, 2), cells)
            if phrases is not None:
                packed = bulk.packed(np.array(phrases, np.int32))
                batches.wait(connection, {ids[name]: packed}, 2 if name == "new" else 1)

        def due(*continued: int, version: int = 2) -> list[int]:
            found = batches.due(connection, corpus.id, np.array(continued, np.int32), version)
            return [batch.batch for batch in found]

        assert due(5) == [ids["first"], ids["last"]]
        assert due(0, 4, 9, 11) == [ids["last"]]
        assert due(5, version=3) == [ids["first"], ids["last"], ids["new"]]
        assert due(4) == due() == []


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
    for kind in ("ingest", "context", "remediations", "seed"):
        assert steps.sql(process, trail, k=kind) == [("work.open",), ("work.done",)]


def test_audit_tells_of_failures(process: Process, corpus: int) -> None:
    """Every try that failed is in the audit, and what an operator did about it."""
    item = grow(corpus, 1)
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


def take(process: Process, corpus: int, orthos: int = 100) -> list[int]:
    """The subjects of the work that is taken next."""
    with process.database.transaction() as connection:
        return sorted(item.subject for item in publishing.take_next(connection, corpus, orthos))


def grow(corpus: int, batch: int, sides: Sides = (2, 2), size: int = 1, since: int = 0, version: int = 1) -> Item:
    return outbox.grow(corpus, batch, sides, size, since=since, version=version)


def test_ordered_stages_go_first(process: Process, corpus: int) -> None:
    """The stages that make versions come before searches, and larger volumes before smaller ones."""
    add(process, grow(corpus, 1), grow(corpus, 2, (3, 3)), outbox.seed(corpus, 3, (0, 9)))
    add(process, outbox.remediations(corpus, 4), outbox.ingest(corpus, 5), outbox.context(corpus, 6))
    assert [take(process, corpus) for _ in range(7)] == [[6], [5], [4], [2], [1], [3], []]


def test_groups_are_alike(process: Process, corpus: int) -> None:
    """Taken together is what one search can do: one corpus, one shape, one window."""
    add(process, grow(corpus, 1), grow(corpus, 2, (2, 2), version=2), grow(corpus, 3, since=1, version=2))
    add(process, grow(corpus, 4, since=1, version=3), grow(corpus, 5, since=2, version=3))
    add(process, grow(steps.new_corpus(process).id, 6), outbox.seed(corpus, 7, (0, 9)), outbox.seed(corpus, 7, (9, 12)))
    assert [take(process, corpus) for _ in range(6)] == [[1, 2], [3], [4, 5], [7], [7], []]


def test_groups_have_a_size(process: Process, corpus: int) -> None:
    """A group ends when it has enough orthos; a first search gets a fourth of what a later one gets."""
    add(process, *(grow(corpus, batch, size=10) for batch in range(1, 6)))
    assert [take(process, corpus, 20) for _ in range(4)] == [[1, 2], [3, 4], [5], []]
    add(process, *(grow(corpus, batch, size=10, since=1, version=2) for batch in range(11, 16)))
    assert [take(process, corpus, 10) for _ in range(3)] == [[11, 12, 13, 14], [15], []]


def test_taken_is_stamped(process: Process, corpus: int) -> None:
    """What was taken is stamped and not taken again, until it is handed back or found abandoned."""
    item = grow(corpus, 1)
    add(process, item)
    assert take(process, corpus) == [1]
    assert take(process, corpus) == []
    assert steps.sql(process, "SELECT published_at IS NOT NULL FROM work") == [(True,)]
    with process.database.transaction() as connection:
        publishing.republish(connection, [item.id])
    assert take(process, corpus) == [1]
    with process.database.transaction() as connection:
        publishing.release_all(connection, corpus)
    assert take(process, corpus) == [1]


def test_not_before(process: Process, corpus: int) -> None:
    """Work that waits for a later try is not taken before its time."""
    add(process, grow(corpus, 1), grow(corpus, 2))
    steps.sql(process, "UPDATE work SET not_before = now() + interval '1 hour' WHERE subject = 1")
    assert [take(process, corpus), take(process, corpus)] == [[2], []]
    steps.sql(process, "UPDATE work SET not_before = now() - interval '1 hour'")
    assert take(process, corpus) == [1]


def test_done_stays_done(process: Process, corpus: int) -> None:
    """What is done is neither taken, handed back, failed nor claimed any more."""
    item = grow(corpus, 1)
    add(process, item)
    with process.database.transaction() as connection:
        outbox.done(connection, [item.id], 1)
        publishing.republish(connection, [item.id])
        publishing.release_all(connection, corpus)
        attempts.fail(connection, [item.id], {"code": "internal"})
        assert outbox.claim(connection, [item.id]) == outbox.opened(connection, [item.id]) == []
        assert tally.states(connection, corpus) == (0, 1, 0)
    assert take(process, corpus) == []


def test_pauses_grow_and_end(process: Process, corpus: int) -> None:
    """A temporary error backs off about twice as long each time, and fails permanently after so many attempts."""
    item = grow(corpus, 1)
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
        assert take(process, corpus) == []
        pauses.append(pause)
    for pause, middle in zip(pauses[:4], (10, 20, 35, 35), strict=True):
        assert 0.5 * middle - 1 < float(str(pause)) <= 1.5 * middle
    assert pauses[4] is None
    assert steps.sql(process, "SELECT number, error->>'code' FROM attempts ORDER BY id") == [
        (number, "away") for number in range(1, 6)
    ]


def test_a_message_is_noted_once(process: Process, corpus: int) -> None:
    """Whether the outcome of a message was recorded with its work, or no longer applies to it."""
    items = [grow(corpus, batch).id for batch in (1, 2)]
    add(process, grow(corpus, 1), grow(corpus, 2))
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
    item = grow(corpus, 1)
    add(process, item)
    with process.database.transaction() as connection:
        attempts.record(connection, [item.id], {"code": "away"}, Pauses(5, 0.2, 0.2), later=True)
    assert take(process, corpus) == []
    time.sleep(0.4)
    assert take(process, corpus) == [1]


def test_one_of_several_is_to_blame(process: Process, corpus: int) -> None:
    """Where a search of several batches fails for good, they are tried again one by one, and only one has failed."""
    items = [grow(corpus, batch) for batch in (1, 2, 3)]
    add(process, *items)
    assert take(process, corpus) == [1, 2, 3]
    with process.database.transaction() as connection:
        assert not attempts.record(connection, [i.id for i in items], {"code": "bug"}, Pauses(1, 1, 1), later=False)
    alone = [take(process, corpus) for _ in range(4)]
    assert alone == [[1], [2], [3], []]
    with process.database.transaction() as connection:
        (failed,) = attempts.record(connection, [items[1].id], {"code": "bug"}, Pauses(5, 1, 1), later=False)
        assert failed.subject == 2
        assert tally.states(connection, corpus) == (2, 0, 1)


def test_overdue_work_is_published_again(process: Process, corpus: int) -> None:
    """What was published long ago and is not done is taken again; what was published just now is not."""
    add(process, grow(corpus, 1), grow(corpus, 2, sides=(2, 3)))
    assert take(process, corpus) == [2]
    steps.sql(process, "UPDATE work SET published_at = published_at - interval '10 s'")
    assert take(process, corpus) == [1]
    with process.database.transaction() as connection:
        assert publishing.release_overdue(connection, 5, ["seed"]) == 0
        assert publishing.release_overdue(connection, 5, ["seed", "grow"]) == 1
    assert take(process, corpus) == [2]


def test_published_work_is_bounded(process: Process, corpus: int) -> None:
    """No more searches are taken than may be published at the same time; ordered stages always are."""
    add(process, *(grow(corpus, batch, sides=(2, 1 + batch)) for batch in (1, 2, 3)))
    with process.database.transaction() as connection:
        taken = [publishing.take_next(connection, corpus, 1000, 2) for _ in range(3)]
        assert [len(items) for items in taken] == [1, 1, 0]
        outbox.add(connection, [outbox.remediations(corpus, 1)])
        assert len(publishing.take_next(connection, corpus, 1000, 2)) == 1
        outbox.done(connection, [taken[0][0].id], 1)
        assert len(publishing.take_next(connection, corpus, 1000, 2)) == 1


def test_failed_stays_visible(process: Process, corpus: int) -> None:
    """Failed work keeps its error and is not published until an operator opens it again."""
    item = grow(corpus, 1)
    add(process, item)
    with process.database.transaction() as connection:
        attempts.fail(connection, [item.id], {"code": "internal", "message": "why"})
        assert tally.states(connection, corpus) == (0, 0, 1)
    assert steps.sql(process, "SELECT error->>'message', attempts FROM work") == [("why", 1)]
    assert take(process, corpus) == []
    with process.database.transaction() as connection:
        assert attempts.reopen_failed(connection, corpus) == 1
    assert take(process, corpus) == [1]


def test_same_work_exists_once(process: Process, corpus: int) -> None:
    """The same work asked for again is the same row, done or not."""
    item = grow(corpus, 1)
    add(process, item, item, grow(corpus, 1, version=3))
    assert steps.sql(process, "SELECT count(*) FROM work") == [(1,)]
    with process.database.transaction() as connection:
        outbox.done(connection, [item.id], 1)
    add(process, item)
    assert steps.sql(process, "SELECT state FROM work") == [("done",)]


def test_one_open_grow_per_batch(process: Process, corpus: int) -> None:
    """A batch waits for one search at a time; after it, it can wait for the next."""
    first, second = grow(corpus, 1), grow(corpus, 1, since=1, version=2)
    add(process, first, second)
    assert steps.sql(process, "SELECT id FROM work") == [(first.id,)]
    with process.database.transaction() as connection:
        outbox.done(connection, [first.id], 1)
    add(process, second)
    assert steps.sql(process, "SELECT id FROM work WHERE state = 'open'") == [(second.id,)]


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
    with process.database.transaction() as connection:
        return idempotency.delete_expired(connection)


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
