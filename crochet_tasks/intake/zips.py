"""Zip files of untrusted origin: their directory is checked before the library reads it.

Nothing of them is unpacked to disk, and no name in them is used as a path.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

from crochet_tasks.errors import CrochetError, ZipRefused

MAGIC = b"PK\x03\x04"
BOMB_RATIO = 100
"""no text packs so well; what claims to unpack to more is made to fill memory or a disk"""
UNREADABLE = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OverflowError,
    ValueError,
    struct.error,
    zlib.error,
)
"""what the library raises for bytes that no zip program wrote, and for encrypted members"""
_OF_A_MAC = "__MACOSX/"
"""where its zip program puts what belongs to the files beside their contents"""
_TAIL = struct.Struct("<4s4H2LH")
_TAIL64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_DIRECTORY_BYTES = 1 << 16
"""of the list of members: enough for a few hundred names of usual length"""

Refuse = Callable[[str], CrochetError]


def opened(file: IO[bytes], most: int, refuse: Refuse) -> zipfile.ZipFile:
    """A zip file of at most so many members, none of which needs more than zlib; raises what `refuse` makes."""
    size = _check_directory(file, most, refuse)
    try:
        found = zipfile.ZipFile(file)
    except UNREADABLE as error:
        raise refuse(f"it cannot be read ({error})") from error
    for info in found.infolist():  # what would become an OSError, as if the disk had failed
        if not 0 <= info.header_offset < size:
            raise refuse(f"{info.filename!r} begins outside of the file")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise refuse(f"{info.filename!r} is compressed by method {info.compress_type}")
    return found


def is_bomb(info: zipfile.ZipInfo) -> bool:
    return info.file_size > BOMB_RATIO * info.compress_size + (1 << 20)


def _check_directory(file: IO[bytes], most: int, refuse: Refuse) -> int:
    """How large a file is that ends as a zip file of a few members does: the library would read any number of them.

    Versions of the library differ in which record of a zip64 file counts. Here there is only one that can.
    """
    size = file.seek(0, 2)
    room = _TAIL64.size + _LOCATOR.size + _TAIL.size
    file.seek(max(0, size - room))
    tail = file.read(room)
    if len(tail) < _TAIL.size or tail[-_TAIL.size :][:4] != b"PK\x05\x06":
        raise refuse("it does not end as a zip file does; it may be cut off")
    end = _TAIL.unpack(tail[-_TAIL.size :])
    entries, length = end[4], end[5]
    if len(tail) == room and tail[_TAIL64.size :][:4] == b"PK\x06\x07":
        end64, locator = _TAIL64.unpack(tail[: _TAIL64.size]), _LOCATOR.unpack(tail[_TAIL64.size : -_TAIL.size])
        if end64[:2] != (b"PK\x06\x06", _TAIL64.size - 12) or locator[2] != size - room:
            raise refuse("the record of its directory is not where it says")
        entries, length = end64[7], end64[8]
    if entries > most or length > _DIRECTORY_BYTES:
        raise refuse(f"it has {entries} members in a directory of {length} bytes")
    return size


# ── texts in them ───────────────────────────────────────────────────────────────────────────────


class Member(NamedTuple):
    """A file in a zip file, of `size` bytes. `read` unpacks some of them, at the most; raises ZipRefused."""

    name: str
    size: int
    read: Callable[[int], bytes]


def members(file: IO[bytes], name: str, most: int, most_bytes: int) -> list[Member]:
    """The files in a zip file, in its order, without folders; raises ZipRefused.

    There are at most so many, which claim to unpack to so many bytes in total at the most; and no member unpacks to
    more than it claims.
    """

    def refuse(problem: str) -> ZipRefused:
        return ZipRefused(file=name, problem=problem)

    archive = opened(file, 2 * most, refuse)
    infos = [each for each in archive.infolist() if not each.is_dir() and not each.filename.startswith(_OF_A_MAC)]
    if len(infos) > most:
        raise refuse(f"it has {len(infos)} files, and {most} are accepted at once")
    if any(map(is_bomb, infos)) or sum(each.file_size for each in infos) > most_bytes:
        raise refuse(f"it would unpack to more than {most_bytes} bytes, or far more than a text does")
    return list(_members(archive, infos, refuse))


def _members(archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo], refuse: Refuse) -> Iterator[Member]:
    def reading(info: zipfile.ZipInfo) -> Callable[[int], bytes]:
        def read(most: int) -> bytes:
            try:
                with archive.open(info) as member:
                    return member.read(most)
            except UNREADABLE as error:
                raise refuse(f"a member cannot be unpacked ({error})") from error

        return read

    for info in infos:
        yield Member(info.filename, info.file_size, reading(info))
