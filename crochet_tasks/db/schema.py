"""The schema's version: migrating to it, and refusing to work on one that this program does not fit.

During an update two releases work on one schema (docs/upgrades.md). A release works with the schemas from OLDEST to
HEAD, and with newer ones that name it: a migrated database says which programs it still serves.

Migrating is a step of its own and never part of a service's start. The private server of a state folder is
the exception: it belongs to the command that started it, so that command migrates it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, inspect, text

from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import SchemaUnknown

HEAD = "0023"
"""The newest revision that this program knows; a test holds it against the newest migration."""
OLDEST = "0023"
"""The oldest revision that this program works with: HEAD, but for migrations that say that they are optional."""
SERVES = "0016"
"""The HEAD of the oldest program that works with HEAD: the newest for which a migration `contracts`."""

NEWER = "it was made by a newer crochet: use that one"
"""what to do about a schema that no migration here has made"""

LONGEST_SECONDS = 86_400.0
"""that one script of a migration may take: it may rewrite a table, and is one statement to the driver"""
LOCK_SECONDS = 2
"""that it waits for a lock: what others do on the tables waits behind it. Then it fails, and is tried again"""
QUEUE_SECONDS = 60
"""that it waits for another one that migrates"""

_MIGRATION_LOCK = 0x43726F63  # any number that only migrations use


class Found(NamedTuple):
    """The schema of a database. `serves`: the HEAD of the oldest program that works with it; None before 0017."""

    revision: str | None
    serves: str | None

    @property
    def newer(self) -> bool:
        """Whether a newer program made it."""
        return self.revision is not None and self.revision not in revisions()

    @property
    def fits(self) -> bool:
        """Whether this program works with it."""
        if self.newer:
            return self.serves is not None and self.serves <= HEAD
        return self.revision is not None and self.revision >= OLDEST

    def refusal(self) -> SchemaUnknown:
        """Why this program does not work with it."""
        advice = NEWER if self.newer else "run 'crochet migrate'"
        needed = HEAD if OLDEST == HEAD else f"{OLDEST} to {HEAD}"
        return SchemaUnknown(found=self.revision or "none", needed=needed, advice=advice)


def find(connection: Connection) -> Found:
    """The database's schema."""
    if not inspect(connection).has_table("alembic_version"):
        return Found(None, None)
    # As JSON: until 0017 the table has no such column.
    query = "SELECT version_num, to_jsonb(alembic_version) ->> 'serves' FROM alembic_version"
    row = connection.execute(text(query)).first()
    return Found(None, None) if row is None else Found(*row)


def revision(connection: Connection) -> str | None:
    """The revision of the database's schema; None where there is no schema yet."""
    return find(connection).revision


def server_version(connection: Connection) -> str:
    """Such as '17.6'."""
    return str(connection.execute(text("SELECT current_setting('server_version')")).scalar_one()).split()[0]


def server_major(connection: Connection) -> int:
    """Such as 17."""
    return int(server_version(connection).split(".")[0])


def check(database: Database) -> None:
    """Raise SchemaUnknown unless this program works with the schema."""
    with database.transaction() as connection:
        found = find(connection)
    if not found.fits:
        raise found.refusal()


def migrate(database: Database) -> tuple[str | None, str]:
    """Bring the schema to HEAD; returns the revision before and after. All of it happens or nothing.

    A newer one that this program works with stays as it is. Raises SchemaUnknown when the database has a schema that
    this program does not work with, or other people's tables.
    """
    with database.transaction() as connection:
        _wait_for_locks(connection, QUEUE_SECONDS)
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        _wait_for_locks(connection, LOCK_SECONDS)
        found = find(connection)
        if found.newer:
            if not found.fits:
                raise found.refusal()
            return found.revision, str(found.revision)
        before = found.revision
        strangers = set(inspect(connection).get_table_names()) if before is None else set()
        if strangers:
            raise SchemaUnknown(
                found=f"tables {', '.join(sorted(strangers)[:5])}",
                needed=HEAD,
                advice="give crochet a database of its own",
            )
        if before != HEAD:
            _take_time(connection)
            upgrade(connection, HEAD)
            connection.execute(text("UPDATE alembic_version SET serves = :serves"), {"serves": SERVES})
    return before, HEAD


def upgrade(connection: Connection, to: str) -> None:
    """Run the migrations up to this revision."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _wait_for_locks(connection: Connection, seconds: float) -> None:
    """Till the end of this transaction, or the next call."""
    connection.execute(text(f"SET LOCAL lock_timeout = '{seconds}s'"))


def _take_time(connection: Connection) -> None:
    """Wait for the server for as long as it works, till the end of this transaction."""
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    driver: Any = connection.connection.dbapi_connection  # sessions.Bounded
    driver.seconds = LONGEST_SECONDS  # of the pool's own again when it goes back there


_MIGRATIONS = Path(__file__).parent / "migrations"


def revisions() -> set[str]:
    """The revisions that this program knows."""
    return {path.name.split("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py")}
