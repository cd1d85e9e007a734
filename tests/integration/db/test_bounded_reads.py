"""What people ask again and again about a corpus costs what that corpus has, whatever others have."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from crochet_tasks.db import corpora, listing, operators, removal
from tests.support import steps
from tests.support.api import Api, api  # noqa: F401 - a fixture

pytestmark = pytest.mark.integration

OTHERS = 20_000
WRITE = """
INSERT INTO work (id, kind, corpus, subject, since, version, priority, sides, state, upto, error, finished_at)
SELECT gen_random_uuid(), 'grow', :corpus, number, 0, 1, 1, '{2,2}', state, 1,
       CASE state WHEN 'failed' THEN '{}'::jsonb END,
       CASE WHEN state IN ('done', 'cancelled') THEN clock_timestamp() END
  FROM generate_series(1, :number) AS number,
       LATERAL (SELECT (ARRAY['open', 'done', 'failed', 'cancelled'])[1 + number % 4]) AS of (state)
"""


def read_of_work(plan: dict[str, Any]) -> int:
    """How many rows of the table were looked at."""
    of_this = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) if plan.get("Relation Name") == "work" else 0
    return int(of_this * plan["Actual Loops"]) + sum(map(read_of_work, plan.get("Plans", [])))


class Statements:
    """What is asked of the table of work meanwhile."""

    def __init__(self, api: Api) -> None:  # noqa: F811
        self._engine = api.process.database.engine
        self._seen: list[tuple[str, Any]] = []

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
            if "work" in statement:
                self._seen.append((statement, parameters))

        event.listen(self._engine, "before_cursor_execute", note)
        try:
            yield
        finally:
            event.remove(self._engine, "before_cursor_execute", note)

    def rows(self) -> dict[str, int]:
        """Per statement, how many rows of work it looks at."""
        read = {}
        for statement, parameters in self._seen:
            with contextlib.closing(self._engine.raw_connection()) as connection:
                cursor = connection.cursor()
                cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
                found: Any = cursor.fetchone()
                connection.rollback()
            read[statement] = read_of_work(found[0][0]["Plan"])
        return read


def test_looks_at_a_corpus_read_nothing_of_others(api: Api) -> None:  # noqa: F811
    """Its state, its work, how far it is, a step of its deletion: no row of the work of another corpus is read."""
    api.write.post("/v1/corpora", json={"name": "mine"})
    api.stranger.post("/v1/corpora", json={"name": "theirs"})
    with api.process.database.transaction() as connection:
        mine = corpora.named(connection, "mine")
        theirs = connection.exec_driver_sql("SELECT id FROM corpora WHERE name = 'theirs'").scalar_one()
    steps.sql(api.process, "ALTER TABLE work DISABLE TRIGGER USER")
    steps.sql(api.process, WRITE, corpus=theirs, number=OTHERS)
    steps.sql(api.process, "ANALYZE work")
    statements = Statements(api)
    with statements.noted():
        for path in ("/status", "/work", "/work?state=open", "/work?state=done", "/work?kind=seed", "/work?state=dead"):
            assert api.read.get(f"/v1/corpora/mine{path}").status_code == 200
        with api.process.database.transaction() as connection:
            listing.seen(connection, [mine.tenant])
            listing.open_work(connection, mine.id, 100)
            operators.dropped(connection, mine.id)
            operators.oldest_open(connection, mine.id)
            operators.unfinished(connection, mine.id, [])
            removal.delete_some(connection, mine.id)
    read = statements.rows()
    assert len(read) >= 10
    assert {statement: rows for statement, rows in read.items() if rows} == {}
