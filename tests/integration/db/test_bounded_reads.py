"""What is polled reads a bounded number of rows: nothing of other corpora, of what is held back, or of what is done."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, select

from crochet_tasks.access import keys
from crochet_tasks.access.keys import KeySpec
from crochet_tasks.db import attempts, corpora, dead_letters, operators, publishing, removal, statistics, tally, windows
from crochet_tasks.db.operators import WorkFilter
from crochet_tasks.db.process import Process
from crochet_tasks.db.tables import work
from crochet_tasks.intake import admission
from tests.support import steps
from tests.support.api import Api
from tests.support.statements import Statements

pytestmark = pytest.mark.integration

OTHERS = 20_000
WRITE = """
INSERT INTO work (id, kind, corpus, subject, part, since, version, priority, state, error, finished_at)
SELECT gen_random_uuid(), 'search', :corpus, 1, '[0,1)', 0, 1, 1, state,
       CASE state WHEN 'failed' THEN '{}'::jsonb END,
       CASE WHEN state IN ('done', 'cancelled') THEN clock_timestamp() END
  FROM generate_series(1, :number) AS number,
       LATERAL (SELECT (ARRAY['open', 'done', 'failed', 'cancelled'])[1 + number % 4]) AS of (state)
"""


def test_reads_of_a_corpus_read_nothing_of_others(api: Api) -> None:
    """Its state, its work, how far it is, a step of its deletion: no row of the work of another corpus is read."""
    api.write.post("/v1/corpora", json={"name": "mine"})
    api.stranger.post("/v1/corpora", json={"name": "theirs"})
    with api.process.database.transaction() as connection:
        mine = corpora.named(connection, "mine")
        theirs = connection.exec_driver_sql("SELECT id FROM corpora WHERE name = 'theirs'").scalar_one()
    steps.sql(api.process, "ALTER TABLE work DISABLE TRIGGER USER")
    steps.sql(api.process, WRITE, corpus=theirs, number=OTHERS)
    steps.sql(api.process, "ANALYZE work")
    statements = Statements(api.process)
    with statements.noted():
        for path in (
            "/status",
            "/work",
            "/work?state=open",
            "/work?state=done",
            "/work?kind=search",
            "/work?state=dead",
        ):
            assert api.read.get(f"/v1/corpora/mine{path}").status_code == 200
        with api.process.database.transaction() as connection:
            tally.progress(connection, [mine.tenant], 1000)
            tally.unpublished(connection, mine.id, 100)
            tally.left(connection, mine.id)
            tally.extent(connection, mine.id, mine.version)
            operators.unfinished(connection, mine.id, [])
            removal.delete_some(connection, mine.id)
    read = statements.rows()
    assert len(read) >= 10
    assert {statement: rows for statement, rows in read.items() if rows} == {}


def test_a_page_of_work_reads_no_more_than_it_shows(process: Process) -> None:
    """The first one and a later one, of a corpus and of all, however much there is."""
    corpus = steps.new_corpus(process)
    steps.new_corpus(process)
    steps.sql(process, "ALTER TABLE work DISABLE TRIGGER USER")
    steps.sql(process, WRITE, corpus=corpus.id, number=OTHERS)
    steps.sql(process, "ANALYZE work")
    statements = Statements(process)
    with statements.noted(), process.database.snapshot() as connection:
        for states in (tally.OPEN, ("failed", *tally.OPEN), ("done",), ("done", "cancelled")):
            for number in (corpus.id, None):
                which = WorkFilter(states, number)
                rows = operators.page(connection, which, None, PAGE)
                place = operators.place(rows[-1], which)
                for newer in (False, True):
                    operators.page(connection, which, place._replace(newer=newer), PAGE)
    read = statements.rows()
    assert len(read) >= 8
    of_two_states = 2 * (PAGE + 2)  # with the row that the page goes on from, and one that is no tie any more
    assert max(read.values()) <= of_two_states + PAGE


PAGE = 10
HELD = 50_000
WRITE_OPEN = """
INSERT INTO work (id, kind, corpus, subject, part, since, version, priority, not_before)
SELECT gen_random_uuid(), CASE WHEN priority = 3000000 THEN 'ingest' ELSE 'search' END, :corpus, number,
       CASE WHEN priority < 3000000 THEN int4range(0, 1) END, 0, 1, priority, CAST(:not_before AS timestamptz)
  FROM generate_series(1, :number) AS number, (SELECT CAST(:priority AS integer) AS priority) AS one
"""


def test_taking_work_reads_nothing_of_what_is_held_or_parked(process: Process) -> None:
    """50,000 searches of a corpus whose budget is spent and as many texts that wait for their turn cost no row; when
    the budget is raised they are taken.
    """
    spent, parked, other = (steps.new_corpus(process) for _ in range(3))
    steps.sql(process, "ALTER TABLE work DISABLE TRIGGER USER")
    steps.sql(process, "UPDATE corpora SET budget = 1 WHERE id = :id", id=spent.id)
    steps.sql(process, "INSERT INTO counts VALUES (:id, '{2,2}', 1, 1)", id=spent.id)
    for corpus, number, priority, until in [
        (spent, HELD, 9, None),
        (parked, HELD, 3_000_000, "infinity"),
        (other, 3, 1, None),
    ]:
        values = {"corpus": corpus.id, "number": number, "priority": priority, "not_before": until}
        steps.sql(process, WRITE_OPEN, **values)
    steps.sql(process, "ANALYZE work")
    for _ in range(1 + HELD // publishing.HELD_AT_ONCE):
        with process.database.transaction() as connection:
            publishing.hold_searches(connection)
    steps.sql(process, "ANALYZE work")
    statements = Statements(process)
    with statements.noted(), process.database.transaction() as connection:
        publishing.hold_searches(connection)
        taken = publishing.take_next(connection, None)
        assert taken
        assert taken.item.corpus == other.id
    assert max(statements.rows().values()) <= 20
    with process.database.snapshot() as connection:
        every = statistics.read(connection, [spent.id, parked.id], 2 * HELD)
    assert every[spent.id].by_kind() == {"search": {"held": HELD}}
    assert every[parked.id].by_kind() == {"ingest": {"parked": HELD}}
    steps.sql(process, "UPDATE corpora SET budget = 2 WHERE id = :id", id=spent.id)
    with process.database.transaction() as connection:
        publishing.hold_searches(connection)
        taken = publishing.take_next(connection, None)
        assert taken
        assert taken.item.corpus == spent.id
        counts = statistics.read(connection, [parked.id], 2 * HELD)[parked.id]
    assert counts.by_kind() == {"ingest": {"parked": HELD}}


def test_changing_work_reads_no_other(process: Process) -> None:
    """Each item is looked up by its id, also where the table is small enough to be read whole."""
    other, corpus = (steps.new_corpus(process) for _ in range(2))
    steps.sql(process, "ALTER TABLE work DISABLE TRIGGER USER")
    steps.sql(process, WRITE, corpus=other.id, number=OTHERS)
    steps.sql(process, WRITE, corpus=corpus.id, number=8)
    old = "UPDATE work SET published_at = clock_timestamp() - interval '1 h' WHERE corpus = :id AND state = 'open'"
    steps.sql(process, old, id=corpus.id)
    steps.sql(process, "ANALYZE work")
    with process.database.snapshot() as connection:
        mine = connection.execute(select(work.c.id).where(work.c.corpus == corpus.id)).scalars().all()
    changes: list[Callable[[Connection], object]] = [
        lambda connection: publishing.release_overdue(connection, 5, ["search"]),
        lambda connection: publishing.release_overdue(connection, 5, ["search"], corpus.id),
        lambda connection: publishing.release_all(connection, corpus.id),
        lambda connection: publishing.republish(connection, mine),
        lambda connection: operators.cancel_open(connection, corpus.id, ["search"], FEW),
        lambda connection: tally.any_open(connection, corpus.id, "search"),
        lambda connection: attempts.reopen_failed(connection, corpus.id),
        lambda connection: attempts.reopen(connection, mine),
        lambda connection: removal.delete_some(connection, corpus.id),
    ]
    read = []
    for change in changes:
        statements = Statements(process)
        with statements.noted(), process.database.transaction() as connection:
            change(connection)
            connection.rollback()
        read.append(max(statements.rows().values()))
    assert max(read) <= 3 * len(mine), read
    assert min(read) > 0, read


WRITE_DONE = """
INSERT INTO work (id, kind, corpus, subject, part, since, version, priority, state, finished_at)
SELECT gen_random_uuid(), 'search', :corpus, 1, '[0,1)', 0, 1, 1, 'done', clock_timestamp()
  FROM generate_series(1, :number)
"""

FEW = 5


def test_looking_for_work_reads_nothing_of_what_is_done_or_of_others(process: Process) -> None:
    """Where as much is done as waits, and all of it stands before in the table; of one corpus and of all."""
    other, corpus = (steps.new_corpus(process) for _ in range(2))
    steps.sql(process, "ALTER TABLE work DISABLE TRIGGER USER")
    admission.accept(corpus, "a text", "the sea")
    for each in (other, corpus):
        steps.sql(process, WRITE_DONE, corpus=each.id, number=OTHERS)
    for each, priority in ((other, 1), (other, 3_000_000), (corpus, 1), (corpus, 3_000_000)):
        steps.sql(process, WRITE_OPEN, corpus=each.id, number=OTHERS, priority=priority, not_before=None)
    with process.database.statements() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE work")
    looks: list[Callable[[Connection], object]] = [
        lambda connection: publishing.any_waits(connection, None),
        lambda connection: publishing.any_waits(connection, corpus.id),
        lambda connection: publishing.take_next(connection, None),
        lambda connection: publishing.take_next(connection, corpus.id),
        lambda connection: publishing.ordered_waits(connection, corpus.id),
        lambda connection: publishing.any_published(connection, corpus.id),
        lambda connection: publishing.release_next_text(connection, corpus.id),
        lambda connection: windows.unfinished(connection, corpus.id),
        lambda connection: operators.unfinished(connection, corpus.id, []),
        lambda connection: tally.any_open(connection, corpus.id),
        lambda connection: tally.states(connection, corpus.id, FEW),
        lambda connection: tally.left(connection, corpus.id, FEW),
        lambda connection: tally.unpublished(connection, corpus.id, FEW),
        lambda connection: tally.extent(connection, corpus.id, 0, FEW),
        lambda connection: tally.progress(connection, [corpus.tenant], FEW),
        lambda connection: statistics.read(connection, [corpus.id], FEW),
    ]
    read = []
    for look in looks:
        statements = Statements(process)
        with statements.noted(), process.database.transaction() as connection:
            look(connection)
        read.append(statements.rows())
        assert read[-1]
    assert [most for each in read if (most := max(each.values())) > 4 * FEW] == [], read


def test_progress_that_is_polled_reads_a_bounded_number_of_rows(process: Process) -> None:
    """However much work is open; where less is, it is counted exactly."""
    many, few = steps.new_corpus(process), steps.new_corpus(process)
    steps.sql(process, "ALTER TABLE work DISABLE TRIGGER USER")
    for corpus, number in ((many, 5000), (few, 7)):
        steps.sql(process, WRITE_OPEN, corpus=corpus.id, number=number, priority=1, not_before=None)
    steps.sql(process, "ANALYZE work")
    statements = Statements(process)
    with statements.noted(), process.database.snapshot() as connection:
        found = {each.id: each.open_work for each in tally.progress(connection, [many.tenant], 1000)}
    assert found[few.id] == 7
    assert 100 <= found[many.id] <= 1000
    assert sum(statements.rows().values()) <= 1000


def test_a_census_reads_no_text_that_is_done(process: Process) -> None:
    """It counts those that are versions from the corpora."""
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS)
    steps.accept(corpus, "one that waits")
    statements = Statements(process, "texts")
    with statements.noted(), process.database.snapshot() as connection:
        assert tally.census(connection, 60, 5).texts == {"current": 3, "accepted": 1}
    (statement,) = statements.rows()
    assert "<> 'current'" in statement
    with process.database.transaction() as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # which is faster for four rows
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}").scalars())
    assert "texts_unfinished_idx" in plan


def test_dead_letters_are_found_and_listed_without_their_bodies(process: Process) -> None:
    """One by its number, or the first few; only what shows one reads its body."""
    for number in range(5):
        with process.database.transaction() as connection:
            died = connection.exec_driver_sql("SELECT now()").scalar_one()
            values = {"queue": "search", "reason": "rejected", "body": b"x" * 1000, "died_at": died}
            dead_letters.add(connection, task=f"task-{number}", message="m", **values)
    statements = Statements(process, "dead_letters")
    with statements.noted(), process.database.snapshot() as connection:
        first, second = dead_letters.first(connection, 2)
        assert dead_letters.one(connection, second.id) == second
    read = statements.rows()
    assert list(read.values()) == [2, 1]
    assert not any("body" in statement for statement in read)
    with process.database.snapshot() as connection:
        assert dead_letters.body(connection, first.id) == b"x" * 1000


COPIES = """
INSERT INTO keys (tenant, prefix, hash, name, scopes, tier)
SELECT tenant, left(translate(md5(number::text), '0189', 'wxyz'), 10), sha256(number::text::bytea), name, scopes, tier
  FROM keys, generate_series(1, 5000) AS number
"""


def test_a_key_is_ended_without_reading_others(process: Process) -> None:
    """Nor is any other read for the name of its tenant."""
    name = keys.create(process.database, KeySpec("one")).line.key
    steps.sql(process, COPIES)
    steps.sql(process, "ANALYZE keys")
    statements = Statements(process, "keys")
    with statements.noted():
        assert keys.revoke(process.database, name).tenant == "default"
    assert max(statements.rows().values()) == 1
