"""What the documents name is there: files and headings of links, files in the text, make targets and settings."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from crochet_tasks.settings import Settings, variable
from tests.support.paths import ROOT

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(page for name in ("docs", "benchmarks") for page in (ROOT / name).rglob("*.md")),
]
CURRENT = [page for page in PAGES if page.parent.name != "adr" and page.name != "CHANGELOG.md"]
"""pages that tell how things are, not how they were"""
SOURCES = ("crochet_tasks", "api", "web", "tests", "docs", "deploy", "benchmarks", "scripts", "examples")
NOT_OURS = {"docker-compose.override.yml", "backup.json", "crochet-tasks/config.toml", "archive.json", "best.json"}
"""files of users, and members of archives"""
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_broken(page: Path, link: str) -> bool:
    name, _, fragment = unquote(link).partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists():
        return True
    return bool(fragment) and target.suffix == ".md" and fragment not in anchors(target)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not re.match(r"[a-z]+:", link)]
    assert [link for link in links if is_broken(page, link)] == []


def test_a_broken_link_is_found() -> None:
    page = ROOT / "README.md"
    assert is_broken(page, "docs/no-such-page.md")
    assert is_broken(page, "docs/deployment.md#no-such-heading")
    assert not is_broken(page, "docs/deployment.md#back-up")


@pytest.fixture(scope="module")
def paths() -> list[str]:
    """All files and, with a slash at the end, folders: `/a/`, `/a/b.py`."""
    found = [path for folder in SOURCES for path in (ROOT / folder).rglob("*")]
    found += [*ROOT.iterdir(), *(ROOT / ".github").rglob("*")]
    return [f"/{path.relative_to(ROOT)}{'/' if path.is_dir() else ''}" for path in found]


def missing(page: str, paths: list[str]) -> list[str]:
    """The files and folders that a text names in code type, by the end of their path or all of it, and are not there.

    What begins with a slash is a route.
    """
    named = re.findall(r"`([\w.-][\w./-]*(?:/|\.(?:py|pyx|md|toml|ya?ml|sql|json|html|css|js|conf|service)))`", page)
    return [name for name in named if name not in NOT_OURS and not any(path.endswith(f"/{name}") for path in paths)]


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path, paths: list[str]) -> None:
    assert missing(page.read_text(encoding="utf-8"), paths) == []


def test_a_file_that_is_not_there_is_found(paths: list[str]) -> None:
    named = "`db/attempts.py` `db/failure.py` `cli/` `commands/` `celeryconfig.py` `not/a file.py`"
    assert missing(named, paths) == ["db/failure.py", "commands/"]


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_and_settings_that_are_named_exist(page: Path) -> None:
    content = page.read_text(encoding="utf-8")
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = re.findall(r"(?:`|^ *)make ([a-z][\w-]*)", content, re.MULTILINE)
    assert [name for name in named if name not in targets] == []
    settings = {variable(name) for name in Settings.model_fields}
    assert set(re.findall(r"\bCROCHET_[A-Z_0-9]+\b", content)) - settings == set()


def test_every_decision_is_in_the_index() -> None:
    index = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in (ROOT / "docs" / "adr").glob("0*.md")}
    assert set(re.findall(r"^\| \[\d{4}\]\((\S+)\)", index, re.MULTILINE)) == files
