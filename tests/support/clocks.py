"""Processes whose clock is wrong, as on a host that no time server corrects: libfaketime, loaded before all else."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

from tests.support.server import Missing

PATTERN = "usr/lib/*/faketime/libfaketimeMT.so.1"
"""the build for programs with several threads"""
EXACT_SECONDS = 300
"""more than it takes to start a program on any machine"""


def wrong_by(seconds: int) -> dict[str, str]:
    """The environment of a process to which it is so much later than it is; raises Missing.

    Only what says how late it is differs: how long something takes is measured by another clock, which goes on alike
    on all hosts.
    """
    found = sorted(Path("/").glob(PATTERN))
    if not found:
        raise Missing("libfaketime is not installed: run `make services` or `sudo apt-get install libfaketime`")
    environment = {
        "LD_PRELOAD": str(found[-1]),
        "FAKETIME": f"{seconds:+}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": str(Path(__file__).parent / "wrong_clock"),
    }
    program = "import time; time.sleep(0.01); print(time.time())"
    said = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    off = float(said.stdout) - time.time()  # a library that cannot be loaded is only complained about
    assert abs(off - seconds) < EXACT_SECONDS, f"with {found[-1]} a clock is wrong by {off:.0f} s, not {seconds} s"
    return environment


def clean_up() -> None:
    """Remove what libfaketime keeps in shared memory for each process, of those that have ended: some were killed."""
    for path in Path("/dev/shm").glob("*faketime_s*_*"):
        if not Path("/proc", path.name.rpartition("_")[2]).exists():
            with contextlib.suppress(OSError):  # another user's
                path.unlink()
