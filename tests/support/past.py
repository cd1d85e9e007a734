"""What happened to a corpus and when, written into its tables: for tests of what the store counts."""

from __future__ import annotations

import psycopg
from psycopg.conninfo import make_conninfo

from crochet_tasks import net
from crochet_tasks.db import statistics as store
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.reporting import statistics
from crochet_tasks.schemas.statistics import Statistics
from tests.support import steps

SEARCHED = """
INSERT INTO work (id, kind, corpus, subject, part, since, version, priority, state, found, created_at, finished_at)
SELECT gen_random_uuid(), 'search', :corpus, 1, '[0,1)', 0, 1, 1, 'done', :found,
       now() - make_interval(secs => :came), now() - make_interval(secs => :ago)
  FROM generate_series(1, :number) AS number
"""
OPEN = """
INSERT INTO work (id, kind, corpus, subject, part, since, version, priority, created_at)
SELECT gen_random_uuid(), 'search', :corpus, 1, '[0,1)', 0, 1, 1, now() - make_interval(secs => :came)
  FROM generate_series(1, :number)
"""
TRIED = """
INSERT INTO attempts (work, corpus, number, at, error)
SELECT id, corpus, 1, now() - make_interval(secs => :ago),
       jsonb_build_object('code', CAST(:code AS text), 'message', CAST(:message AS text))
  FROM (SELECT id, corpus FROM work WHERE corpus = :corpus LIMIT 1) AS one, generate_series(1, :number)
"""


STOPPED = """
CREATE SCHEMA stopped;
CREATE FUNCTION stopped.now() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT '{now}'::timestamptz $$;
ALTER DATABASE "{name}" SET search_path = stopped, public, pg_catalog;
"""


def stop_clock(url: str) -> None:
    """For later connections to a database it is always now: what was seconds ago stays so, however long a test takes.

    Only for `now()`; `clock_timestamp()` goes on.
    """
    with psycopg.connect(make_conninfo(**net.postgres_parameters(url)), autocommit=True) as connection:
        [(name, now)] = connection.execute("SELECT current_database(), now()::text").fetchall()
        connection.execute(STOPPED.format(name=name, now=now).encode())


class Past:
    """What happened to a corpus, and when, in seconds ago; nothing else happens to it."""

    def __init__(self, process: Process, corpus: Corpus) -> None:
        self.process, self.corpus = process, corpus

    def searched(self, number: int, ago: float, *, found: int = 0, came: float = 5000) -> None:
        values = {"number": number, "ago": ago, "found": found, "came": max(came, ago)}
        steps.sql(self.process, SEARCHED, corpus=self.corpus.id, **values)

    def opened(self, number: int, ago: int = 5000) -> None:
        steps.sql(self.process, OPEN, corpus=self.corpus.id, number=number, came=ago)

    def failed_tries(self, number: int, ago: float, code: str = "timed_out", message: str = "why") -> None:
        values = {"number": number, "ago": ago, "code": code, "message": message}
        steps.sql(self.process, TRIED, corpus=self.corpus.id, **values)

    def seen(
        self, message: statistics.Message = statistics.for_operators, most: int = statistics.COUNTED
    ) -> Statistics:
        with self.process.database.snapshot() as connection:
            return statistics.report(store.read(connection, [self.corpus.id], most)[self.corpus.id], message)

    def left(self) -> float | str | None:
        left = self.seen().left
        assert (left.seconds is None) != (left.unknown is None)
        return left.seconds if left.unknown is None else left.unknown
