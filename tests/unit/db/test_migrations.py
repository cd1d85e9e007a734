"""Migrations are one row, each behind the one before it: two that were written at the same time are noticed at once."""

from __future__ import annotations

import re
from pathlib import Path

from crochet_tasks.db import schema

VERSIONS = Path(schema.__file__).parent / "migrations" / "versions"


def test_each_migration_has_a_number_of_its_own() -> None:
    every = sorted(VERSIONS.glob("[0-9]*.py"))
    numbers = [each.name[:4] for each in every]
    assert numbers == [f"{number:04}" for number in range(1, len(every) + 1)]
    assert numbers[-1] == schema.HEAD
    for path, before in zip(every, [None, *numbers], strict=False):
        said = dict(re.findall(r'^(revision|down_revision) = (?:"(\d+)"|None)', path.read_text(encoding="utf-8"), re.M))
        assert said == {"revision": path.name[:4], "down_revision": before or ""}
