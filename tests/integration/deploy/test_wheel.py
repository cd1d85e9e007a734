"""What the wheel and the source archive hold."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import hatch_build
from tests.support import kernel_builds
from tests.support.paths import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow]

COMPILED = {f"crochet_tasks/engine/{hatch_build.built(source)}" for source in hatch_build.SOURCES}
KERNEL = next(name for name in COMPILED if name.startswith("crochet_tasks/engine/kernel."))


def built(target: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    environment = {**os.environ, "CXXFLAGS": "-O0"}  # noqa: TID251 - a compiler's; how fast the kernel is does not count
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=environment)
    (file,) = folder.iterdir()
    return file


def in_checkout() -> set[str]:
    """The files of the packages, without what was made of them."""
    files = [
        file for package in ("crochet_tasks", "api", "web") for file in (ROOT / package).rglob("*") if file.is_file()
    ]
    kept = [file for file in files if "__pycache__" not in file.parts and file.suffix not in {".so", ".cpp"}]
    return {str(file.relative_to(ROOT)) for file in kept} | {"celeryconfig.py"}


def test_the_wheel_holds_the_packages_and_the_compiled_kernel(tmp_path: Path) -> None:
    wheel = built("wheel", tmp_path / "wheel")
    assert "-py3-none-any" not in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        archive.extract(KERNEL, tmp_path)
    assert names == in_checkout() - {f"crochet_tasks/engine/{source.name}" for source in hatch_build.SOURCES} | COMPILED
    module = kernel_builds.load(tmp_path / KERNEL)
    assert set(vars(kernel_builds.installed())) == set(vars(module))


def test_the_source_archive_holds_what_a_wheel_is_built_from(tmp_path: Path) -> None:
    with tarfile.open(built("sdist", tmp_path / "sdist")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert in_checkout() | {"pyproject.toml", "hatch_build.py", "README.md", "LICENSE"} <= names
    assert not [name for name in names if name.endswith((".so", ".cpp"))]
