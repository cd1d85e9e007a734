"""A file that is no UTF-8 text is refused with what it looks like and what to do."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma

import pytest

from crochet_tasks.errors import TextHasNul, TextNotUtf8
from crochet_tasks.intake.files import decoded

PROSE = "In the beginning God created the heaven and the earth. Café, naïve, Ægir. " * 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (PROSE.encode("utf-16"), "iconv -f UTF-16 -t UTF-8"),
        (PROSE.encode("utf-16-le"), "iconv -f UTF-16LE -t UTF-8"),
        (PROSE.encode("utf-16-be"), "iconv -f UTF-16BE -t UTF-8"),
        ("plain ascii".encode("utf-16-le"), "iconv -f UTF-16LE -t UTF-8"),  # valid UTF-8, with NULs
        (PROSE.encode("utf-32"), "iconv -f UTF-32 -t UTF-8"),
        (PROSE.encode("utf-32-le"), "iconv -f UTF-32LE -t UTF-8"),
        (PROSE.encode("utf-32-be"), "iconv -f UTF-32BE -t UTF-8"),
        (PROSE.encode("latin-1"), "iconv -f ISO-8859-1 -t UTF-8"),
        ("the “sea”".encode("windows-1252"), "iconv -f WINDOWS-1252 -t UTF-8"),
        (gzip.compress(PROSE.encode(), mtime=0), "gunzip"),
        (bz2.compress(PROSE.encode()), "bunzip2"),
        (lzma.compress(PROSE.encode()), "unxz"),
        (b"PK\x03\x04\x14\x00\xff\xfe", "save its text as UTF-8"),
        (b"%PDF-1.7\n\xe2\xe3\xcf\xd3", "save its text as UTF-8"),
        (PROSE.encode()[:-3] + b"\xe2\x80", "cut off"),
        (PROSE.encode().replace(b"heaven", b"h\xffaven"), "most of it is UTF-8"),
        (b"\xef\xbb\xbfthe sea \xff", "most of it is UTF-8"),
        (bytes(range(256)) * 4, "binary data"),
        (b"\x7fELF\x02\x01\x01" + bytes(9), "binary data"),
    ],
    ids=itertools.count(),
)
def test_what_a_file_looks_like_is_said(content: bytes, says: str) -> None:
    with pytest.raises((TextNotUtf8, TextHasNul), match=r"^f\.txt ") as refused:
        decoded("f.txt", content, 10**6)
    assert says in str(refused.value)


def test_a_single_nul_is_named_by_its_place() -> None:
    with pytest.raises(TextHasNul, match=r"offset 7.*tr -d"):
        decoded("f.txt", b"the sea\0" + b"and the shore " * 20, 10**6)
