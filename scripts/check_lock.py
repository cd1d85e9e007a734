"""Check that requirements.lock satisfies pyproject.toml. Needs no network; `make lock` fixes what it reports."""

import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
DIRECT = "crochet-tasks (pyproject.toml)"


def required() -> dict[str, Requirement]:
    """Every requirement of the project and of its extras, by canonical name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return {canonicalize_name(r.name): r for group in groups for r in map(Requirement, group)}


def problems(lock: str) -> list[str]:
    found: list[str] = []
    direct: dict[str, str] = {}
    for entry in re.split(r"\n(?=[A-Za-z0-9])", lock):
        if not entry[0].isalnum():
            continue  # the header
        pin = re.match(r"([\w.-]+)(?:\[[^]]*])?==([\w.!+]+)", entry)
        if pin is None:
            found.append(f"not a pinned version: {entry.splitlines()[0]}")
            continue
        if "--hash=sha256:" not in entry:
            found.append(f"{pin[1]} has no hash")
        if DIRECT in entry:
            direct[canonicalize_name(pin[1])] = pin[2]
    requirements = required()
    for name, requirement in requirements.items():
        if name not in direct:
            found.append(f"{name} is required and not locked")
        elif not requirement.specifier.contains(direct[name], prereleases=True):
            found.append(f"{name} is locked at {direct[name]}, required is {requirement.specifier}")
    found += [f"{name} is locked and no longer required" for name in direct.keys() - requirements.keys()]
    found += [f"names a location: {line}" for line in lock.splitlines() if re.search(r"://|^-|file:", line)]
    return found


if __name__ == "__main__":
    wrong = problems((ROOT / "requirements.lock").read_text("utf-8"))
    for problem in wrong:
        print(f"requirements.lock: {problem}")
    sys.exit("requirements.lock does not fit pyproject.toml: run `make lock`" if wrong else 0)
