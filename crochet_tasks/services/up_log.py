"""The one log of several processes: whole lines, each with the name of who said it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import BinaryIO

LINE_BYTES = 64 * 1024
"""a longer line is cut into several"""
OURS = "up"
_COLOURS = (36, 33, 32, 35, 34, 96)  # ANSI: cyan, yellow, green, magenta, blue, bright cyan
_OWN_COLOUR = 1  # bold


class Lines:
    """Cuts what a process writes into lines; a line is handed out when it is whole."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, written: bytes) -> Iterator[bytes]:
        """The lines that are whole now, without their ends."""
        *whole, rest = (self._rest + written).split(b"\n")
        self._rest = b""
        for line in whole:
            yield from _pieces(line)
        *whole, self._rest = _pieces(rest)
        yield from whole

    def close(self) -> Iterator[bytes]:
        """The last line, if it has no end."""
        if self._rest:
            yield self._rest
        self._rest = b""


def _pieces(line: bytes) -> list[bytes]:
    return [line[begin : begin + LINE_BYTES] for begin in range(0, len(line), LINE_BYTES)] or [b""]


class Log:
    """Writes lines of several processes to one stream. For one thread; a line is one write, so none is torn."""

    def __init__(self, stream: BinaryIO, names: Sequence[str], *, colour: bool) -> None:
        self._stream = stream
        width = max(map(len, [OURS, *names]))
        colours = dict(zip(names, itertools.cycle(_COLOURS), strict=False)) | {OURS: _OWN_COLOUR}
        self._prefixes = {
            name: (f"\033[{number}m{name:<{width}} |\033[0m " if colour else f"{name:<{width}} | ").encode()
            for name, number in colours.items()
        }

    def write(self, name: str, line: bytes) -> None:
        with contextlib.suppress(OSError):  # whoever read the log is gone; that is no reason to end
            self._stream.write(self._prefixes[name] + line.rstrip(b"\r") + b"\n")
            self._stream.flush()

    def say(self, line: str) -> None:
        """A line of our own."""
        self.write(OURS, line.encode(errors="backslashreplace"))
