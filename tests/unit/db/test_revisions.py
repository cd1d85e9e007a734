"""Migrations are numbered one after the other: two that were written side by side are noticed before they meet."""

from __future__ import annotations

import re

from crochet_tasks.db import schema
from tests.support.paths import ROOT

VERSIONS = ROOT / "crochet_tasks" / "db" / "migrations" / "versions"


def test_each_migration_follows_on_the_one_before() -> None:
    files = sorted(VERSIONS.glob("[0-9]*.py"))
    numbers = [file.name[:4] for file in files]
    assert numbers == [f"{number:04}" for number in range(1, len(files) + 1)]
    assert numbers[-1] == schema.HEAD
    for number, before, file in zip(numbers, [None, *numbers], files, strict=False):
        text = file.read_text(encoding="utf-8")
        assert re.findall(r'^revision = "(\d+)"', text, re.MULTILINE) == [number]
        assert re.findall(r"^down_revision = (.+)$", text, re.MULTILINE) == [f'"{before}"' if before else "None"]
