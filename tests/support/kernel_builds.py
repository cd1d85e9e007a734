"""Builds of the engine's compiled modules (hatch_build.py): whether the product's are fresh, and others in their place.

`pytest --kernel checked` and `--kernel sanitized` (through scripts/sanitized) run tests with another build, in the
processes of pytest; processes that a test starts have the product's.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from tests.support.paths import ROOT

NAMES = ["checked", "sanitized"]
ENGINE = ROOT / "crochet_tasks" / "engine"
MODULES = ("kernel", "packing", "stacks")


def stale() -> bool:
    """Whether a module is not compiled, or was compiled beside its source and before the source was written."""
    try:
        files = [(Path(str(module(name).__file__)), ENGINE / f"{name}.pyx") for name in MODULES]
    except ImportError:
        return True
    return any(built.parent == ENGINE and built.stat().st_mtime < source.stat().st_mtime for built, source in files)


def module(name: str) -> ModuleType:
    """A compiled module of the engine."""
    return importlib.import_module(f"crochet_tasks.engine.{name}")


def installed() -> ModuleType:
    """The kernel that the modules of this process have."""
    return module("kernel")


def path(name: str) -> Path:
    """The folder of a build, which is compiled where it is missing."""
    command = [sys.executable, str(ROOT / "hatch_build.py"), name]
    return Path(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def load(file: Path, name: str = "crochet_tasks.engine.kernel") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def install(folder: Path) -> None:
    """Make a build the compiled modules of this process, before anything was made by the others."""
    for name in MODULES:
        (file,) = folder.glob(f"{name}.*")
        put(module(name), load(file, module(name).__name__))


def put(old: ModuleType, build: ModuleType) -> None:
    """Give our modules what a build has in place of what they took from the old one."""
    names = vars(old).copy()
    for user in [user for name, user in sys.modules.items() if name.startswith("crochet_tasks.")]:
        for name, value in vars(user).copy().items():
            if value is old:
                setattr(user, name, build)
            elif user is not old and not name.startswith("__") and name in names and names[name] is value:
                setattr(user, name, getattr(build, name))
    sys.modules[old.__name__] = build
