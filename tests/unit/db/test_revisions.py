"""Migrations are one line: each has a number of its own and follows the one before."""

from __future__ import annotations

import runpy
from pathlib import Path

from crochet_tasks.db import schema

VERSIONS = Path(schema.__file__).parent / "migrations" / "versions"


def test_each_follows_the_one_before() -> None:
    """Two that are made side by side would both follow the same one."""
    files = sorted(VERSIONS.glob("[0-9]*.py"))
    numbers = [f"{number:04}" for number in range(1, len(files) + 1)]
    assert [file.name[:4] for file in files] == numbers
    made = [runpy.run_path(str(file)) for file in files]
    assert [each["revision"] for each in made] == numbers
    assert [each["down_revision"] for each in made] == [None, *numbers[:-1]]
    assert numbers[-1] == schema.HEAD
