"""A complete corpus, read row by row for an archive, and written from one."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from crochet_tasks.db import bulk, corpora
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.tables import best, phrases, texts, windows
from crochet_tasks.db.tables import corpora as rows
from crochet_tasks.db.verification import PhraseChunk

WORDS_AT_ONCE = 10_000

# ── reading ─────────────────────────────────────────────────────────────────────────────────────


class Unfinished(NamedTuple):
    """What a corpus lacks: texts that are no version, open work that finds orthos, and such that failed or was
    dropped.
    """

    texts: int
    open: int
    broken: int


def unfinished(connection: Connection, corpus: int) -> Unfinished:
    return Unfinished(*connection.execute(text(_UNFINISHED), {"corpus": corpus}).one())


_UNFINISHED = """
SELECT (SELECT count(*) FROM texts WHERE corpus = :corpus AND state IN ('accepted', 'ingested')),
       (SELECT count(*) FROM work WHERE corpus = :corpus AND kind <> 'best' AND state = 'open'),
       (SELECT count(*) FROM work WHERE corpus = :corpus AND kind IN ('remediations', 'search')
           AND state IN ('failed', 'cancelled'))
"""


class TextBody(NamedTuple):
    """A text that is a version of its corpus. `phrases`: how many the version has."""

    version: int
    title: str
    sentences: int
    phrases: int
    accepted_at: dt.datetime
    finished_at: dt.datetime
    body: str


def versions(connection: Connection, corpus: int) -> Iterator[TextBody]:
    """The texts that are versions, in their order, one at a time from the server."""
    for row in bulk.stream(connection, _VERSIONS, {"corpus": corpus}, 1):
        yield TextBody(*row)


_VERSIONS = """
SELECT version, title, sentences, phrases, accepted_at, coalesce(finished_at, accepted_at), body FROM texts
 WHERE corpus = %(corpus)s AND version IS NOT NULL ORDER BY version
"""


def words(connection: Connection, corpus: int, version: int) -> Iterator[tuple[int, str]]:
    """(version that brought it, word) of every word of a version, by id."""
    yield from bulk.stream(connection, _WORDS, {"corpus": corpus, "version": version}, WORDS_AT_ONCE)


_WORDS = "SELECT born, word FROM words WHERE corpus = %(corpus)s AND born <= %(version)s ORDER BY id"


def chunks(connection: Connection, corpus: int, version: int) -> Iterator[PhraseChunk]:
    """The phrases of a version, by their ids, a chunk at a time from the server."""
    for row in bulk.stream(connection, _CHUNKS, {"corpus": corpus, "version": version}, 1):
        yield PhraseChunk(*row)


_CHUNKS = """
SELECT first, count, born, parent, word FROM phrases
 WHERE corpus = %(corpus)s AND born <= %(version)s ORDER BY first
"""


class Proof(NamedTuple):
    """A search for the best of a version that is proven; `search`, `report` and `certificate` as JSON."""

    max_axes: int | None
    max_side: int
    max_cells: int | None
    top: int | None
    visits: int
    search: str
    report: str
    certificate: str


def proof(connection: Connection, corpus: int, version: int) -> Proof | None:
    """The newest proof of the best of a version; None where there is none."""
    row = connection.execute(text(_PROOF), {"corpus": corpus, "version": version}).first()
    return None if row is None else Proof(*row)


_PROOF = """
SELECT max_axes, max_side, max_cells, top, visits, search, report::text, certificate FROM best
 WHERE corpus = :corpus AND version = :version AND certificate IS NOT NULL AND search IS NOT NULL
 ORDER BY id DESC LIMIT 1
"""

# ── writing ─────────────────────────────────────────────────────────────────────────────────────


def add_corpus(connection: Connection, new: Corpus) -> Corpus | None:
    """Write a corpus that has its version and its reading rules already; None where its tenant has one of that name."""
    made = corpora.create(connection, new.tenant, new.name, new.limits, new.description, new.budget)
    if made is None:
        return None
    changed = rows.update().where(rows.c.id == made.id).values(version=new.version, reading=new.reading)
    connection.execute(changed)
    if new.version:
        # Every box was searched: nothing is due, and the window of the next version begins after it.
        window = {"version": new.version, "since": 0, "due": None, "starts": 0}
        connection.execute(windows.insert().values(corpus=made.id, **window))
    return made._replace(version=new.version, reading=new.reading)


def add_text(connection: Connection, corpus: int, new: TextBody, sha256: bytes) -> None:
    values = {**new._asdict(), "corpus": corpus, "seq": new.version, "sha256": sha256, "state": "current"}
    connection.execute(texts.insert().values(values))


def add_words(connection: Connection, corpus: int, first: int, new: Sequence[tuple[int, str]]) -> None:
    """Write words with consecutive ids from `first` on, given as (version that brought it, word)."""
    born, written = zip(*new, strict=True)
    values = {"corpus": corpus, "first": first, "born": list(born), "words": list(written)}
    bulk.execute(connection, _ADD_WORDS, values)


_ADD_WORDS = """
INSERT INTO words (corpus, id, born, word)
SELECT %(corpus)s, %(first)s + place - 1, born, word
  FROM unnest(%(born)s::int[], %(words)s::text[]) WITH ORDINALITY AS new (born, word, place)
"""


def add_chunk(connection: Connection, corpus: int, new: PhraseChunk) -> None:
    values = {"first": new.first, "count": new.size, "born": new.born, "parent": new.parent, "word": new.word}
    connection.execute(phrases.insert().values(corpus=corpus, **values))


def add_proof(connection: Connection, corpus: int, version: int, new: Proof) -> None:
    now = text("clock_timestamp()")
    values: dict[str, Any] = {**new._asdict(), "report": json.loads(new.report), "revision": 1, "version": version}
    values |= {"began_at": now, "changed_at": now, "finished_at": now}
    connection.execute(best.insert().values(corpus=corpus, **values))
