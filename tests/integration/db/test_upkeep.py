"""How large tables are, and who keeps vacuum from its work, is found and said."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
import pytest

from crochet_tasks.db import upkeep
from crochet_tasks.db.process import Process
from crochet_tasks.db.upkeep import OldTransaction
from crochet_tasks.doctor import Check, checks
from tests.support import steps
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


@contextlib.contextmanager
def forgotten(process: Process) -> Iterator[int]:
    """A psql, say, in which somebody has begun a transaction and gone for lunch."""
    url = process.database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, application_name="lunch") as connection:
        connection.execute("SELECT count(*) FROM work")
        yield connection.info.backend_pid


def found(process: Process) -> list[OldTransaction]:
    with process.database.transaction() as connection:
        return upkeep.transactions(connection)


def test_a_transaction_that_was_forgotten_is_found(process: Process) -> None:
    """With its process and program, and for how long nothing was done; not what it ran."""
    with forgotten(process) as pid:
        eventually(lambda: [each.idle > 0 for each in found(process)] == [True])
        (one,) = found(process)
        assert (one.pid, one.age >= one.idle) == (pid, True)
        assert one.who.startswith(f"process {pid} of ")
        assert one.who.endswith(" (lunch)")
    eventually(lambda: found(process) == [])


def transactions(database: str) -> Check:
    (check,) = (check for check in checks.checks(database_url=database) if check.name == "transactions")
    return check


def test_the_doctor_says_who_it_is_and_how_to_end_it(
    process: Process, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert transactions(database) == Check("transactions", well=True, found="none is old")
    with forgotten(process) as pid:
        assert transactions(database).found == "none is old", "it is forgotten after ten minutes only"
        monkeypatch.setattr(checks, "OLD_SECONDS", 0.0)
        hint = transactions(database)
        assert (hint.well, f"process {pid}" in hint.found, "a backup" in hint.advice) == (True, True, True)
        monkeypatch.setattr(checks, "IDLE_SECONDS", 1e-9)
        check = transactions(database)
        assert (check.well, f"process {pid} of " in check.found) == (False, True)
        assert f"SELECT pg_terminate_backend({pid})" in check.advice


def test_sizes_are_those_of_our_tables(process: Process) -> None:
    steps.ingest_all(steps.new_corpus(process), steps.TEXTS)
    with process.database.transaction() as connection:
        sizes = {each.name: each for each in upkeep.table_sizes(connection)}
    assert {"work", "batches", "audit", "phrases", "request_counts"} <= set(sizes)
    assert all(each.table >= 0 <= each.dead for each in sizes.values())
    assert min(sizes["work"].table, sizes["work"].indexes) >= 8192


def test_how_much_of_the_server_is_used(process: Process) -> None:
    """Connections, and what a replication slot that nobody reads keeps on the disk."""
    with forgotten(process), process.database.transaction() as connection:
        before = upkeep.server_use(connection)
    assert 2 <= before.connections <= before.limit
    steps.sql(process, "SELECT pg_create_physical_replication_slot('nobody', true)")
    try:
        steps.sql(process, "CREATE TABLE large AS SELECT generate_series(1, 30000) AS number")

        def behind() -> int:
            with process.database.transaction() as connection:
                return upkeep.server_use(connection).behind

        eventually(lambda: behind() > max(1_000_000, before.behind))  # the log is written a moment after the commit
    finally:
        steps.sql(process, "SELECT pg_drop_replication_slot('nobody')")
