"""An archive says of itself what is in it, and whatever is wrong with one is found before it is used."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crochet_tasks.archive import check, read, written
from crochet_tasks.engine import runs
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.errors import ArchiveDamaged, ArchiveForeign, ArchiveTooNew
from tests.support import oracle, steps
from tests.support.archives import MadeCorpus, Members, altered, archive_of, archived, members, zipped
from tests.support.longer import by_run

MADE = archived(steps.TEXTS)


def test_of_a_complete_corpus_nothing_is_wrong() -> None:
    """Counts are those of the oracle, and searching everything again finds the same."""
    seen: list[str] = []
    checked = check(archive_of(MADE), full=True, progress=seen.append)
    expected = oracle.closure(steps.TEXTS, *Limits())
    assert checked.archive.manifest.total == len(expected)
    assert seen[-1] == f"searched everything again: {len(expected)} orthos"
    assert [text.body for text in checked.archive.texts()] == steps.TEXTS


def test_a_corpus_without_texts_is_complete() -> None:
    assert check(archive_of(archived([])), full=True).archive.manifest.total == 0


def test_any_zip_program_and_any_json_library_read_the_texts() -> None:
    with zipfile.ZipFile(io.BytesIO(MADE)) as archive:
        assert archive.testzip() is None
        lines = archive.read("texts.jsonl").decode().splitlines()
    assert [json.loads(line)["body"] for line in lines] == steps.TEXTS


def test_no_more_than_a_part_is_held_while_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text is passed on before the next one is read."""
    bodies = ["".join(random.Random(place).choices("abcdefgh ", k=100_000)) for place in range(3)]
    monkeypatch.setattr("crochet_tasks.archive.write._Sink.ENOUGH", 10_000)

    class Texts(MadeCorpus):
        def __init__(self) -> None:
            super().__init__([])

        def texts(self) -> Any:
            made = MadeCorpus(["a b"]).texts()
            one = next(made)
            for body in bodies:
                taken.append(len(parts))
                yield one._replace(body=body)

    taken: list[int] = []
    parts: list[bytes] = []
    parts.extend(written(Texts()))
    assert taken == sorted(set(taken)), "a text was read before the one before it was passed on"


# ── what is wrong ───────────────────────────────────────────────────────────────────────────────


def changed_json(name: str, change: Callable[[Any], None], line: int = 0) -> Callable[[Members], object]:
    def alter(contents: Members) -> None:
        lines = [contents[name]] if name == "archive.json" else contents[name].splitlines()
        value = json.loads(lines[line])
        change(value)
        lines[line] = json.dumps(value).encode()
        contents[name] = b"\n".join(lines) + b"\n"

    return alter


def changed_record(name: str, change: Callable[[dict[str, Any]], None], place: int = 0) -> Callable[[Members], object]:
    def alter(contents: Members) -> None:
        records = list(msgpack.Unpacker(io.BytesIO(contents[name])))
        change(records[place])
        contents[name] = b"".join(map(msgpack.packb, records))

    return alter


def put(field: str, value: object) -> Callable[[Any], None]:
    def change(record: Any) -> None:
        record[field] = value

    return change


def renamed(old: str, new: str) -> Callable[[Members], object]:
    def alter(contents: Members) -> None:
        contents[new] = contents.pop(old)

    return alter


def other_word(contents: Members) -> None:
    contents["words.jsonl"] = contents["words.jsonl"].replace(b'"word":"x"', b'"word":"z"')


def fewer_orthos(contents: Members) -> None:
    """Leave a batch out, and have the manifest agree."""
    records = list(msgpack.Unpacker(io.BytesIO(contents["orthos.msgpack"])))
    gone = records.pop(0)
    contents["orthos.msgpack"] = b"".join(map(msgpack.packb, records))
    said = json.loads(contents["archive.json"])
    said["orthos"]["x".join(map(str, gone["sides"]))] -= gone["count"]
    said["members"]["orthos.msgpack"]["records"] -= 1
    contents["archive.json"] = json.dumps(said).encode()


# What is done to it, whether sums and sizes are made to agree, and what is said of it.
DAMAGE: dict[str, tuple[Callable[[Members], object], bool, str]] = {
    "a byte changed": (
        lambda contents: contents.update({"words.jsonl": contents["words.jsonl"].replace(b'"a"', b'"b"')}),
        False,
        "words.jsonl is not what was written: its checksum differs",
    ),
    "cut short": (
        lambda contents: contents.update({"orthos.msgpack": contents["orthos.msgpack"][:-5]}),
        False,
        "orthos.msgpack has",
    ),
    "a record cut off": (
        lambda contents: contents.update({"orthos.msgpack": contents["orthos.msgpack"][:-5]}),
        True,
        "checksum differs",
    ),
    "a member missing": (lambda contents: contents.pop("words.jsonl"), False, "each once, and nothing else"),
    "a path": (renamed("best.json", "../../best.json"), False, "each once, and nothing else"),
    "an absolute path": (renamed("best.json", "/etc/passwd"), False, "each once, and nothing else"),
    "no manifest": (lambda contents: contents.pop("archive.json"), False, "it has no archive.json"),
    "a manifest of somebody else": (
        lambda contents: contents.update({"archive.json": b'{"name": "other"}'}),
        False,
        "archive.json names no format",
    ),
    "a manifest with a surplus field": (changed_json("archive.json", put("more", 1)), False, "archive.json: more"),
    "a name that no corpus has": (
        changed_json("archive.json", lambda said: put("name", "../x")(said["corpus"])),
        False,
        "archive.json: corpus.name",
    ),
    "a text that is another": (
        changed_json("texts.jsonl", put("body", "p q r")),
        True,
        "line 1 of texts.jsonl: the text is not that of its checksum",
    ),
    "a text twice": (
        lambda contents: contents.update({"texts.jsonl": contents["texts.jsonl"] + contents["texts.jsonl"]}),
        True,
        "text 1 is there twice",
    ),
    "a version that is missing": (
        lambda contents: contents.update({"texts.jsonl": contents["texts.jsonl"].partition(b"\n")[2]}),
        True,
        "the corpus is at version 3, but its texts made versions [2, 3]",
    ),
    "a phrase that no text holds": (other_word, True, "text 1 (a b c, d e f, a d, b) brings"),
    "a word twice": (changed_json("words.jsonl", put("word", "b")), True, "words.jsonl has a word twice"),
    "a word with a blank": (changed_json("words.jsonl", put("word", "a b"), 3), True, "line 4 of words.jsonl: word"),
    "orthos that are younger than their numbering": (
        changed_record("orthos.msgpack", put("born", 3)),
        True,
        "record 1 of orthos.msgpack is born after version 1",
    ),
    "phrases that are too many": (
        changed_record("phrases.msgpack", put("count", 2_000_000)),
        True,
        "phrases 1 to 2000000 are born in version 1, which has",
    ),
    "phrases that are damaged": (changed_record("phrases.msgpack", put("word", b"\1")), True, "the phrases 1 to"),
    "no bytes": (changed_record("phrases.msgpack", put("word", "text")), True, "record 1 of phrases.msgpack: word"),
    "a count that lies": (changed_record("orthos.msgpack", put("count", 1)), True, "batch 1 is damaged (it holds"),
    "a count that fills memory": (
        changed_record("orthos.msgpack", put("count", 1 << 40)),
        True,
        "record 1 of orthos.msgpack: count",
    ),
    "a batch that is too large": (
        changed_record(
            "orthos.msgpack", lambda one: one.update(sides=[8, 64, 64], count=1_000_000, first="", last=""), -1
        ),
        True,
        "orthos.msgpack claims 1000000 orthos, too many for a batch",
    ),
    "out of order": (
        changed_record("orthos.msgpack", put("sides", [2, 2]), -1),
        True,
        "orthos.msgpack is out of order",
    ),
    "a shape that the limits do not allow": (
        changed_record("orthos.msgpack", put("sides", [9, 9]), -1),
        True,
        "(9x9) is beyond the limits of the corpus",
    ),
    "a numbering that is none": (
        changed_record("orthos.msgpack", put("numbering", 9)),
        True,
        "batch 1 (2x2) has the phrase ids of version 9, there are 3",
    ),
    "orthos of another range": (
        changed_record("orthos.msgpack", put("last", "z z z z")),
        True,
        "batch 1 (2x2) is recorded from 'a d b c' to 'z z z z'",
    ),
    "orthos that are older than their lines": (
        changed_record("orthos.msgpack", lambda one: one.update(born=1), 2),
        True,
        "with a line that is no phrase of version 1",
    ),
    "orthos that are damaged": (
        changed_record("orthos.msgpack", lambda one: put("packed", one["packed"][:-1])(one)),
        True,
        "altered: batch 1 is damaged (its checksum differs); nothing",
    ),
    "a number of orthos that lies": (
        changed_json("archive.json", lambda said: put("2x3", 9)(said["orthos"])),
        False,
        "archive.json says that there are 9 orthos of shape 2x3, and there are 8",
    ),
    "a proof that is none": (
        lambda contents: contents.update(
            {
                "best.json": json.dumps(
                    {"max_axes": 3, "max_side": 8, "max_cells": 64, "top": None, "visits": 1}
                    | {"search": "{}", "report": "{}", "certificate": "{}"}
                ).encode()
                + b"\n"
            }
        ),
        True,
        "best.json: it is no certificate",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_wrong_is_found(damage: str) -> None:
    """Every kind of damage is refused, with what and where."""
    change, agreeing, words = DAMAGE[damage]
    with pytest.raises((ArchiveDamaged, ArchiveForeign)) as caught:
        check(archive_of(altered(MADE, change, agreeing=agreeing)))
    assert words in str(caught.value)
    assert str(caught.value).startswith("x.crochet ")


def test_an_ortho_that_is_stored_twice_is_found() -> None:
    def twice(contents: Members) -> None:
        contents["orthos.msgpack"] = contents["orthos.msgpack"][: len(first)] + contents["orthos.msgpack"]

    first = msgpack.packb(next(iter(msgpack.Unpacker(io.BytesIO(members(MADE)["orthos.msgpack"])))))
    with pytest.raises(ArchiveDamaged, match=r"are stored more than once"):
        check(archive_of(altered(MADE, twice, agreeing=True)))


def test_an_ortho_that_is_missing_is_found_by_searching_again() -> None:
    lacking = altered(MADE, fewer_orthos, agreeing=True)
    check(archive_of(lacking))
    with pytest.raises(ArchiveDamaged, match=r"2x2: [0-9]+ orthos stored, 22 exist; missing: "):
        check(archive_of(lacking), full=True)


def test_a_newer_format_is_said() -> None:
    newer = altered(MADE, changed_json("archive.json", put("format", 2)), agreeing=False)
    with pytest.raises(ArchiveTooNew, match=r"x.crochet has format 2, which a newer crochet wrote; this one knows 1"):
        archive_of(newer)


@pytest.mark.parametrize("end", [0, 1, 21, 100, -1, -100])
def test_a_file_that_is_cut_off_is_refused(end: int) -> None:
    with pytest.raises(ArchiveForeign, match=r"it does not end as a zip file does; it may be cut off"):
        archive_of(MADE[:end])


@pytest.mark.parametrize("third", by_run([0], longer=[1, 2]))
def test_a_byte_that_flips_is_found_wherever_it_is(third: int) -> None:
    """Or it is in what nothing depends on, such as a time in a header."""
    directory = MADE.index(b"PK\x01\x02")
    flips = [(place, place % 8) for place in range(0, directory, 11)]
    flips += [(place, bit) for place in range(directory, len(MADE)) for bit in range(place % 3, 8, 3)]
    flips, found = flips[third::3], 0
    for place, bit in flips:
        flipped = bytearray(MADE)
        flipped[place] ^= 1 << bit
        try:
            checked = check(archive_of(bytes(flipped)))
        except (ArchiveDamaged, ArchiveForeign, ArchiveTooNew):
            found += 1
        else:
            assert [text.body for text in checked.archive.texts()] == steps.TEXTS
    assert found > len(flips) / 2


@given(st.integers(0, len(MADE)), st.integers(0, 40), st.binary(max_size=40))
def test_other_bytes_anywhere_are_found(place: int, number: int, by: bytes) -> None:
    """Some are cut out and others put there: refused, or in what nothing depends on."""
    try:
        checked = check(archive_of(MADE[:place] + by + MADE[place + number :]))
    except (ArchiveDamaged, ArchiveForeign, ArchiveTooNew):
        return
    assert [text.body for text in checked.archive.texts()] == steps.TEXTS


@pytest.mark.parametrize("claimed", [len(MADE), 1 << 16, 1 << 31])
def test_a_directory_that_claims_to_lie_after_the_file_is_refused(claimed: int) -> None:
    """Its members would begin outside of the file: a seek there is an error of the system, not of the archive."""
    with pytest.raises(ArchiveForeign, match=r"begins outside of the file"):
        archive_of(MADE[:-6] + claimed.to_bytes(4, "little") + MADE[-2:])


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_no_other_compression_is_read(how: int) -> None:
    with pytest.raises(ArchiveForeign, match=rf"is compressed by method {how}"):
        archive_of(zipped(members(MADE), how))


def test_a_zip_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    def bomb(contents: Members) -> None:
        contents["texts.jsonl"] = b" " * (8 << 20)

    made = altered(MADE, bomb, agreeing=True)
    monkeypatch.setattr(read.Archive, "_member", None)
    with pytest.raises(ArchiveDamaged, match=r"texts.jsonl claims to unpack from"):
        archive_of(made)


def test_a_line_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "LINE_BYTES", 100)
    with pytest.raises(ArchiveDamaged, match=r"line 1 of texts.jsonl is longer than 100 bytes"):
        check(archive_of(MADE))


def test_packed_orthos_do_not_unpack_without_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "LARGEST", 4)
    with pytest.raises(ArchiveDamaged, match=r"claims to unpack to more than 4 bytes"):
        check(archive_of(MADE))


def test_a_zip_file_with_many_members_is_not_read() -> None:
    with pytest.raises(ArchiveForeign, match=r"it has 100 members"):
        archive_of(zipped({str(number): b"" for number in range(100)}))


@pytest.mark.parametrize("content", [b"", b"PK", b"a text\n" * 10, bytes(500)])
def test_something_else_is_no_archive(content: bytes) -> None:
    with pytest.raises(ArchiveForeign, match=r"x.crochet is no archive of a corpus"):
        archive_of(content)
