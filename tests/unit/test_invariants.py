"""docs/invariants.md is complete, and what it names is there."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from crochet_tasks.db import functions
from crochet_tasks.db.metadata import metadata
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "invariants.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| rule ")
]
STATE = (
    *("corpora", "texts", "words", "phrases", "windows", "batches", "remediations", "work", "counts"),
    *("best", "best_faces"),
)
"""the tables that hold the state of the pipeline"""
REPORTS = ("problem", "_report")
"""what checks of `verify` call"""


def constraints() -> set[str]:
    made = [metadata.tables[name] for name in STATE]
    written = " ".join(str(CreateTable(table).compile(dialect=postgresql.dialect())) for table in made)  # type: ignore[no-untyped-call]
    unique = {str(index.name) for table in made for index in table.indexes if index.unique}
    return {*re.findall(r"CONSTRAINT (\w+)", written)} | unique


def triggers() -> set[str]:
    return {*re.findall(r"CREATE TRIGGER (\w+)", " ".join(functions.PROGRAMS))}


def named(cells: list[str]) -> set[str]:
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def names_in(path: Path) -> set[str]:
    """The functions, classes and constants of a file."""
    if path.suffix == ".pyx":
        return {*re.findall(r"^ *(?:def|class|cdef class) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)}
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def is_there(name: str, folder: Path) -> bool:
    path, _, inside = name.partition("::")
    return (folder / path).is_file() and inside in names_in(folder / path)


def functions_of(module: ast.Module) -> Iterator[tuple[ast.FunctionDef, list[ast.AST]]]:
    """Every function with what is in it, and not in a function within it."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef):
            inside, todo = list[ast.AST](), list(ast.iter_child_nodes(node))
            while todo:
                each = todo.pop()
                inside.append(each)
                if not isinstance(each, ast.FunctionDef):
                    todo += ast.iter_child_nodes(each)
            yield node, inside


def called(node: ast.AST | None) -> str:
    """The name of the function that a call calls."""
    function = node.func if isinstance(node, ast.Call) else None
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def refusals(module: ast.Module) -> set[str]:
    """The functions of a module that raise StoreCorrupt."""
    every = list(functions_of(module))
    makers = {f.name for f, _ in every if isinstance(f.returns, ast.Name) and f.returns.id == "StoreCorrupt"}
    return {
        function.name
        for function, inside in every
        if any(isinstance(node, ast.Raise) and called(node.exc) in {"StoreCorrupt", *makers} for node in inside)
    }


def checks(module: ast.Module) -> set[str]:
    """The functions of a module of `verify` that report a problem."""
    every = functions_of(module)
    return {f.name for f, inside in every if f.name not in REPORTS and any(called(node) in REPORTS for node in inside)}


def of_modules(folder: Path, found_in: Callable[[ast.Module], set[str]]) -> set[str]:
    every = {path: found_in(parsed(path)) for path in folder.rglob("*.py")}
    return {f"{path.relative_to(ROOT / 'crochet_tasks').as_posix()}::{name}" for path in every for name in every[path]}


def test_every_rule_is_asserted_on_both_sides_and_broken_by_a_test() -> None:
    assert len(ROWS) > 40
    assert [row[0] for row in ROWS if len(row) != 4 or not all(row)] == []
    assert [row[0] for row in ROWS if not named(row[1:2]) or not named(row[3:])] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_is_named_is_there(row: list[str]) -> None:
    """Functions and constants of the program, constraints and triggers of the database; tests."""
    program = named(row[1:3]) - constraints() - triggers()
    assert [name for name in program if not is_there(name, ROOT / "crochet_tasks")] == []
    assert [name for name in named(row[3:]) if not is_there(name, ROOT / "tests")] == []


def test_what_is_not_there_is_found() -> None:
    assert is_there("db/texts.py::make_version", ROOT / "crochet_tasks")
    assert not is_there("db/texts.py::make_versions", ROOT / "crochet_tasks")
    assert not is_there("db/text.py::make_version", ROOT / "crochet_tasks")


def test_every_constraint_and_trigger_is_listed() -> None:
    assert {"texts_corpus_seq_key", "corpora_tenant_name_key", "batches_sides_check"} < constraints()
    assert (constraints() | triggers()) - named([cell for row in ROWS for cell in row[1:3]]) == set()


def test_every_refusal_of_damaged_rows_is_listed() -> None:
    """Wherever StoreCorrupt is raised, and every check of `crochet verify`."""
    package = ROOT / "crochet_tasks"
    wanted = of_modules(package, refusals) | of_modules(package / "verify", checks)
    assert {"query/store.py::_read", "db/texts.py::make_version", "verify/orthos.py::_orthos"} < wanted
    assert wanted - named([cell for row in ROWS for cell in row[1:3]]) == set()
