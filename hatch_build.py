"""Compiles crochet_tasks/engine/*.pyx: hatchling's hook for wheels and editable installs, and builds for tests.

    python hatch_build.py checked      # the folder of a build in .cache/kernels, which is made where it is missing

docs/adr/0035-compiled-kernel-build.md says why it is built so. CXX, CXXFLAGS and LDFLAGS of the environment count.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shlex
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
ENGINE = ROOT / "crochet_tasks" / "engine"
SOURCES = sorted(ENGINE.glob("*.pyx"))
BUILDS = ROOT / ".cache" / "kernels"
POPCOUNT = ["-msse4.2", "-mpopcnt"] if platform.machine() in {"x86_64", "AMD64"} else []
"""x86-64-v2, which numpy needs too, in words that old compilers know; other machines count bits without being asked"""


class Build(NamedTuple):
    compiler: list[str]
    linker: list[str]
    directives: dict[str, bool]


FAST = {"boundscheck": False, "wraparound": False, "initializedcheck": False, "cdivision": True}
"""Not at the head of kernel.pyx: what is said there holds for all builds"""
CHECKS = {
    "boundscheck": True,
    "wraparound": False,
    "initializedcheck": True,
    "cdivision": False,
    "show_performance_hints": False,
}
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
PRODUCT = Build(["-O3", "-g0", "-DCYTHON_WITHOUT_ASSERTIONS", *POPCOUNT], ["-Wl,-s"], FAST)
OTHERS = {
    "checked": Build(["-O1", "-UNDEBUG", *POPCOUNT], [], CHECKS),
    "sanitized": Build(["-O1", "-g", "-UNDEBUG", *POPCOUNT, *SANITIZERS], SANITIZERS[:1], CHECKS),
}


def find_compiler() -> None:
    """Say what is missing; where only another compiler than that of this Python is there, take it."""
    wanted = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    if not shutil.which(shlex.split(wanted)[0]):
        found = next(filter(shutil.which, ["c++", "g++", "clang++"]), None)
        if not found:
            stop(f"there is no C++ compiler ({wanted}). On Debian or Ubuntu: sudo apt-get install g++")
        os.environ.update(CXX=found, LDCXXSHARED=f"{found} -shared")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stop(f"there is no {header}. With the Python of Debian or Ubuntu: sudo apt-get install python{version}-dev")


def stop(reason: str) -> NoReturn:
    sys.exit(f"The engine's kernel cannot be compiled: {reason}")


def built(source: Path) -> str:
    """The name of the file that a source is compiled to, as this Python looks for it."""
    return f"{source.stem}{sysconfig.get_config_var('EXT_SUFFIX')}"


def compile_kernel(folder: Path, build: Build = PRODUCT, sources: Sequence[Path] = SOURCES) -> list[Path]:
    """Compile into this folder. A process that has loaded a file that is replaced keeps that one."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    find_compiler()
    own = shlex.split(os.environ.get("CXXFLAGS", ""))  # last: the options of who builds count more than ours
    flags = {"extra_compile_args": [*build.compiler, *own], "extra_link_args": build.linker}
    with tempfile.TemporaryDirectory(prefix="kernel-") as temporary:
        extensions = cythonize(
            [
                Extension(f"crochet_tasks.engine.{source.stem}", [str(source)], language="c++", **flags)
                for source in sources
            ],
            build_dir=temporary,
            force=True,
            quiet=True,
            emit_linenums=build is not PRODUCT,  # reports name lines of the .pyx
            compiler_directives={"language_level": 3, **build.directives},
        )
        command = build_ext(Distribution({"name": "crochet-tasks", "ext_modules": extensions}))
        command.build_lib = command.build_temp = temporary
        command.parallel = len(sources)
        command.ensure_finalized()
        command.run()
        files = []
        for extension, source in zip(extensions, sources, strict=True):
            copied = shutil.copy(command.get_ext_fullpath(extension.name), folder / f"{os.getpid()}-{built(source)}")
            files.append(Path(copied).replace(folder / built(source)))
        return files


def other_build(name: str) -> Path:
    """The folder of a build of OTHERS, which is compiled unless one of the same sources is there."""
    flags = os.environ.get("CXXFLAGS", "")
    read = [source.read_bytes() for source in (*SOURCES, Path(__file__))]
    made_of = b"|".join([*read, sys.version.encode(), flags.encode()])
    folder = BUILDS / f"{name}-{hashlib.sha256(made_of).hexdigest()[:16]}"
    if not all((folder / built(source)).exists() for source in SOURCES):
        folder.mkdir(parents=True, exist_ok=True)
        compile_kernel(folder, OTHERS[name])
    for old in BUILDS.glob(f"{name}-*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    return folder


class KernelHook(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        if version == "editable":  # beside its source, where Python finds it
            compile_kernel(ENGINE)
        else:
            self.folder = tempfile.TemporaryDirectory(prefix="kernel-")
            for file in compile_kernel(Path(self.folder.name)):
                build_data["force_include"][str(file)] = f"{ENGINE.relative_to(ROOT)}/{file.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self.folder.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("build", choices=sorted(OTHERS))
    print(other_build(parser.parse_args().build))
