"""What a process of the API works with, opened and closed by itself."""

from __future__ import annotations

import contextlib

import pytest
from pydantic import SecretStr

from api import create_app
from api import process as context
from crochet_tasks.db import guarded
from crochet_tasks.db.guarded import GuardedDatabase
from crochet_tasks.db.process import here
from crochet_tasks.errors import DatabaseUnavailable
from crochet_tasks.settings import Settings

pytestmark = pytest.mark.integration


def test_it_is_open_until_its_worker_ends(database: str) -> None:
    """Then what uses it is stopped first, and its pool closed; and there are connections for all that ask at once."""
    made = create_app(Settings(database_url=SecretStr(database), environment="development"))
    assert made.test_client().get("/v1/corpora", headers={"Authorization": "Bearer crk_none_none"}).status_code == 401
    with made.app_context():
        process = context.current()
        assert (context.current(), here()) == (process, process)
    with contextlib.ExitStack() as held:
        for _ in range(context.CONNECTIONS):
            held.enter_context(process.database.snapshot())
    stopped: list[str] = []

    def stop() -> None:
        with process.database.transaction() as connection:
            stopped.append(connection.exec_driver_sql("SELECT 'stopped'").scalar_one())

    process.at_end(stop)
    pool = process.database.engine.pool
    context.close(made)
    assert stopped == ["stopped"]
    assert process.database.engine.pool is not pool  # it was given up
    with pytest.raises(RuntimeError):
        here()
    context.close(made)
    assert stopped == ["stopped"]


def test_a_full_pool_is_no_dead_database(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request without a free connection is refused; no other is."""
    monkeypatch.setattr(guarded, "CONNECT_SECONDS", 1)
    with contextlib.closing(GuardedDatabase(database, Settings(), 1)) as made:
        full = pytest.raises(DatabaseUnavailable, match="no connection became free")
        with made.transaction(), full, made.transaction():
            pass
        with made.transaction() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
