"""A zip file is as large as its own records say, whichever of them a version of the library believes."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest

from crochet_tasks.errors import ZipRefused
from crochet_tasks.intake import zips

LOCATOR, END64, END = struct.Struct("<4sLQL"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4s4H2LH")
MOST, ROOM = 100, 1 << 20


def zipped(members: int = 1) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for number in range(members):
            archive.writestr(f"{number}.txt", b"the sea")
    return made.getvalue()


def as_zip64(content: bytes, extension: bytes = b"", *, signature: bytes = b"PK\x06\x06", before: int = 0) -> bytes:
    """The same file with the records of zip64 in front of its end. `before`: how far off the locator is."""
    end = END.unpack(content[-END.size :])
    directory = content[: -END.size]
    sizes = (END64.size - 12 + len(extension), 45, 45, 0, 0, end[4], end[4], end[5], end[6])
    end64 = END64.pack(signature, *sizes) + extension
    locator = LOCATOR.pack(b"PK\x06\x07", 0, len(directory) - before, 1)
    return directory + end64 + locator + END.pack(*end[:3], 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)


def decoy(members: int, length: int) -> bytes:
    """What looks like the last record of zip64, for a few members."""
    return END64.pack(b"PK\x06\x06", END64.size - 12, 45, 45, 0, 0, members, members, length, 0)


def members(content: bytes) -> list[zips.Member]:
    return zips.members(io.BytesIO(content), "a.zip", MOST, ROOM)


def test_a_zip64_file_is_one_like_others() -> None:
    for content in (zipped(3), as_zip64(zipped(3))):
        assert [(one.name, one.size, one.read(99)) for one in members(content)] == [
            (f"{number}.txt", 7, b"the sea") for number in range(3)
        ]


LARGE = zipped(10_000)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(LARGE, id="as it is"),
        pytest.param(as_zip64(LARGE), id="as zip64"),
        pytest.param(
            LARGE[: -END.size] + decoy(1, 47) + LOCATOR.pack(b"PK\x06\x07", 0, 0, 1) + LARGE[-END.size :],
            id="a decoy that no locator names",
        ),
        pytest.param(
            LARGE[: -END.size]
            + decoy(1, 47).replace(b"PK", b"..")
            + LOCATOR.pack(b"PK\x06\x07", 0, len(LARGE) - END.size, 1)
            + LARGE[-END.size :],
            id="a decoy without a signature",
        ),
        pytest.param(as_zip64(LARGE, decoy(1, 47)), id="a decoy as extension"),
    ],
)
def test_members_without_number_are_refused_before_they_are_read(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("the library reads the directory")

    monkeypatch.setattr(zipfile, "ZipFile", read)
    with pytest.raises(ZipRefused):
        members(content)


@pytest.mark.parametrize("offset", [1 << 40, 1 << 62, 1 << 63, (1 << 64) - 1])
def test_a_member_that_begins_outside_of_the_file_is_refused(offset: int) -> None:
    """By its extra field of zip64, which may say any number."""
    plain = zipped()
    at = plain.index(b"PK\x01\x02")
    extra = struct.pack("<HHQ", 1, 8, offset)
    entry = bytearray(plain[at : -END.size])
    entry[30:32] = struct.pack("<H", len(extra))
    entry[42:46] = b"\xff" * 4
    end = END.unpack(plain[-END.size :])
    length = len(entry) + len(extra)
    content = plain[:at] + bytes(entry) + extra + END.pack(*end[:5], length, at, 0)
    with pytest.raises(ZipRefused, match="outside of the file"):
        members(content)
