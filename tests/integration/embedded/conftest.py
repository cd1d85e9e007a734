"""Fixtures: a state folder, and processes that own its server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.owners import Owner, Spawn
from tests.support.paths import ROOT


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Run an owner script on a state folder, in its own process group."""
    owners: list[Owner] = []

    def run(script: str, state: Path) -> Owner:
        owner = subprocess.Popen(
            [sys.executable, "-c", script, str(state)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        owners.append(owner)
        return owner

    yield run
    for owner in owners:
        with owner:
            owner.kill()
