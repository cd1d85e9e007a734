"""What one field of the settings cannot check: values that contradict each other, paths, and where each comes from."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from crochet_tasks.errors import InvalidSetting
from crochet_tasks.schemas.reports import SettingLine
from crochet_tasks.settings.source import in_environment, in_file, variable

if TYPE_CHECKING:
    from crochet_tasks.settings import Settings

BEST_SECONDS = 120.0
"""after which a part of a search for the best is ended: a start that cannot be cut has 90 s (celeryconfig.py)"""


# ── values that contradict each other ───────────────────────────────────────────────────────────


def contradictions(settings: Settings) -> list[InvalidSetting]:
    """Pairs of values of which one makes the other meaningless: refused at start."""
    found = []
    for low, high, why in (
        ("retry_first", "retry_longest", "the first pause cannot be longer than the longest one"),
        ("lock_timeout", "statement_timeout", "a statement ends before its wait for a lock does"),
    ):
        first, second = getattr(settings, low), getattr(settings, high)
        if first > second:
            problem = f"is {first:g}, above {variable(high)}, {second:g}: {why}; change one of them"
            found.append(InvalidSetting(variable=variable(low), problem=problem))
    return found


def doubts(settings: Settings) -> list[str]:
    """Values that work, and hardly as meant: services log them as warnings, `crochet doctor` shows them.

    The default of CROCHET_LEASE is below what a task may take at most, on purpose (ADR 0031).
    """
    found = []
    if "lease" in settings.model_fields_set and settings.lease < settings.task_seconds:
        found.append(
            f"CROCHET_LEASE is {settings.lease:g}: a task may take {settings.task_seconds:g} s, and one that takes "
            "longer than the lease is published again and done twice"
        )
    longest = max(settings.task_seconds, BEST_SECONDS)
    if settings.drain > longest:
        found.append(f"CROCHET_DRAIN is {settings.drain:g}: no task runs longer than {longest:g} s")
    if settings.published_limit < settings.concurrency:
        found.append(
            f"CROCHET_PUBLISHED_LIMIT is {settings.published_limit}, below CROCHET_CONCURRENCY, "
            f"{settings.concurrency}: some processes never get work"
        )
    return found


# ── paths ───────────────────────────────────────────────────────────────────────────────────────


def paths(settings: Settings) -> list[InvalidSetting]:
    """What is wrong with the paths that are set; no file is left to find out."""
    problems = {
        "status_file": None if settings.status_file is None else _not_writable_file(settings.status_file),
        "health_dir": None if settings.health_dir is None else _not_writable_folder(settings.health_dir),
        "key_file": None if settings.key_file is None else _not_readable(settings.key_file),
    }
    return [
        InvalidSetting(variable=variable(name), problem=problem)
        for name, problem in problems.items()
        if problem is not None
    ]


def _not_writable_file(path: Path) -> str | None:
    if path.is_dir():
        return f"{path} is a directory; name a file"
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}; make it"
    return _not_writable(path.parent)


def _not_writable_folder(path: Path) -> str | None:
    """One that is not there yet can be made in the folder that is."""
    nearest = next((each for each in (path, *path.absolute().parents) if os.path.lexists(each)), path)
    return _not_writable(nearest) if nearest.is_dir() else f"{nearest} is not a directory"


def _not_writable(folder: Path) -> str | None:
    """Try it: root passes every check of permissions, also in /proc and where the file system is read-only."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"{folder} is not writable: {error.strerror}; name a folder that is, or free space"


def _not_readable(path: Path) -> str | None:
    if not path.is_file():
        return f"there is no file {path}"
    return None if os.access(path, os.R_OK) else f"{path} is not readable"


# ── what is in force ────────────────────────────────────────────────────────────────────────────


def effective(settings: Settings, options: Mapping[str, Any]) -> list[SettingLine]:
    """Every setting, secrets masked; `options` are those that the command's options set."""
    file = in_file()
    return [
        SettingLine(variable=variable(name), value=_shown(getattr(settings, name)), source=_source(name, options, file))
        for name in type(settings).model_fields
    ]


def _source(name: str, options: Mapping[str, Any], file: Mapping[str, Any]) -> str:
    if name in options:
        return "option"
    if in_environment(name):
        return "environment"
    return "file" if name in file else "default"


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return masked(value.get_secret_value()) if isinstance(value, SecretStr) else str(value)


def masked(secret: str) -> str:
    """Of an address what is no secret; of anything else nothing.

    A password may hold any character, so all up to the last @ goes, and all that could be a parameter.
    """
    scheme, separator, rest = secret.partition("://")
    if not separator or not scheme.isascii():
        return "***"
    login, at, place = rest.rpartition("@")
    place, question, _ = place.partition("?")
    return f"{scheme}://{'***@' if at and login is not None else ''}{place}{'?***' if question else ''}"
