"""Where the checkout is, the text that lies beside it on some machines, and where files are written fastest."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
GENESIS = ROOT.parent / "shared" / "texts" / "genesis.txt"
MEMORY = "/dev/shm"
NEEDED_BYTES = 6 << 30
"""more than the three processes of `make test` hold at any time"""


def memory() -> str | None:
    """A folder in memory with room for databases; None where there is none.

    A database that a test makes and drops is some 300 files: ext4 looks long for inodes that were not freed just now
    (docs/adr/0070).
    """
    try:
        room = min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available)
    except OSError:  # there is no such file system
        return None
    return MEMORY if room > NEEDED_BYTES else None
