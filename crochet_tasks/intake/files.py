"""Read the files of a command, all of them, before anything is accepted: so a bad file changes nothing."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from crochet_tasks.errors import (
    TextHasNul,
    TextIsDirectory,
    TextNotFound,
    TextNotUtf8,
    TextTooLarge,
    TextUnreadable,
    TextWithoutWords,
    WrongCall,
)
from crochet_tasks.intake.encodings import looks_like

STANDARD_INPUT = "-"


class Input(NamedTuple):
    """A text that was read; `source` names it in messages."""

    source: str
    body: str


def read(files: Iterable[str], max_bytes: int) -> list[Input]:
    """The texts of these files ('-' is standard input), in order; raises the error of the first that is not one."""
    files = list(files)
    if files.count(STANDARD_INPUT) > 1:
        raise WrongCall(problem="standard input ('-') can be read only once")
    texts = []
    for file in files:
        source = "standard input" if file == STANDARD_INPUT else os.fsencode(file).decode(errors="replace")
        texts.append(Input(source, decoded(source, _content(file, source, max_bytes), max_bytes)))
    return texts


def decoded(source: str, content: bytes, max_bytes: int) -> str:
    """The text of a file or request; raises the error that says what is wrong with it."""
    if len(content) > max_bytes:
        raise TextTooLarge(source=source, limit=max_bytes)
    try:
        body = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bom = len(content) - len(error.object)  # the decoder leaves a byte order mark out of its count
        raise TextNotUtf8(source=source, offset=bom + error.start, looks=looks_like(content)) from None
    if "\0" in body:
        looks = looks_like(content)
        raise TextHasNul(source=source, offset=content.index(b"\0"), looks=looks)
    if not any(map(str.isalpha, body)):
        raise TextWithoutWords(source=source)
    return body


def encoded(source: str, body: str) -> bytes:
    """A text as bytes; raises TextNotUtf8 where JSON brought half a surrogate pair, which is no character."""
    try:
        return body.encode()
    except UnicodeEncodeError as error:
        offset = len(body[: error.start].encode())
        raise TextNotUtf8(source=source, offset=offset, looks="it holds half a surrogate pair, no character") from None


def _content(file: str, source: str, max_bytes: int) -> bytes:
    """The bytes of a file, at most one more than allowed: a huge file is not read, an endless one ends."""
    try:
        if file == STANDARD_INPUT:
            return sys.stdin.buffer.read(max_bytes + 1)
        with Path(file).open("rb") as opened:
            about = os.fstat(opened.fileno())
            if stat.S_ISREG(about.st_mode) and about.st_size > max_bytes:
                raise TextTooLarge(source=source, limit=max_bytes)
            return opened.read(max_bytes + 1)
    except FileNotFoundError:
        raise TextNotFound(source=source) from None
    except IsADirectoryError:
        raise TextIsDirectory(source=source) from None
    except OSError as error:
        closed = file == STANDARD_INPUT and error.errno == errno.EBADF
        raise TextUnreadable(source=source, reason="it is closed" if closed else error.strerror or str(error)) from None
