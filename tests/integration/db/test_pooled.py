"""Behind PgBouncer in transaction mode every transaction may run in another session of the server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Connection, make_url, text

from crochet_tasks.db import bulk, schema
from crochet_tasks.db.sessions import Bounds, Database
from crochet_tasks.errors import DatabaseConflict
from crochet_tasks.settings import Settings
from tests.support.pgbouncer import PgBouncer
from tests.support.services import Postgres

pytestmark = pytest.mark.integration

PARAMETERS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "TimeZone", "jit")


@contextlib.contextmanager
def connected(url: str, statement: float, lock: float = 5.0) -> Iterator[Database]:
    with contextlib.closing(Database(url, Settings(), Bounds(statement, lock))) as database:
        yield database


def parameters(connection: Connection) -> list[str]:
    shown = ", ".join(f"current_setting('{name}')" for name in PARAMETERS)
    return list(connection.execute(text(f"SELECT {shown}")).one())


def session(connection: Connection) -> int:
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


@pytest.fixture(params=["distributed_database", "pooled_database"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def test_every_transaction_has_the_parameters_of_its_own_pool(url: str) -> None:
    """Two programs take turns; behind PgBouncer they share the sessions of the server."""
    sessions: list[set[int]] = [set(), set()]
    with connected(url, 20.0, 7.0) as one, connected(url, 30.0, 9.0) as other:
        for _ in range(10):
            for place, database, expected in ((0, one, ["20s", "7s", "20s"]), (1, other, ["30s", "9s", "30s"])):
                with database.transaction() as connection:
                    sessions[place].add(session(connection))
                    assert parameters(connection) == [*expected, "UTC", "off"]
                with database.snapshot() as connection:
                    assert parameters(connection) == [*expected, "UTC", "off"]
    assert bool(sessions[0] & sessions[1]) == _pooled(url)


def _pooled(url: str) -> bool:
    """Whether the server makes up the process id: queried without our own code."""
    with psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)) as raw:
        row = raw.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        return bool(row[0] != raw.info.backend_pid)


def test_a_statement_is_ended_by_its_time_out(url: str) -> None:
    with connected(url, 0.2) as database:
        timed_out = pytest.raises(DatabaseConflict, match="statement timeout")
        with timed_out, database.transaction() as connection:
            connection.execute(text("SELECT pg_sleep(60)"))


def test_a_statement_that_runs_often_works_on_each_connection(pooled_database: str) -> None:
    """The driver prepares it after five times: under the same name on every connection, and other clients' exist."""
    with connected(pooled_database, 20.0) as one, connected(pooled_database, 20.0) as other:
        for number in range(20):
            for database in (one, other):
                with database.transaction() as held, database.transaction() as second:
                    for connection in (held, second):
                        assert connection.execute(text("SELECT :n + 1"), {"n": number}).scalar_one() == number + 1
                        assert bulk.rows(connection, "SELECT %(n)s::int", {"n": number}) == [(number,)]


def test_nothing_is_left_in_the_sessions_of_the_server(pooled_database: str) -> None:
    with connected(pooled_database, 20.0) as database:
        for _ in range(10):
            with database.transaction() as connection:
                assert parameters(connection)[0] == "20s"
                list(bulk.stream(connection, "SELECT generate_series(1, 10)", {}, 3))
    plain = make_url(pooled_database).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, prepare_threshold=None) as raw:
        row = raw.execute(
            "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),"
            " (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_cursors WHERE is_holdable)"
        ).fetchone()
    assert row == ("0", "0", 0, 0)


def test_a_connection_of_its_own_keeps_prepared_statements(distributed_database: str) -> None:
    """They are a third faster there."""
    with connected(distributed_database, 20.0) as database:
        for _ in range(10):
            with database.transaction() as connection:
                connection.execute(text("SELECT :n + 1"), {"n": 1})
        with database.transaction() as connection:
            assert connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one() > 0


def test_the_schema_is_made_through_pgbouncer(postgres: Postgres, pgbouncer: PgBouncer) -> None:
    postgres.start()
    pgbouncer.start()
    with connected(pgbouncer.pooled(postgres.new_database()), 20.0) as database:
        assert schema.migrate(database) == (None, schema.HEAD)
        assert schema.migrate(database) == (schema.HEAD, schema.HEAD)
        schema.check(database)
