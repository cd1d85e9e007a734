"""Fixtures: a new state folder, and one with a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import HARBOUR, crochet


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(scope="session")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with one text in it, for tests that only read."""
    state = tmp_path_factory.mktemp("harbour") / "state"
    assert crochet("run", HARBOUR, "--state", state).returncode == 0
    return state
