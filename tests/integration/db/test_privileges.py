"""What the role of each kind of service may do in the database, and above all what not; docs/deployment.md."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from sqlalchemy.engine import make_url

from crochet_tasks.db import audit, metadata, privileges, tables
from crochet_tasks.db.sessions import Database
from crochet_tasks.operate.sealing import Sealer
from crochet_tasks.settings import Settings
from tests.support import roles
from tests.support.services import Postgres

pytestmark = pytest.mark.integration

EVERYBODY: tuple[str, ...] = (
    "CREATE TABLE mine (id int)",
    "DROP TABLE work",
    "ALTER TABLE keys DISABLE TRIGGER ALL",
    "TRUNCATE audit",
)
EVERYBODY += ("ALTER TABLE keys OWNER TO CURRENT_USER", "CREATE ROLE friend", "UPDATE audit SET what = what")
MUST_NOT = {
    "api": (
        *(
            "DELETE FROM corpora",
            "DELETE FROM texts",
            "DELETE FROM audit",
            "DELETE FROM security_log",
            "DELETE FROM keys",
        ),
        *("INSERT INTO batches DEFAULT VALUES", "UPDATE batches SET packed = packed", "UPDATE counts SET orthos = 1"),
        *("UPDATE security_log SET what = what", "INSERT INTO words DEFAULT VALUES", "DELETE FROM phrases"),
    ),
    "worker": (
        *("SELECT * FROM keys", "SELECT * FROM sessions", "SELECT * FROM refresh_tokens", "SELECT * FROM security_log"),
        *(
            "SELECT * FROM idempotency",
            "UPDATE texts SET body = ''",
            "UPDATE texts SET title = ''",
            "DELETE FROM texts",
        ),
        *("INSERT INTO texts DEFAULT VALUES", "INSERT INTO corpora DEFAULT VALUES", "DELETE FROM corpora"),
        *("DELETE FROM audit", "DELETE FROM work", "INSERT INTO security_log (what) VALUES ('x')"),
        *("UPDATE tenants SET max_orthos = NULL", "UPDATE tenants SET full_at = NULL"),
    ),
    "relay": (
        *("SELECT hash FROM keys", "SELECT hash FROM refresh_tokens", "SELECT scopes FROM sessions"),
        *("SELECT body FROM texts", "SELECT answer FROM idempotency", "SELECT details FROM security_log"),
        *(
            "INSERT INTO texts DEFAULT VALUES",
            "INSERT INTO corpora DEFAULT VALUES",
            "INSERT INTO batches DEFAULT VALUES",
        ),
        *(
            "UPDATE texts SET title = ''",
            "UPDATE sessions SET expires_at = now()",
            "UPDATE batches SET packed = packed",
        ),
        *("UPDATE tenants SET weight = 100", "UPDATE tenants SET max_orthos = NULL"),
    ),
    "metrics": (
        *("SELECT body FROM texts", "SELECT title FROM texts", "SELECT error FROM work", "SELECT * FROM words"),
        *("SELECT * FROM keys", "SELECT * FROM batches", "SELECT body FROM dead_letters", "DELETE FROM work"),
    ),
    "backup": ("DELETE FROM work", "UPDATE texts SET title = ''", "INSERT INTO tenants (name) VALUES ('x')"),
}


@pytest.fixture
def owner(distributed_database: str) -> str:
    roles.make_in_postgres(distributed_database)
    return distributed_database


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))


@pytest.fixture
def connections(owner: str) -> Iterator[dict[str, psycopg.Connection]]:
    opened = {kind: connect(roles.postgres(owner, kind)) for kind in privileges.KINDS}
    yield opened
    for connection in opened.values():
        connection.close()


def test_no_role_may_do_what_its_kind_does_not_need(connections: dict[str, psycopg.Connection]) -> None:
    allowed = []
    assert MUST_NOT.keys() == connections.keys()
    for kind, connection in connections.items():
        for statement in (*EVERYBODY, *MUST_NOT[kind]):
            try:
                connection.execute(statement.encode())
                allowed.append((kind, statement))
            except InsufficientPrivilege:
                pass
            connection.rollback()
    assert allowed == []


def test_backup_reads_every_table(connections: dict[str, psycopg.Connection]) -> None:
    for table in tables.corpora.metadata.tables:
        connections["backup"].execute(f"SELECT count(*) FROM {table}".encode())


def test_every_table_is_decided_on(owner: str) -> None:
    """A new one is in no role's rights: its tests pass as owner, and the service fails. Also none that is gone."""
    granted = {table for rights in privileges.BY_KIND.values() for table in rights}
    assert granted == {*metadata.metadata.tables, "alembic_version", *audit.DIGESTS.values()}


def test_granting_again_takes_what_is_more(owner: str, postgres: Postgres) -> None:
    """What somebody granted by hand goes with the next migration."""
    worker = make_url(roles.postgres(owner, "worker")).username
    with connect(owner) as connection:
        connection.execute(f"GRANT SELECT ON keys TO {worker}; GRANT UPDATE (body) ON texts TO {worker}".encode())
    roles.make_in_postgres(owner, {})
    with connect(roles.postgres(owner, "worker")) as connection:
        for statement in (b"SELECT * FROM keys", b"UPDATE texts SET body = ''"):
            with pytest.raises(InsufficientPrivilege):
                connection.execute(statement)
            connection.rollback()


def test_a_password_is_changed_without_ending_what_is_connected(owner: str) -> None:
    """Twice: the password of a role, and a second login that is a member of it, with which nothing is refused."""
    before = connect(roles.postgres(owner, "relay"))
    roles.make_in_postgres(owner, {"relay": "the-next-password"})
    before.execute(b"SELECT count(*) FROM work")
    before.close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(roles.postgres(owner, "relay"))
    connect(roles.postgres(owner, "relay", "the-next-password")).close()

    relay = make_url(roles.postgres(owner, "relay")).username
    with connect(owner) as connection:
        connection.execute(f"CREATE ROLE {relay}_2 LOGIN PASSWORD 'second-password' IN ROLE {relay}".encode())
    second = make_url(owner).set(username=f"{relay}_2", password="second-password")
    with connect(second.render_as_string(hide_password=False)) as connection:
        connection.execute(b"SELECT count(*) FROM work")
        with pytest.raises(InsufficientPrivilege):
            connection.execute(b"SELECT body FROM texts")


def test_without_roles_nothing_is_granted(distributed_database: str) -> None:
    with connect(distributed_database) as connection:
        access = b"SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relacl IS NOT NULL"
        before = connection.execute(access).fetchone()
    roles.make_in_postgres(distributed_database, {})
    with connect(distributed_database) as connection:
        assert connection.execute(access).fetchone() == before == (0,)


def test_the_relay_seals_the_security_log_and_cannot_read_it(owner: str) -> None:
    with connect(owner) as connection:
        connection.execute(b"INSERT INTO security_log (what, address) VALUES ('session.begun', '10.0.0.1')")
    relay, own = (Database(url, Settings()) for url in (roles.postgres(owner, "relay"), owner))
    try:
        sealer = Sealer(relay)
        assert [sealer.seal(now=True) > 0 for _ in range(2)] == [False, True]
        problems: list[str] = []
        with own.snapshot() as checked:
            head = audit.verify(checked, "security_log", problems.append)
        assert (head.seals, head.unsealed, problems) == (1, 0, [])
    finally:
        relay.close()
        own.close()
