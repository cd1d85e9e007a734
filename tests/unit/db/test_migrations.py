"""Migrations are one row, each behind the one before it, and the older release goes on working on what they make."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from crochet_tasks.db import schema
from tests.support.paths import ROOT

VERSIONS = Path(schema.__file__).parent / "migrations" / "versions"
FIRST = "0017"
"""from which on an older program may work on a newer schema"""

# What takes away what an older program reads, or refuses what it writes; each in one statement of SQL.
CONTRACTS = {
    "drops": r"\bDROP\s+(TABLE|VIEW|SEQUENCE|TYPE|FUNCTION|SCHEMA)\b",
    "drops a column": r"\bALTER\s+TABLE\b.*\bDROP\s+(COLUMN\s+)?(?!(CONSTRAINT|NOT\s+NULL|DEFAULT|IDENTITY)\b)\w",
    "renames": r"\bRENAME\b",
    "changes a type": r"\bALTER\s+(COLUMN\s+)?\w+\s+(SET\s+DATA\s+)?TYPE\b",
    "refuses null": r"\bSET\s+NOT\s+NULL\b",
    "adds a column that must be written": r"\bADD\s+(COLUMN\s+)?(?!CONSTRAINT)\w+\s+\w+"
    r"((?!\bDEFAULT\b|,).)*\bNOT\s+NULL(?!.*\bDEFAULT\b)",
    "takes a default": r"\bDROP\s+(DEFAULT|IDENTITY)\b",
    "adds a constraint": r"\bALTER\s+TABLE\b.*\bADD\s+(CONSTRAINT|CHECK|UNIQUE|FOREIGN|PRIMARY|EXCLUDE)\b",
    "adds a unique index": r"\bCREATE\s+UNIQUE\s+INDEX\b",
    "takes rights": r"\bREVOKE\b",
    "deletes rows": r"^\s*(DELETE|TRUNCATE)\b",
}


class Migration(NamedTuple):
    """A migration, and what its file says: `contracts`, `expands`, `optional`."""

    revision: str
    values: dict[str, object]
    sql: str


def migrations() -> list[Migration]:
    return [_read(path) for path in sorted(VERSIONS.glob("[0-9]*.py"))]


def _read(path: Path) -> Migration:
    code = path.read_text(encoding="utf-8")
    values: dict[str, object] = {
        node.targets[0].id: node.value.value
        for node in ast.parse(code).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    beside = path.with_suffix(".sql")
    own = "\n".join(re.findall(r'"""(.*?)"""|"([^"\n]*)"', code, re.S)[0]) if not beside.exists() else ""
    return Migration(path.name[:4], values, beside.read_text(encoding="utf-8") if beside.exists() else own)


def contractions(sql: str) -> list[str]:
    """What is of the contract kind in this SQL, but for what it does to tables that it makes itself."""
    plain = re.sub(r"--[^\n]*|'(?:[^']|'')*'", "", sql)
    plain = re.sub(r"\$\$.*?\$\$", "", plain, flags=re.S)
    made = set(re.findall(r"\bCREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(\w+)", plain, re.I))
    found = []
    for statement in plain.split(";"):
        on = re.search(r"\b(?:ALTER\s+TABLE|ON)\s+(?:ONLY\s+)?(\w+)", statement, re.I)
        if (on and on[1] in made) or re.match(r"\s*CREATE\s+TABLE\b", statement, re.I):
            continue
        found += [name for name, pattern in CONTRACTS.items() if re.search(pattern, statement, re.I | re.S)]
    return found


def test_each_migration_has_a_number_of_its_own() -> None:
    every = migrations()
    numbers = [each.revision for each in every]
    assert numbers == [f"{number:04}" for number in range(1, len(every) + 1)]
    assert numbers[-1] == schema.HEAD
    for each, before in zip(every, [None, *numbers], strict=False):
        assert (each.values["revision"], each.values["down_revision"]) == (each.revision, before)


@pytest.mark.parametrize(
    "migration", [each for each in migrations() if each.revision >= FIRST], ids=lambda each: each[0]
)
def test_a_migration_expands_or_says_what_it_contracts(migration: Migration) -> None:
    """`contracts = "0021"`: programs work with it whose HEAD is 0021 or newer. `expands = "why"`: it only looks so."""
    found, contracts = contractions(migration.sql), migration.values.get("contracts")
    assert not found or contracts or migration.values.get("expands"), f"{found}: docs/upgrades.md says what to do"
    if contracts is not None:
        assert FIRST <= str(contracts) < migration.revision
        changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        assert f"Migration {migration.revision} contracts" in changes, "the release notes say so"


def test_the_programs_that_a_schema_serves_are_those_before_it_contracts() -> None:
    contracts = [str(each.values["contracts"]) for each in migrations() if "contracts" in each.values]
    assert max(["0016", *contracts]) == schema.SERVES


def test_the_oldest_schema_is_the_newest_that_this_program_cannot_do_without() -> None:
    needed = [each.revision for each in migrations() if not each.values.get("optional")]
    assert max(needed) == schema.OLDEST


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("DROP TABLE seals", "drops"),
        ("ALTER TABLE corpora ADD COLUMN a int, DROP COLUMN reading", "drops a column"),
        ("ALTER TABLE corpora DROP reading", "drops a column"),
        ("ALTER TABLE texts RENAME COLUMN body TO words", "renames"),
        ("ALTER TABLE texts ALTER COLUMN seq TYPE bigint", "changes a type"),
        ("ALTER TABLE texts ALTER error SET NOT NULL", "refuses null"),
        ("ALTER TABLE texts ADD COLUMN language text NOT NULL", "adds a column that must be written"),
        ("ALTER TABLE texts ALTER seq DROP DEFAULT", "takes a default"),
        ("ALTER TABLE texts ADD CONSTRAINT texts_check CHECK (seq > 3)", "adds a constraint"),
        ("CREATE UNIQUE INDEX one ON texts (title)", "adds a unique index"),
        ("REVOKE SELECT ON texts FROM crochet_api", "takes rights"),
        ("DELETE FROM audit", "deletes rows"),
    ],
)
def test_a_contraction_is_found(sql: str, what: str) -> None:
    assert contractions(f"CREATE INDEX other ON texts (title);\n{sql};") == [what]


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE corpora ADD COLUMN paused_at timestamptz",
        "ALTER TABLE texts ADD COLUMN language text NOT NULL DEFAULT 'en'",
        "CREATE TABLE hats (id integer NOT NULL); CREATE UNIQUE INDEX one ON hats (id)",
        "CREATE TABLE hats (id integer); ALTER TABLE hats ADD UNIQUE (id)",
        "ALTER TABLE texts ALTER error DROP NOT NULL",
        "ALTER TABLE texts DROP CONSTRAINT texts_check",
        "DROP INDEX work_searches_idx",
        "-- DROP TABLE texts\nCOMMENT ON TABLE texts IS 'DROP TABLE texts'",
    ],
)
def test_an_expansion_is_none(sql: str) -> None:
    assert contractions(sql) == []
