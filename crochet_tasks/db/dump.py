"""What a dump needs to know of the whole database, and what a restored one needs to have done."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg import conninfo
from sqlalchemy import Connection, text

from crochet_tasks.db.sessions import Bounded, may_idle
from crochet_tasks.errors import DatabaseUnsuitable
from crochet_tasks.schemas.recovery import CorpusCount


def place(address: Mapping[str, str]) -> str:
    """Connection parameters for a program, as libpq reads them, without the password."""
    return conninfo.make_conninfo("", **{name: value for name, value in address.items() if name != "password"})


def check_direct(connection: Connection) -> None:
    """Raise DatabaseUnsuitable behind a pooler: pg_dump, pg_restore and vacuumdb empty search_path in their session.

    PgBouncer gives that session to others, who then find no table.
    """
    driver = connection.connection.driver_connection
    if isinstance(driver, Bounded) and driver.pooled:
        reason = "a pooler such as PgBouncer is before it, whose sessions pg_dump and pg_restore would leave changed"
        raise DatabaseUnsuitable(
            reason=f"{reason}; for this command set CROCHET_DATABASE_URL to the server's own address"
        )


def exported(connection: Connection) -> str:
    """The name of this transaction's snapshot, for pg_dump; it is known until the transaction ends."""
    may_idle(connection)
    return str(connection.execute(text("SELECT pg_export_snapshot()")).scalar_one())


def counted(connection: Connection) -> list[CorpusCount]:
    """Every corpus of every tenant, by tenant and name."""
    return [CorpusCount(**row) for row in connection.execute(text(_COUNTED)).mappings()]


_COUNTED = """
SELECT tenants.name AS tenant, corpora.name AS corpus, corpora.version,
       (SELECT count(*) FROM texts WHERE texts.corpus = corpora.id) AS texts,
       (SELECT coalesce(sum(orthos), 0)::bigint FROM counts WHERE counts.corpus = corpora.id) AS orthos
  FROM corpora JOIN tenants ON tenants.id = corpora.tenant
 ORDER BY 1, 2
"""


def tables(connection: Connection) -> list[str]:
    """The tables and the like in a database, of all owners, but for those of Postgres and its extensions."""
    return list(connection.execute(text(_TABLES)).scalars())


_TABLES = """
SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
 WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND nspname !~ '^pg_' AND nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
 ORDER BY relname
"""


def republish_all(connection: Connection) -> int:
    """Have all open work published again, after a restore: its messages are gone. Returns how much."""
    return connection.execute(text("UPDATE work SET published_at = NULL WHERE state = 'open'")).rowcount
