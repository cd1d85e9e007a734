"""Corpora and their locks."""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

from sqlalchemy import Connection, func, select, text
from sqlalchemy.dialects.postgresql import insert

from crochet_tasks.db import bulk
from crochet_tasks.db.tables import corpora, counts
from crochet_tasks.engine.geometry import Limits, Sides
from crochet_tasks.errors import CorpusUnknown, InvalidName, LimitOutOfRange, LimitsFixed

RANGES = {"max_axes": (2, 8), "max_side": (2, 64), "max_cells": (4, 1024)}


class Corpus(NamedTuple):
    id: int
    name: str
    limits: Limits
    version: int


class Lock(enum.IntEnum):
    """The advisory locks of a corpus. Held to the end of the transaction."""

    ACCEPTANCE = 1
    """whoever accepts a text: texts are numbered in the order of acceptance"""
    ORDER = 2
    """the ordered stages: one at a time, whichever worker a message wakes"""
    VERSION = 3
    """shared by those who write what was found at a version, exclusive for the one that makes the next"""
    COUNTS = 4
    """whoever changes counters, as the last thing in a transaction: so none waits for another's rows"""


def hold(connection: Connection, corpus: int, lock: Lock, *, shared: bool = False) -> None:
    """Take a lock. What it protects has to be read in a later statement: this one's snapshot may be older."""
    function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    connection.execute(text(f"SELECT {function}(:lock, :corpus)"), {"lock": int(lock), "corpus": corpus})


def checked(limits: Limits) -> Limits:
    """The limits, or LimitOutOfRange."""
    for name, value in limits._asdict().items():
        low, high = RANGES[name]
        if not low <= value <= high:
            raise LimitOutOfRange(limit=name, low=low, high=high, value=value)
    return limits


def check_name(name: str) -> None:
    """Raise InvalidName unless a corpus can have that name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise InvalidName(name=name)


def obtain(connection: Connection, name: str, wanted: dict[str, int]) -> Corpus:
    """The corpus of that name, made with the limits `wanted` (defaults for the rest) when there is none yet.

    Raises LimitsFixed when there is one and its limits are others than those wanted.
    """
    limits = checked(Limits(**wanted))
    check_name(name)
    connection.execute(insert(corpora).values(name=name, **limits._asdict()).on_conflict_do_nothing())
    corpus = named(connection, name)
    if any(getattr(corpus.limits, limit) != value for limit, value in wanted.items()):
        raise LimitsFixed(corpus=name, existing=_in_words(corpus.limits._asdict()), wanted=_in_words(wanted))
    return corpus


def _in_words(limits: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in limits.items())


def named(connection: Connection, name: str) -> Corpus:
    """The corpus of that name; raises CorpusUnknown."""
    row = connection.execute(_CORPORA.where(corpora.c.name == name)).first()
    if row is None:
        known = ", ".join(corpus.name for corpus in every(connection)) or "none"
        raise CorpusUnknown(corpus=name, known=known)
    return _corpus(*row)


def numbered(connection: Connection, number: int) -> Corpus:
    return _corpus(*connection.execute(_CORPORA.where(corpora.c.id == number)).one())


def every(connection: Connection) -> list[Corpus]:
    return [_corpus(*row) for row in connection.execute(_CORPORA.order_by(corpora.c.name))]


def version(connection: Connection, corpus: int) -> int:
    return int(connection.execute(select(corpora.c.version).where(corpora.c.id == corpus)).scalar_one())


_CORPORA = select(*(corpora.c[name] for name in ("id", "name", "version", *Limits._fields)))


def _corpus(number: int, name: str, version: int, *limits: int) -> Corpus:
    return Corpus(number, name, Limits(*limits), version)


# ── counters ────────────────────────────────────────────────────────────────────────────────────


class Change(NamedTuple):
    """By how much a shape's counters change."""

    orthos: int
    batches: int


def count(connection: Connection, corpus: int, changes: dict[Sides, Change]) -> None:
    """Change the counters. The last thing that a transaction does before it commits."""
    hold(connection, corpus, Lock.COUNTS)
    bulk.execute(
        connection,
        _COUNT,
        {
            "corpus": corpus,
            "sides": [bulk.array_text(sides) for sides in changes],
            "orthos": [change.orthos for change in changes.values()],
            "batches": [change.batches for change in changes.values()],
        },
    )


_COUNT = """
WITH change AS (
    SELECT sides::smallint[] AS sides, orthos, batches
      FROM unnest(%(sides)s::text[], %(orthos)s::bigint[], %(batches)s::bigint[]) AS change (sides, orthos, batches)
), changed AS (
    UPDATE counts SET orthos = counts.orthos + change.orthos, batches = counts.batches + change.batches
      FROM change WHERE counts.corpus = %(corpus)s AND counts.sides = change.sides
    RETURNING counts.sides
)
INSERT INTO counts (corpus, sides, orthos, batches)
SELECT %(corpus)s, sides, orthos, batches FROM change WHERE sides NOT IN (SELECT sides FROM changed)
"""


def counted(connection: Connection, corpus: int) -> dict[Sides, Change]:
    """The counters per shape."""
    rows = connection.execute(
        select(counts.c.sides, counts.c.orthos, counts.c.batches).where(counts.c.corpus == corpus)
    )
    return {tuple(sides): Change(orthos, batches) for sides, orthos, batches in rows}


def total(connection: Connection, corpus: int) -> int:
    """How many orthos are stored."""
    orthos = func.coalesce(func.sum(counts.c.orthos), 0)
    return int(connection.execute(select(orthos).where(counts.c.corpus == corpus)).scalar_one())


def packed_bytes(connection: Connection, corpus: int) -> int:
    """The bytes of a corpus' texts, phrases, orthos and remediations, as packed; no value is read for it."""
    return int(connection.execute(text(_PACKED_BYTES), {"corpus": corpus}).scalar_one())


_PACKED_BYTES = """
SELECT (SELECT coalesce(sum(octet_length(body)), 0) FROM texts WHERE corpus = :corpus)
     + (SELECT coalesce(sum(octet_length(parent) + octet_length(word)), 0) FROM phrases WHERE corpus = :corpus)
     + (SELECT coalesce(sum(octet_length(cells) + coalesce(octet_length(phrases), 0)), 0)
          FROM batches LEFT JOIN remediations ON remediations.batch = batches.id WHERE corpus = :corpus)
"""
