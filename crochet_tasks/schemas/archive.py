"""What an archive of a corpus consists of: its manifest `archive.json`, and the records of its members."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from crochet_tasks.schemas.names import NAME

FORMAT = 1

_Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Postgres stores no zero byte"""
_Int = Annotated[int, Field(ge=0, lt=1 << 31)]
_Positive = Annotated[int, Field(ge=1, lt=1 << 31)]
_Sum = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ArchivedLimits(_Record):
    max_axes: Annotated[int, Field(ge=2, le=8)]
    max_side: Annotated[int, Field(ge=2, le=64)]
    max_cells: Annotated[int, Field(ge=4, le=1024)]


class ArchivedCorpus(_Record):
    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    description: Annotated[_Text, Field(max_length=2000)]
    budget: Annotated[int, Field(ge=1, lt=1 << 63)] | None
    limits: ArchivedLimits
    reading: Annotated[str, Field(pattern=r"^[0-9./]{1,20}$")]
    """the reading rules and the Unicode version by which its texts were read"""
    version: _Int


class ArchivedMember(_Record):
    """A file of the archive."""

    bytes: Annotated[int, Field(ge=0, lt=1 << 63)]
    """unpacked"""
    sha256: _Sum
    records: Annotated[int, Field(ge=0, lt=1 << 63)]


class ArchiveManifest(_Record):
    """`archive.json`, the last member."""

    format: Literal[1] = 1
    crochet: str
    """the version of the program that wrote it"""
    created_at: dt.datetime
    corpus: ArchivedCorpus
    orthos: dict[Annotated[str, Field(pattern=r"^[0-9]+(x[0-9]+)+$")], _Positive | int]
    """how many there are per shape, such as 2x3"""
    members: dict[str, ArchivedMember]

    @property
    def total(self) -> int:
        """How many orthos there are."""
        return sum(self.orthos.values())


class TextRecord(_Record):
    """A line of `texts.jsonl`: a text that is a version of the corpus."""

    version: _Positive
    title: Annotated[_Text, Field(max_length=10_000)]
    sentences: _Int
    phrases: _Positive
    """how many phrases the version has, the empty one included"""
    sha256: _Sum
    """of the body as UTF-8"""
    accepted_at: dt.datetime
    finished_at: dt.datetime
    body: _Text


class WordRecord(_Record):
    """A line of `words.jsonl`; the first word has id 0, the next one 1, …"""

    born: _Positive
    """the version that brought it"""
    word: Annotated[str, Field(pattern=r"^[^\x00-\x26]+$")]
    """letters, marks and apostrophes, whatever the reading rules: the order of orthos rests on it (engine/runs.py)"""


class PhrasesRecord(_Record):
    """A record of `phrases.msgpack`: phrases with consecutive ids, packed as in the store (engine/runs.py)."""

    first: _Positive
    count: _Positive
    born: _Positive
    parent: bytes
    word: bytes


class BatchRecord(_Record):
    """A record of `orthos.msgpack`: a sorted run of orthos of one shape, packed as in the store (engine/runs.py)."""

    sides: Annotated[list[Annotated[int, Field(ge=2, le=64)]], Field(min_length=2, max_length=8)]
    count: Annotated[int, Field(ge=1, le=1_000_000)]
    numbering: _Positive
    """the version whose phrase ids it holds"""
    born: _Positive
    """the version at which all its orthos existed"""
    first: _Text
    last: _Text
    packed: bytes


class BestRecord(_Record):
    """`best.json`: the proof of the best orthos of the version, as `crochet best --certificate` writes it."""

    max_axes: Annotated[int, Field(ge=2, lt=1 << 15)] | None
    max_side: Annotated[int, Field(ge=2, lt=1 << 15)]
    max_cells: Annotated[int, Field(ge=4, lt=1 << 31)] | None
    top: _Positive | None
    visits: Annotated[int, Field(ge=0, lt=1 << 63)]
    search: str
    report: str
    certificate: str
