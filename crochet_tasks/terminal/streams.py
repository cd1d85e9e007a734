"""The standard streams of a command. Writing to a closed or full one raises OutputFailed, never an internal error."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import unicodedata

from crochet_tasks.errors import OutputFailed

_JOINERS = "\u200c\u200d"
"""invisible, but part of how Persian, Indic scripts and emoji are written"""


# ── text from outside ───────────────────────────────────────────────────────────────────────────


def plain(text: str, keep: str = "") -> str:
    """Escape characters that a terminal would act on instead of showing: control sequences, changes of direction.

    Those in `keep`, such as a line break, stay.
    """
    if text.isprintable():
        return text
    return "".join(each if _is_displayed(each) or each in keep else _escaped(each) for each in text)


def _is_displayed(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    """As JSON escapes it, so that escaped JSON means the same."""
    number = ord(character)
    if number < 0x10000:
        return f"\\u{number:04x}"
    return "".join(f"\\u{unit:04x}" for unit in (0xD7C0 + (number >> 10), 0xDC00 | (number & 0x3FF)))


# ── the streams ─────────────────────────────────────────────────────────────────────────────────


def prepare() -> None:
    """Make the three streams usable in whatever state the caller left them. Call it first, in the main process.

    A closed one becomes /dev/null, opened so that reading input and writing output fail with EBADF; otherwise the next
    file or socket that this process opens would become its output. Errors that standard error raises are ignored.
    Errors of standard output are raised as OutputFailed, or SystemExit(0) where the reader is gone.
    """
    for number, how in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDWR)):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, how), number)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_Stream(0, "r", closefd=False)))
    for before in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # what was written before
            if before is not None:
                before.flush()
    # What a terminal's encoding lacks is escaped; exports and JSON are UTF-8 whatever it is.
    output, errors = _Output(1, "w", closefd=False), _Errors(2, "w", closefd=False)
    encodings = ["utf-8" if stream is None else stream.encoding for stream in (sys.stdout, sys.stderr)]
    buffered = io.BufferedWriter(output)
    sys.stdout = io.TextIOWrapper(buffered, encodings[0], "backslashreplace", line_buffering=output.isatty())
    # Without a buffer: a buffer refuses a signal handler's note that comes during another write.
    sys.stderr = io.TextIOWrapper(errors, encodings[1], "backslashreplace", write_through=True)


class _Stream(io.FileIO):
    """A standard stream, which is not ours to open."""


class _Errors(_Stream):
    """Standard error: what cannot be written is dropped, because a lost message must not decide the outcome."""

    def write(self, data: object) -> int:
        """All of it, as a buffer would."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        left = view
        with contextlib.suppress(OSError):
            while left and (written := super().write(left)) is not None:  # None: it is non-blocking and full
                left = left[written:]
        return view.nbytes


class _Output(_Stream):
    """Standard output: the first error is raised; what comes after it is dropped, also at the end of the process."""

    _failed = False

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        if self._failed:
            return view.nbytes
        try:
            written = super().write(view)
        except BrokenPipeError:
            self._failed = True
            raise SystemExit(0) from None
        except OSError as error:
            self._failed = True
            raise OutputFailed(reason=error.strerror or str(error)) from error
        return written  # None: BufferedWriter raises BlockingIOError


def note(line: str) -> None:
    """A line on standard error, beside the output."""
    sys.stderr.write(f"crochet: {plain(line)}\n")
