"""docs/deployment.md: its commands, the settings that it shows, and what it says was not run."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "deployment.md"
SETTING = re.compile(r"[A-Z_]+=[^\s$]*")


class Line(NamedTuple):
    """Of an indented block, which has commands or lines of .env."""

    section: str
    text: str

    @property
    def is_setting(self) -> bool:
        return SETTING.fullmatch(self.text) is not None


def lines() -> list[Line]:
    found: list[Line] = []
    section = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("    ") and section:  # before the first heading: the drawing
            found.append(Line(section, line.strip()))
    return found


def commands() -> list[Line]:
    return [line for line in lines() if not line.is_setting]


def not_run() -> set[str]:
    """The commands in the first column of the table of what is not run."""
    table = PAGE.read_text(encoding="utf-8").partition("| not run |")[2]
    return set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)) & {line.text for line in commands()}
