"""What `verify` reads: the stored rows as they are, without relying on any counter or state."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, func, select, text

from crochet_tasks.db import bulk
from crochet_tasks.db.tables import batches, texts, words, work
from crochet_tasks.db.tally import SEARCHING
from crochet_tasks.db.windows import UNFINISHED
from crochet_tasks.engine.geometry import Sides


class WordRow(NamedTuple):
    id: int
    born: int
    word: str


class PhraseChunk(NamedTuple):
    """Phrases with consecutive ids; `parent` and `word` packed."""

    first: int
    size: int
    born: int
    parent: bytes
    word: bytes


def vocabulary(connection: Connection, corpus: int) -> list[WordRow]:
    """All words by id."""
    query = select(words.c.id, words.c.born, words.c.word).where(words.c.corpus == corpus).order_by(words.c.id)
    return [WordRow(*row) for row in connection.execute(query)]


def phrases(connection: Connection, corpus: int) -> list[PhraseChunk]:
    """All chunks of the phrase tree by their first id."""
    return [PhraseChunk(*row) for row in bulk.rows(connection, _PHRASES, {"corpus": corpus})]


_PHRASES = "SELECT first, count, born, parent, word FROM phrases WHERE corpus = %(corpus)s ORDER BY first"


def limits(connection: Connection, corpus: int) -> list[tuple[int, int]]:
    """(version, how many phrases it has) of every text that is a version."""
    query = select(texts.c.version, texts.c.phrases).where(texts.c.corpus == corpus, texts.c.version.is_not(None))
    return [(int(version), int(limit)) for version, limit in connection.execute(query.order_by(texts.c.version))]


def altered_texts(connection: Connection, corpus: int) -> list[int]:
    """The texts whose body is not the one that was accepted."""
    return list(connection.execute(text(_ALTERED), {"corpus": corpus}).scalars())


_ALTERED = "SELECT id FROM texts WHERE corpus = :corpus AND sha256 <> sha256(convert_to(body, 'UTF8')) ORDER BY id"


def is_in(connection: Connection, item: uuid.UUID, states: Sequence[str]) -> bool:
    """Whether there is such work in one of these states."""
    query = select(work.c.id).where(work.c.id == item, work.c.state.in_(states))
    return connection.execute(query).first() is not None


def stored_shapes(connection: Connection, corpus: int) -> dict[Sides, tuple[int, int]]:
    """Per shape: how many orthos and batches there are, counted from the batches."""
    query = select(batches.c.sides, func.sum(batches.c.count), func.count())
    rows = connection.execute(query.where(batches.c.corpus == corpus).group_by(batches.c.sides))
    return {tuple(sides): (int(orthos), number) for sides, orthos, number in rows}


def pending_remediations(connection: Connection, corpus: int) -> list[int]:
    """The versions whose remediations are unfinished."""
    query = select(work.c.subject).where(work.c.corpus == corpus, work.c.kind == "remediations")
    return list(connection.execute(query.where(work.c.state.in_(UNFINISHED))).scalars())


def unfinished(connection: Connection, corpus: int) -> int:
    """How much work there is whose outcome the store lacks. A failed text has failed work for good."""
    query = select(func.count()).where(
        work.c.corpus == corpus,
        (work.c.state == "open") | (work.c.state.in_(UNFINISHED) & work.c.kind.in_(SEARCHING)),
    )
    return int(connection.execute(query).scalar_one())
