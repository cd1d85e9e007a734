"""The mapped files that records go into."""

from __future__ import annotations

import mmap
import os

from prometheus_client.mmap_dict import MmapedDict

FIRST_BYTES = 1 << 16
"""of a new file"""


class Reserved(MmapedDict):
    """The library's file, with its room reserved before it is mapped: it makes holes.

    To write into a hole that there is no memory for kills the process (SIGBUS); to reserve it raises OSError.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:  # noqa: FBT001, FBT002 - as the library calls it
        if not read_mode:
            _begin(filename)
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        # an entry: its key's length, its key, 1 to 8 blanks up to a multiple of 8 bytes, value and time
        length = len(key.encode())
        needed, room = self._used + 4 + length + 8 - (length + 4) % 8 + 16, self._capacity
        while room < needed:
            room *= 2
        if room != self._capacity:
            os.posix_fallocate(self._f.fileno(), 0, room)
            self._m = mmap.mmap(self._f.fileno(), room)
            self._capacity = room
        super()._init_value(key)  # type: ignore[no-untyped-call]


def _begin(filename: str) -> None:
    """Make the file, all zeros, unless it is there."""
    file = os.open(filename, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.fstat(file).st_size == 0:
            os.posix_fallocate(file, 0, FIRST_BYTES)
    except OSError:
        os.unlink(filename)  # noqa: PTH108 - an empty one
        raise
    finally:
        os.close(file)
