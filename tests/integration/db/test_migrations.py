"""The migrations make the schema that the code describes, all of it or nothing, and only where it belongs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from crochet_tasks.db import functions, privileges, schema
from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import SchemaUnknown
from crochet_tasks.settings import Settings

pytestmark = pytest.mark.integration

NEWER = "UPDATE alembic_version SET version_num = '9999', serves = :serves"
"""as if a newer program had migrated"""

Rows = list[tuple[object, ...]]

# What a schema is made of, one query per kind of thing; `ours` leaves out Alembic's own table.
OURS = "relnamespace = 'public'::regnamespace AND relname NOT LIKE 'alembic%'"
CATALOGS = {
    "columns": f"""
        SELECT relname, attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, attstorage,
               attcollation, pg_get_expr(adbin, adrelid), col_description(attrelid, attnum)
          FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
          LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
         WHERE {OURS} AND attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'v')
    """,
    "tables": f"""
        SELECT relname, relkind, relpersistence, reloptions, obj_description(pg_class.oid, 'pg_class')
          FROM pg_class WHERE {OURS}
    """,
    "constraints": f"""
        SELECT relname, conname, contype, pg_get_constraintdef(pg_constraint.oid)
          FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid WHERE {OURS}
    """,
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename NOT LIKE 'alembic%'",
    "views": "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
    "functions": r"""
        SELECT proname, regexp_replace(pg_get_functiondef(oid), '\s+', ' ', 'g')
          FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    """,
    "triggers": f"""
        SELECT relname, tgname, pg_get_triggerdef(pg_trigger.oid)
          FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid WHERE {OURS} AND NOT tgisinternal
    """,
}


@pytest.fixture
def fresh(empty: str) -> Iterator[Database]:
    """A new database without a schema."""
    database = Database(empty, Settings())
    yield database
    database.close()


def catalog(connection: Connection, kind: str) -> Rows:
    return sorted((tuple(row) for row in connection.execute(text(CATALOGS[kind]))), key=str)


def names(database: Database) -> list[str]:
    with database.transaction() as connection:
        everything = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
        return list(connection.execute(text(everything)).scalars())


@pytest.fixture(scope="module")
def wanted(create: Callable[[str], str]) -> dict[str, Rows]:
    """The catalogs of what the code makes."""
    with contextlib.closing(Database(create("template1"), Settings())) as made, made.transaction() as connection:
        functions.create(connection)
        return {kind: catalog(connection, kind) for kind in CATALOGS}


@pytest.fixture(scope="module")
def found(create: Callable[[str], str], migrated: str) -> dict[str, Rows]:
    """The catalogs of what the migrations make."""
    with contextlib.closing(Database(create(migrated), Settings())) as made, made.transaction() as connection:
        return {kind: catalog(connection, kind) for kind in CATALOGS}


@pytest.mark.parametrize("kind", CATALOGS)
def test_migrated_is_fresh(wanted: dict[str, Rows], found: dict[str, Rows], kind: str) -> None:
    """The migrated schema is the one that the code describes."""
    assert found[kind] == wanted[kind] != []


def test_head_is_the_newest() -> None:
    """The program works with the newest migration, and there is one newest."""
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]
    assert max(schema.revisions()) == schema.HEAD


def test_twice_is_once(fresh: Database) -> None:
    """Migrating a migrated database changes nothing."""
    assert schema.migrate(fresh) == (None, schema.HEAD)
    before = names(fresh)
    assert schema.migrate(fresh) == (schema.HEAD, schema.HEAD)
    assert names(fresh) == before
    schema.check(fresh)


def test_two_at_once(fresh: Database) -> None:
    """Of two that migrate at the same time one does it and the other one finds it done."""
    start = threading.Barrier(2)
    outcomes: list[tuple[str | None, str]] = []

    def migrate() -> None:
        start.wait()
        outcomes.append(schema.migrate(fresh))

    threads = [threading.Thread(target=migrate) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes, key=str) == [(schema.HEAD, schema.HEAD), (None, schema.HEAD)]


def test_a_migration_may_take_its_time(fresh: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time-outs of ordinary statements do not end it; waiting for a lock does. Afterwards all is as before."""
    seen: list[tuple[str, str, float]] = []

    upgrade = schema.upgrade

    def measured(connection: Connection, to: str) -> None:
        upgrade(connection, to)
        driver: Any = connection.connection.dbapi_connection
        seen.append((limit(connection, "statement_timeout"), limit(connection, "lock_timeout"), driver.seconds))

    monkeypatch.setattr(schema, "upgrade", measured)
    schema.migrate(fresh)
    with fresh.transaction() as connection:
        driver: Any = connection.connection.dbapi_connection
        assert (limit(connection, "statement_timeout"), driver.seconds) == ("1min", 70.0)
    assert seen == [("0", "2s", schema.LONGEST_SECONDS)]


def limit(connection: Connection, name: str) -> str:
    return str(connection.execute(text(f"SHOW {name}")).scalar_one())


def test_without_schema_is_refused(fresh: Database) -> None:
    """A database that was never migrated is refused, with what to do."""
    with pytest.raises(SchemaUnknown, match="run 'crochet migrate'"):
        schema.check(fresh)


def test_newer_is_refused(fresh: Database) -> None:
    """A schema made by a newer program is neither used nor migrated."""
    schema.migrate(fresh)
    with fresh.transaction() as connection:
        connection.execute(text(NEWER), {"serves": "9998"})
    with pytest.raises(SchemaUnknown, match=r"'9999'.*newer"):
        schema.check(fresh)
    with pytest.raises(SchemaUnknown, match=r"'9999'.*newer"):
        schema.migrate(fresh)


@pytest.mark.parametrize("serves", [schema.SERVES, schema.HEAD])
def test_newer_that_serves_this_program_is_used_and_left_as_it_is(fresh: Database, serves: str) -> None:
    """After a roll-back the older program works on the newer schema, and its `crochet migrate` changes nothing."""
    schema.migrate(fresh)
    with fresh.transaction() as connection:
        connection.execute(text(NEWER), {"serves": serves})
    schema.check(fresh)
    before = names(fresh)
    assert schema.migrate(fresh) == ("9999", "9999")
    assert names(fresh) == before


def test_an_older_program_takes_no_rights_of_the_newer(fresh: Database) -> None:
    """It does not know what the services of the newer one need."""
    schema.migrate(fresh)
    with fresh.transaction() as connection:
        role = privileges.names(connection)["relay"]
        connection.execute(text(f"CREATE ROLE {role}"))
        connection.execute(text(f"CREATE TABLE hatted (id integer); GRANT SELECT ON hatted TO {role}"))
        connection.execute(text(NEWER), {"serves": schema.HEAD})
        assert privileges.grant(connection) == []
        granted = "SELECT has_table_privilege(:role, 'hatted', 'SELECT')"
        assert connection.execute(text(granted), {"role": role}).scalar_one()
        connection.execute(text(f"DROP TABLE hatted; DROP ROLE {role}"))


def test_a_schema_that_is_too_old_is_refused(fresh: Database) -> None:
    with fresh.transaction() as connection:
        schema.upgrade(connection, "0008")
    with pytest.raises(SchemaUnknown, match=r"'0008'.*run 'crochet migrate'"):
        schema.check(fresh)


def test_strangers_are_left_alone(fresh: Database) -> None:
    """A database with other people's tables is refused and not touched."""
    with fresh.transaction() as connection:
        connection.execute(text("CREATE TABLE invoices (id integer)"))
    with pytest.raises(SchemaUnknown, match="invoices"):
        schema.migrate(fresh)
    assert names(fresh) == ["invoices"]


def test_failure_leaves_nothing(fresh: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that fails half-way leaves nothing behind, and the next try succeeds."""
    read = Path.read_text

    def broken(path: Path, *args: str, **kwargs: str) -> str:
        return read(path, *args, **kwargs) + ("; SELECT 1 / 0" if path.suffix == ".sql" else "")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", broken)
        with pytest.raises(Exception, match="division by zero"):
            schema.migrate(fresh)
    assert names(fresh) == []
    assert schema.migrate(fresh) == (None, schema.HEAD)
