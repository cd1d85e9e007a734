"""A place for backups, and an empty database that one is restored into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crochet_tasks.db.sessions import Database
from crochet_tasks.recovery import Place
from tests.support.backups import opened


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "backups"))


@pytest.fixture
def target(empty: str) -> Iterator[Database]:
    yield from opened(empty)
