"""Connecting: what the address says is used or refused, and a refused connection is named as what it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, make_url, text

from crochet_tasks import retry
from crochet_tasks.db import schema
from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import CrochetError, DatabaseLoginFailed, DatabaseUnavailable, DatabaseUnsuitable
from crochet_tasks.settings import Settings
from tests.support.services import Postgres

pytestmark = pytest.mark.integration

PASSWORD = "".join(chr(code) for code in range(33, 127)) + "äß€"


@contextlib.contextmanager
def connected(url: str) -> Iterator[Connection]:
    with contextlib.closing(Database(url, Settings())) as database, database.transaction() as connection:
        yield connection


def one(connection: Connection, query: str) -> object:
    return connection.execute(text(query)).scalar_one()


@pytest.fixture
def administrator(postgres: Postgres) -> Iterator[psycopg.Connection]:
    url = make_url(postgres.url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    """A new, empty database, over TCP with a password."""
    made = postgres.new_database()
    yield made
    postgres.drop_database(made)


def test_a_password_of_every_special_character_lets_in(administrator: psycopg.Connection, url: str) -> None:
    administrator.execute(sql.SQL("CREATE ROLE special LOGIN PASSWORD {}").format(sql.Literal(PASSWORD)))
    try:
        parts = make_url(url)
        address = f"{parts.host}:{parts.port}/{parts.database}"
        with connected(f"postgresql://special:{quote(PASSWORD, safe='')}@{address}") as connection:
            assert one(connection, "SELECT current_user") == "special"
    finally:
        administrator.execute("DROP ROLE special")


def test_of_several_hosts_one_that_answers_is_taken(url: str) -> None:
    parts = make_url(url)
    hosts = f"127.0.0.1:1,{parts.host}:{parts.port}"
    with connected(f"postgresql://{parts.username}:{parts.password}@{hosts}/{parts.database}") as connection:
        assert one(connection, "SELECT current_database()") == parts.database


def test_search_path_of_the_address_decides_where_the_schema_is_made(url: str) -> None:
    with connected(url) as connection:
        connection.execute(text("CREATE SCHEMA own"))
    own = f"{url}?options=-csearch_path%3Down"
    with contextlib.closing(Database(own, Settings())) as database:
        assert schema.migrate(database) == (None, schema.HEAD)
        schema.check(database)
    with connected(url) as connection:
        assert one(connection, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        assert one(connection, "SELECT count(*) FROM pg_tables WHERE schemaname = 'own'") != 0


def test_a_schema_that_is_missing_is_named(url: str) -> None:
    with (
        contextlib.closing(Database(f"{url}?options=-csearch_path%3Dlost", Settings())) as database,
        pytest.raises(DatabaseLoginFailed, match="make the schema that search_path names"),
    ):
        schema.migrate(database)


def test_texts_are_utf8_whatever_the_role_and_the_environment_say(
    administrator: psycopg.Connection, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    name = sql.Identifier(str(make_url(url).database))
    administrator.execute(sql.SQL("ALTER DATABASE {} SET client_encoding = 'SQL_ASCII'").format(name))
    with connected(url) as connection:
        assert one(connection, "SELECT 'שלום €'") == "שלום €"


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_of_another_encoding_is_refused(
    administrator: psycopg.Connection, postgres: Postgres, encoding: str
) -> None:
    name = f"in_{encoding.lower()}"
    administrator.execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LOCALE 'C'").format(
            sql.Identifier(name), sql.Literal(encoding)
        )
    )
    url = make_url(postgres.url).set(database=name).render_as_string(hide_password=False)
    try:
        with (
            contextlib.closing(Database(url, Settings())) as database,
            pytest.raises(DatabaseUnsuitable, match=f"its encoding is {encoding} and texts need UTF8"),
        ):
            schema.migrate(database)
    finally:
        postgres.drop_database(url)


def no_password(url: str) -> str:
    return make_url(url).set(password="guess").render_as_string(hide_password=False)


def no_role(url: str) -> str:
    return make_url(url).set(username="stranger").render_as_string(hide_password=False)


def no_database(url: str) -> str:
    return make_url(url).set(database="lost").render_as_string(hide_password=False)


def no_tls(url: str) -> str:
    return f"{url}?sslmode=require"


@pytest.mark.parametrize(
    ("spoilt", "says", "advice"),
    [
        (no_password, "password authentication failed", "correct user and password"),
        (no_role, "password authentication failed", "correct user and password"),
        (no_database, 'database "lost" does not exist', "make it (createdb NAME)"),
        (no_tls, "server does not support SSL", "correct sslmode"),
    ],
)
def test_a_refused_connection_is_named_and_not_retried_at_start(
    url: str, spoilt: Callable[[str], str], says: str, advice: str
) -> None:
    """A start does not wait; a running worker retries until it is corrected."""
    lines: list[str] = []
    with contextlib.closing(Database(spoilt(url), Settings())) as database, pytest.raises(CrochetError) as caught:
        retry.wait_for(lambda: schema.check(database), 3600, lines.append)
    assert isinstance(caught.value, DatabaseLoginFailed)
    assert says in str(caught.value)
    assert advice in str(caught.value)
    assert "does not answer" not in str(caught.value)
    assert (retry.temporary(caught.value), lines) == (True, [])


def test_a_server_that_is_away_does_not_answer(postgres: Postgres) -> None:
    url = make_url(postgres.url).set(port=1).render_as_string(hide_password=False)
    with pytest.raises(DatabaseUnavailable, match="does not answer") as caught, connected(url):
        pass
    assert not isinstance(caught.value, DatabaseLoginFailed)


def test_a_variable_of_libpq_that_it_refuses_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "perhaps")
    with pytest.raises(DatabaseLoginFailed, match=r"invalid sslmode value.*correct sslmode"), connected(url):
        pass


LIBPQ = {
    "PGHOST": "127.0.0.1",
    "PGHOSTADDR": "127.0.0.1",
    "PGPORT": "1",
    "PGDATABASE": "lost",
    "PGUSER": "stranger",
    "PGPASSWORD": "guess",
    "PGPASSFILE": "/nowhere",
    "PGREQUIREAUTH": "scram-sha-256",
    "PGCHANNELBINDING": "require",
    "PGSERVICE": "lost",
    "PGSERVICEFILE": "/nowhere",
    "PGOPTIONS": "-cdefault_transaction_read_only=on",
    "PGAPPNAME": "stranger",
    "PGSSLMODE": "verify-full",
    "PGSSLNEGOTIATION": "direct",
    "PGSSLROOTCERT": "/nowhere",
    "PGREQUIREPEER": "stranger",
    "PGGSSENCMODE": "require",
    "PGCLIENTENCODING": "LATIN1",
    "PGTARGETSESSIONATTRS": "standby",
    "PGLOADBALANCEHOSTS": "sometimes",
    "PGMINPROTOCOLVERSION": "9.9",
    "PGDATESTYLE": "German",
    "PGTZ": "Asia/Tokyo",
    "PGCONNECT_TIMEOUT": "never",
}


@pytest.mark.parametrize("names", [(name,) for name in LIBPQ] + [tuple(LIBPQ)], ids="-".join)
def test_no_variable_of_libpq_reaches_the_private_server(
    database: str, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    for name in names:
        monkeypatch.setenv(name, LIBPQ[name])
    with connected(database) as connection:
        where = "SELECT current_user || ' ' || current_database() || ' ' || (inet_server_addr() IS NULL)"
        assert one(connection, where) == f"crochet {make_url(database).database} true"
        assert one(connection, "SHOW DateStyle") == "ISO, MDY"
        assert one(connection, "SHOW default_transaction_read_only") == "off"
