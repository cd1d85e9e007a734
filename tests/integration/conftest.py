"""Fixtures: a real Postgres of this test process, and fresh databases in it.

    server      one private server per pytest-xdist worker, in a temporary folder, ends with the session
    empty       the URL of a new database without a schema
    database    the URL of a new database with the migrated schema (a copy of a template: some 30 ms)
    process     what tasks find with `here()`, opened on `database` with the default settings
    api         a client of the API for each scope, on `process`: see tests/support/api.py
    guards      `api` with a route of each scope, /v1/test/{scope}
    closed      a corpus of `process` in which steps.TEXTS are played; `look` a snapshot of it, `catalog` reads it

For other settings open the process yourself: `with open_process(Settings(batch_orthos=1), database) as process:`.
Celery runs eagerly because celeryconfig says so. What tests do with a process is in `tests/support/steps.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import create_engine, make_url, text

from crochet_tasks.db import schema
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.db.sessions import Database
from crochet_tasks.embedded import server as embedded
from crochet_tasks.settings import Settings
from tests.support.api import api, guards  # noqa: F401 - fixtures
from tests.support.catalog import catalog, closed, look  # noqa: F401 - fixtures

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the server's own database. It need not survive a power cut, so it does not wait for the disk."""
    private = embedded.EmbeddedPostgres(tmp_path_factory.mktemp("server"))
    with pytest.MonkeyPatch.context() as patch:  # for this one only: others are killed to see what survives
        patch.setitem(embedded.SETTINGS, "fsync", "off")
        patch.setitem(embedded.SETTINGS, "synchronous_commit", "off")
        private.start()
    with private:
        yield private.url


@pytest.fixture(scope="session")
def create(server: str) -> Callable[[str], str]:
    """Makes a database as a copy of another one (template1: an empty one) and returns its URL."""

    def new(template: str) -> str:
        name = f"test_{next(_numbers)}"
        engine = create_engine(server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        engine.dispose()
        return make_url(server).set(database=name).render_as_string()

    return new


@pytest.fixture(scope="session")
def migrated(create: Callable[[str], str]) -> str:
    """The name of a migrated database that nobody writes to."""
    url = create("template1")
    database = Database(url, Settings())
    schema.migrate(database)
    database.close()
    return str(make_url(url).database)


@pytest.fixture
def empty(create: Callable[[str], str]) -> str:
    return create("template1")


@pytest.fixture
def database(create: Callable[[str], str], migrated: str) -> str:
    return create(migrated)


@pytest.fixture
def process(database: str) -> Iterator[Process]:
    with open_process(Settings(), database) as process:
        yield process
