"""Check that the lock files satisfy pyproject.toml, and that the image's is a part of the other. Needs no network;
`make lock` fixes what it reports.
"""

import re
import sys
import tomllib
from collections.abc import Collection
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
DIRECT = "crochet-tasks (pyproject.toml)"


IMAGE_EXTRAS = ["build", "embedded"]  # the kernel is compiled in the image's first stage; pg_dump is of the wheel


def required(extras: Collection[str] | None = None) -> dict[str, Requirement]:
    """Every requirement of the project and of these extras, or of all, by canonical name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    optional = project["optional-dependencies"]
    groups = [project["dependencies"], *(optional[extra] for extra in (optional if extras is None else extras))]
    return {canonicalize_name(r.name): r for group in groups for r in map(Requirement, group)}


def entries(lock: str) -> list[str]:
    return [entry for entry in re.split(r"\n(?=[A-Za-z0-9])", lock) if entry[0].isalnum()]  # without the header


def pinned(lock: str) -> dict[str, set[str]]:
    """The version of each package, and the hashes of its files."""
    return {
        canonicalize_name(entry.partition("==")[0].partition("[")[0]): {
            *re.findall(r"==[\w.!+]+|--hash=\S+", entry),
        }
        for entry in entries(lock)
    }


def problems(lock: str, extras: Collection[str] | None = None) -> list[str]:
    found: list[str] = []
    direct: dict[str, str] = {}
    for entry in entries(lock):
        pin = re.match(r"([\w.-]+)(?:\[[^]]*])?==([\w.!+]+)", entry)
        if pin is None:
            found.append(f"not a pinned version: {entry.splitlines()[0]}")
            continue
        if "--hash=sha256:" not in entry:
            found.append(f"{pin[1]} has no hash")
        if DIRECT in entry:
            direct[canonicalize_name(pin[1])] = pin[2]
    requirements = required(extras)
    for name, requirement in requirements.items():
        if name not in direct:
            found.append(f"{name} is required and not locked")
        elif not requirement.specifier.contains(direct[name], prereleases=True):
            found.append(f"{name} is locked at {direct[name]}, required is {requirement.specifier}")
    found += [f"{name} is locked and no longer required" for name in direct.keys() - requirements.keys()]
    found += [f"names a location: {line}" for line in lock.splitlines() if re.search(r"://|^-|file:", line)]
    return found


def differences(part: str, whole: str) -> list[str]:
    """What the image would have that no test ran with."""
    tested = pinned(whole)
    others = [name for name, pin in pinned(part).items() if tested.get(name) != pin]
    return [f"{name} is another one than in requirements.lock" for name in others]


if __name__ == "__main__":
    whole, part = ((ROOT / name).read_text("utf-8") for name in ("requirements.lock", "requirements.image.lock"))
    wrong = [f"requirements.lock: {problem}" for problem in problems(whole)]
    in_image = problems(part, IMAGE_EXTRAS) + differences(part, whole)
    wrong += [f"requirements.image.lock: {problem}" for problem in in_image]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    sys.exit("the lock files do not fit pyproject.toml: run `make lock`" if wrong else 0)
