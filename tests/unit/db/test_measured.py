"""What statements took, until it is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from psycopg import sql

from crochet_tasks.db import measured
from crochet_tasks.telemetry import instruments


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[None]:
    instruments.begin(tmp_path, "worker")
    yield
    instruments.end()


@pytest.mark.parametrize("ends", [False, True])
def test_a_connection_keeps_nothing_beyond_its_transaction(ends: bool) -> None:
    """Not even where metrics end meanwhile, as when their folder is gone; and whatever the driver was asked."""
    took: measured.Took = [("SELECT 1", 0.1), (sql.SQL("SELECT 2"), 0.1), (b"SELECT 3", 0.1)]
    connection: Any = SimpleNamespace(connection=SimpleNamespace(driver_connection=SimpleNamespace(took=took)))
    for _ in range(2):
        with measured.transaction(connection):
            took.append(("SELECT 4", 0.1))
            if ends:
                instruments.end()
        assert took == []
