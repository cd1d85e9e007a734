"""Texts as their owner sees them, and how much of a corpus waits: each look is bounded, however much there is."""

from __future__ import annotations

import datetime as dt
from typing import Any, NamedTuple

from sqlalchemy import Connection, text


class TextSeen(NamedTuple):
    """A text without its body; `position` is its place among those that wait, from 1."""

    id: int
    seq: int
    title: str
    state: str
    sentences: int
    version: int | None
    bytes: int
    error: dict[str, Any] | None
    position: int | None
    accepted_at: dt.datetime
    finished_at: dt.datetime | None


_PAGE = """
SELECT texts.id, seq, title, state, sentences, version, octet_length(body), error, position, accepted_at, finished_at
  FROM texts LEFT JOIN (
       SELECT id, row_number() OVER (ORDER BY seq) AS position FROM texts
        WHERE corpus = :corpus AND state IN ('accepted', 'ingested')
       ) AS waiting ON waiting.id = texts.id
 WHERE corpus = :corpus AND seq > :after AND (CAST(:state AS text) IS NULL OR state = :state)
 ORDER BY seq LIMIT :most
"""
_ONE = """
SELECT id, seq, title, state, sentences, version, octet_length(body), error,
       CASE WHEN state IN ('accepted', 'ingested') THEN (
           SELECT count(*) FROM texts AS first
            WHERE first.corpus = texts.corpus AND first.state IN ('accepted', 'ingested') AND first.seq <= texts.seq
       ) END, accepted_at, finished_at
  FROM texts WHERE corpus = :corpus AND id = :number
"""


def page(connection: Connection, corpus: int, after: int, state: str | None, most: int) -> list[TextSeen]:
    """So many texts of a corpus, of one state if wanted, in the order of acceptance, after one of them."""
    values = {"corpus": corpus, "after": after, "state": state, "most": most}
    return [TextSeen(*row) for row in connection.execute(text(_PAGE), values)]


def one(connection: Connection, corpus: int, number: int) -> TextSeen | None:
    """A text of this corpus."""
    row = connection.execute(text(_ONE), {"corpus": corpus, "number": number}).first()
    return None if row is None else TextSeen(*row)


def waiting(connection: Connection, corpus: int, most: int) -> int:
    """How many texts of a corpus wait; `most` where there are more."""
    return int(connection.execute(text(_WAITING), {"corpus": corpus, "most": most}).scalar_one())


_WAITING = """
SELECT count(*) FROM (
    SELECT FROM texts WHERE corpus = :corpus AND state IN ('accepted', 'ingested') LIMIT :most
) AS few
"""


def open_work(connection: Connection, corpus: int, most: int) -> int:
    """How much work of a corpus is still to be published; `most` where there is more."""
    return int(connection.execute(text(_OPEN), {"corpus": corpus, "most": most}).scalar_one())


_OPEN = """
SELECT count(*) FROM (
    SELECT FROM work WHERE state = 'open' AND published_at IS NULL AND corpus = :corpus LIMIT :most
) AS few
"""


class Seen(NamedTuple):
    """How far a corpus is."""

    id: int
    tenant: int
    corpus: str
    version: int
    orthos: int
    waiting_texts: int
    open_work: int
    failed_work: int


_SEEN = """
SELECT corpora.id, tenant, name, version,
       (SELECT coalesce(sum(orthos), 0)::bigint FROM counts WHERE counts.corpus = corpora.id),
       (SELECT count(*) FROM texts WHERE texts.corpus = corpora.id AND state IN ('accepted', 'ingested')),
       (SELECT count(*) FROM work WHERE work.corpus = corpora.id AND state = 'open'),
       (SELECT count(*) FROM work WHERE work.corpus = corpora.id AND state = 'failed')
  FROM corpora
 WHERE removed_at IS NULL AND tenant = ANY(:tenants)
 ORDER BY name
"""


def seen(connection: Connection, tenants: list[int]) -> list[Seen]:
    """How far all corpora of these tenants are."""
    return [Seen(*row) for row in connection.execute(text(_SEEN), {"tenants": tenants})]
