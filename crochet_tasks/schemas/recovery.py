"""What a backup says of itself: `backup.json` beside its dump."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class CorpusCount(_Frozen):
    """What the dump holds of a corpus."""

    tenant: str
    corpus: str
    version: int
    texts: int
    orthos: int


class Dump(_Frozen):
    """The file of a dump, as it is stored."""

    file: str
    bytes: int
    sha256: str
    encrypted: bool


class Manifest(_Frozen):
    """One backup. It is written last: a backup without it is not complete."""

    format: Literal[1] = 1
    name: str
    crochet: str
    """the version of the program that made it"""
    schema_revision: str
    schema_serves: str | None = None
    """the HEAD of the oldest program that works with it"""
    server: str
    """the version of Postgres"""
    began_at: dt.datetime
    finished_at: dt.datetime
    dump: Dump
    corpora: list[CorpusCount]


class Backups(_Frozen):
    """The complete backups of a place, the oldest first."""

    backups: list[Manifest]
