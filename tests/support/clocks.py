"""Processes whose clock is wrong, as on a host that no time server corrects: libfaketime, loaded before all else."""

from __future__ import annotations

from pathlib import Path

from tests.support.server import Missing

PATTERN = "usr/lib/*/faketime/libfaketimeMT.so.1"
"""the build for programs with several threads"""


def wrong_by(seconds: int) -> dict[str, str]:
    """The environment of a process to which it is so much later than it is; raises Missing.

    Only what says how late it is differs: how long something takes is measured by another clock, which goes on alike
    on all hosts. Nothing is left in /dev/shm, where processes would share their clock: some are killed.
    """
    found = sorted(Path("/").glob(PATTERN))
    if not found:
        raise Missing("libfaketime is not installed: run `make services` or `sudo apt-get install libfaketime`")
    return {
        "LD_PRELOAD": str(found[-1]),
        "FAKETIME": f"{seconds:+}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DISABLE_SHM": "1",
        "PYTHONPATH": str(Path(__file__).parent / "wrong_clock"),
    }
