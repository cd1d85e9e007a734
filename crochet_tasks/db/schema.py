"""The schema's version: migrating to it, and refusing to work on another one.

Migrating is a step of its own and never part of a service's start. The private server of a state folder is
the exception: it belongs to the command that started it, so that command migrates it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import SchemaUnknown

HEAD = "0019"
"""The revision this program works with; a test holds it against the newest migration."""

NEWER = "it was made by a newer crochet: use that one"
"""what to do about a schema that no migration here has made"""

LONGEST_SECONDS = 86_400.0
"""that one script of a migration may take: it may rewrite a table, and is one statement to the driver"""
LOCK_SECONDS = 10
"""that it waits for a lock: what others do on the tables waits behind it"""

_MIGRATION_LOCK = 0x43726F63  # any number that only migrations use


def revision(connection: Connection) -> str | None:
    """The revision of the database's schema; None where there is no schema yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def server_version(connection: Connection) -> str:
    """Such as '17.6'."""
    return str(connection.execute(text("SELECT current_setting('server_version')")).scalar_one()).split()[0]


def server_major(connection: Connection) -> int:
    """Such as 17."""
    return int(server_version(connection).split(".")[0])


def check(database: Database) -> None:
    """Raise SchemaUnknown unless the schema is the one this program was written for."""
    with database.transaction() as connection:
        found = revision(connection)
    if found != HEAD:
        newer = found is not None and found not in revisions()
        advice = NEWER if newer else "run 'crochet migrate'"
        raise SchemaUnknown(found=found or "none", needed=HEAD, advice=advice)


def migrate(database: Database) -> tuple[str | None, str]:
    """Bring the schema to HEAD; returns the revision before and after. All of it happens or nothing.

    Raises SchemaUnknown when the database has a schema that this program does not know, or other people's tables.
    """
    from alembic import command
    from alembic.config import Config

    with database.transaction() as connection:
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        before = revision(connection)
        if before is not None and before not in revisions():
            raise SchemaUnknown(found=before, needed=HEAD, advice=NEWER)
        strangers = set(inspect(connection).get_table_names()) if before is None else set()
        if strangers:
            raise SchemaUnknown(
                found=f"tables {', '.join(sorted(strangers)[:5])}",
                needed=HEAD,
                advice="give crochet a database of its own",
            )
        if before != HEAD:
            _take_time(connection)
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            config.attributes["connection"] = connection
            command.upgrade(config, HEAD)
    return before, HEAD


def _take_time(connection: Connection) -> None:
    """Wait for the server for as long as it works, till the end of this transaction."""
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    driver: Any = connection.connection.dbapi_connection  # sessions.Bounded
    driver.seconds = LONGEST_SECONDS  # of the pool's own again when it goes back there


_MIGRATIONS = Path(__file__).parent / "migrations"


def revisions() -> set[str]:
    """The revisions that this program knows."""
    return {path.name.split("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py")}
