"""The database of a campaign: its clock and random numbers are the run's, and it is emptied before each run.

`clock_timestamp()`, `now()` and `random()` of the statements are found in the schema `sim` before those of Postgres.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import make_url

from crochet_tasks import net
from crochet_tasks.db.metadata import metadata

WRITTEN = (
    *("attempts", "audit", "batches", "best", "best_faces", "corpora", "counts", "dead_letters", "idempotency"),
    *("phrases", "remediations", "texts", "windows", "words", "work"),
)
"""the tables that a run writes; nobody logs in, so those of access stay as they are"""
BEGIN = 1_900_000_000.0
"""the time at which each run begins, as a Unix time"""
VACUUM_AFTER = 40
"""runs: what they delete makes the tables longer"""

_FUNCTIONS = """
CREATE SCHEMA sim;
CREATE SEQUENCE sim.clock;
CREATE SEQUENCE sim.chance;
CREATE FUNCTION sim.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
 AS $$ SELECT pg_catalog.to_timestamp(pg_catalog.pg_sequence_last_value('sim.clock'::regclass) / 1000000.0) $$;
CREATE FUNCTION sim.now() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ SELECT sim.clock_timestamp() $$;
CREATE FUNCTION sim.random() RETURNS float8 LANGUAGE sql VOLATILE
 AS $$ SELECT ((pg_catalog.nextval('sim.chance'::regclass) * 7919) % 1000) / 1000.0::float8 $$;
"""


class Store:
    """One database, for one campaign at a time. The clock can be set at any moment; every connection sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.now = BEGIN
        self.monitor: psycopg.Connection[Any] = psycopg.connect(
            make_conninfo(**net.postgres_parameters(url)), autocommit=True
        )
        if self.monitor.execute("SELECT to_regnamespace('sim')").fetchone() == (None,):
            self._prepare()
        # A run must not depend on how long a statement really waits.
        self.monitor.execute("SET search_path = sim, public, pg_catalog")
        sequences = self.monitor.execute("SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'").fetchall()
        self._empty = ";".join(
            [
                "SET session_replication_role = replica",  # no trigger that refuses it, no foreign key
                *(f"DELETE FROM {table}" for table in WRITTEN),
                "SET session_replication_role = origin",
                *(f"SELECT setval('public.{name}', 1, false)" for (name,) in sequences),
                "SELECT setval('sim.chance', 1)",
            ]
        )
        self._runs = 0

    def _prepare(self) -> None:
        execute, name = self.monitor.execute, make_url(self.url).database
        execute(_FUNCTIONS)
        defaults = execute(
            "SELECT attrelid::regclass::text, attname FROM pg_attrdef"
            " JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum"
            " WHERE pg_get_expr(adbin, adrelid) IN ('now()', 'clock_timestamp()')"
        ).fetchall()
        for table, column in defaults:
            execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT sim.now()")
        for table in metadata.tables:
            execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")  # plans change only where we say so
        execute(f"ALTER DATABASE {name} SET search_path = sim, public, pg_catalog")
        execute(f"ALTER DATABASE {name} SET deadlock_timeout = '1h'")  # the scheduler finds them
        execute(f"ALTER DATABASE {name} SET plan_cache_mode = force_generic_plan")  # plan a prepared statement once

    def reset(self) -> None:
        """Everything as in a new database."""
        if self._runs % VACUUM_AFTER == 0:
            self.monitor.execute(f"VACUUM {', '.join(WRITTEN)}")
        self._runs += 1
        self.monitor.execute(self._empty)
        self.set_clock(BEGIN)

    def set_clock(self, now: float) -> None:
        self.now = now
        self.monitor.execute(f"SELECT setval('sim.clock', {round(now * 1_000_000)})")

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self.monitor.execute(query, values or None).fetchall()

    def close(self) -> None:
        self.monitor.close()
