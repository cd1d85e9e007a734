"""Builds of the engine's kernel (hatch_build.py): whether that of the product is fresh, and others in its place.

`pytest --kernel checked` and `--kernel sanitized` (through scripts/sanitized) run tests with another build, in the
processes of pytest; processes that a test starts have the product's.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from crochet_tasks.engine import kernel
from tests.support.paths import ROOT

NAMES = ["checked", "sanitized"]
SOURCE = ROOT / "crochet_tasks" / "engine" / "kernel.pyx"


def stale() -> bool:
    """Whether the kernel was compiled beside its source, and before the source was written."""
    built = Path(str(kernel.__file__))
    return built.parent == SOURCE.parent and built.stat().st_mtime < SOURCE.stat().st_mtime


def installed() -> ModuleType:
    """The kernel that the modules of this process have."""
    return sys.modules[kernel.__name__]


def path(name: str) -> Path:
    """Where a build is, which is compiled where it is missing."""
    command = [sys.executable, str(ROOT / "hatch_build.py"), name]
    return Path(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def load(file: Path, name: str = kernel.__name__) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def install(build: ModuleType) -> None:
    """Make a build the kernel of all modules of this process, before anything was made by the other one."""
    names = vars(kernel).copy()
    for module in [module for name, module in sys.modules.items() if name.startswith("crochet_tasks.")]:
        for name, value in vars(module).copy().items():
            if value is kernel:
                setattr(module, name, build)
            elif module is not kernel and not name.startswith("__") and names.get(name) is value:
                setattr(module, name, getattr(build, name))
    sys.modules[kernel.__name__] = build
