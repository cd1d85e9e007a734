"""Where settings come from: the environment (CROCHET_*), and a file. Nothing else reads or changes the environment."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import platformdirs

from crochet_tasks.errors import InvalidSetting

PREFIX = "CROCHET_"
FILE = f"{PREFIX}CONFIG_FILE"


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


# ── the file ────────────────────────────────────────────────────────────────────────────────────


def file() -> Path | None:
    """The settings file: the one of CROCHET_CONFIG_FILE, else the user's config.toml, if it is there."""
    named = os.environ.get(FILE)
    if named:
        return Path(named)
    try:
        usual = Path(platformdirs.user_config_dir("crochet-tasks", appauthor=False)) / "config.toml"
    except RuntimeError:  # no HOME, and no entry in /etc/passwd: a random user id of OpenShift
        return None
    return usual if usual.is_file() else None


def in_file() -> dict[str, Any]:
    """The settings in the file, by their names in lower case without CROCHET_. Raises InvalidSetting."""
    path = file()
    if path is None:
        return {}
    import tomllib  # here: most have no file, and the import takes as long as one of a small package

    try:
        with path.open("rb") as opened:
            found = tomllib.load(opened)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidSetting(variable=FILE, problem=f"{path} cannot be read as TOML: {reason}") from None
    return {name.lower().removeprefix(PREFIX.lower()): value for name, value in found.items()}


# ── the environment ─────────────────────────────────────────────────────────────────────────────


def in_environment(name: str) -> bool:
    """Whether the environment sets this one, to whatever. Like an empty one, it may be written in any case."""
    return any(value and key.upper() == variable(name) for key, value in os.environ.items())


def is_set(name: str) -> bool:
    """Whether the environment or the file sets this one."""
    return in_environment(name) or name in in_file()


def unknown(known: set[str]) -> list[str]:
    """Variables that begin with CROCHET_, and keys of the file, that are not settings: most likely misspelt."""
    variables = sorted(
        name
        for name in os.environ
        if name.upper().startswith(PREFIX) and name.upper().removeprefix(PREFIX).lower() not in known
    )
    return variables + [f"{name} (in {file()})" for name in sorted(in_file()) if name not in known]


def environment(**changes: str) -> dict[str, str]:
    """The environment for a process that we start: ours, with these variables set."""
    return {**os.environ, **changes}


def forget(*names: str) -> None:
    """Take variables out of the environment, where a library would find them and let them overrule the settings."""
    for name in names:
        os.environ.pop(name, None)


def forget_libpq() -> None:
    """Take every PG* variable out of the environment: a private server is reached by its address alone."""
    forget(*(name for name in os.environ if name.startswith("PG")))


def remember(name: str, value: str) -> None:
    """Set a variable that a library reads, in this process and those that it starts."""
    os.environ[name] = value


def inherited(name: str) -> str | None:
    """A variable that the process which started this one has set with `remember`."""
    return os.environ.get(name)


# ── the program ─────────────────────────────────────────────────────────────────────────────────


def version() -> str:
    """The version of the installed package."""
    try:
        return version_of("crochet-tasks")
    except PackageNotFoundError:  # it runs from its folder
        return "0"
