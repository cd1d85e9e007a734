"""The builds of the kernel that look for faults: they find them, and there are none in the engine's own tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hatch_build
from tests.support import kernel_builds
from tests.support.paths import ROOT

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
]  # compilers, and tests within a test

FAULTY = """
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc

def at(const uint32_t[::1] numbers, Py_ssize_t place):
    return numbers[place]

def halves(int numbers):
    return 1 // numbers

def is_small(int number):
    assert number < 10, "large"

def beyond(int places):
    cdef uint32_t *room = <uint32_t *>malloc(4 * places)
    room[places] = 1
    cdef uint32_t found = room[places]
    free(room)
    return found

def shifted(int number, int bits):
    return number << bits
"""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module with a fault of each kind."""
    file = tmp_path_factory.mktemp("source") / "kernel.pyx"
    file.write_text(FAULTY.strip())
    return file


def test_the_checked_build_checks(faulty: Path, tmp_path: Path) -> None:
    (built,) = hatch_build.compile_kernel(tmp_path, hatch_build.OTHERS["checked"], [faulty])
    module = kernel_builds.load(built, "faulty.kernel")
    numbers = np.arange(3, dtype=np.uint32)
    assert module.at(numbers, 2) == 2
    for place in (-1, 3):
        with pytest.raises(IndexError):
            module.at(numbers, place)
    with pytest.raises(ZeroDivisionError):
        module.halves(0)
    with pytest.raises(AssertionError, match="large"):
        module.is_small(10)


@pytest.mark.parametrize("source", hatch_build.SOURCES, ids=lambda source: source.stem)
def test_the_kernel_does_not_say_what_is_checked(source: Path) -> None:
    """What the head of a source says holds for every build."""
    assert not re.search(r"^# *cython:", source.read_text(), re.MULTILINE)


@pytest.mark.sanitizers
def test_the_sanitizers_end_a_process_at_its_first_fault(faulty: Path, tmp_path: Path) -> None:
    (built,) = hatch_build.compile_kernel(tmp_path, hatch_build.OTHERS["sanitized"], [faulty])

    def run(call: str) -> subprocess.CompletedProcess[str]:
        load = "import sys; from pathlib import Path; from tests.support.kernel_builds import load"
        code = f"{load}; print(load(Path({str(built)!r}), 'faulty.kernel').{call})"
        command = [str(ROOT / "scripts" / "sanitized"), sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    sound = run("shifted(3, 4)")
    assert (sound.returncode, sound.stdout, sound.stderr) == (0, "48\n", "")
    overflow = run("beyond(8)")
    assert overflow.returncode != 0
    assert "heap-buffer-overflow" in overflow.stderr
    line = FAULTY.strip().splitlines().index("    room[places] = 1") + 1
    assert f"kernel.pyx:{line}" in overflow.stderr
    undefined = run("shifted(1, 40)")
    assert undefined.returncode != 0
    assert "shift exponent 40 is too large" in undefined.stderr


@pytest.mark.long
def test_the_tests_of_the_search_pass_with_bounds_checks() -> None:
    """On a quarter of the examples; `make test-kernel` takes all, also with sanitizers, `make fuzz` more of them."""
    files = [f"tests/unit/engine/test_{name}.py" for name in ("search", "runs", "stacks")]
    options = ["-n", "0", "--timeout", "1200", "--kernel", "checked", "--hypothesis-profile", "few"]
    command = [sys.executable, "-m", "pytest", *options, *files]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"^kernel: .*/checked-\w+/kernel\.", run.stdout, re.MULTILINE)
