"""Texts: accepted in order, ingested, made a version; their words and phrases."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import ColumnElement, Connection, ScalarSelect, bindparam, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from crochet_tasks.db import bulk
from crochet_tasks.db.tables import corpora, phrases, texts
from crochet_tasks.engine import runs
from crochet_tasks.engine.phrases import Additions, Ints, PhraseIndex
from crochet_tasks.errors import StoreCorrupt
from crochet_tasks.telemetry import correlation


class TextRow(NamedTuple):
    id: int
    corpus: int
    seq: int
    title: str
    state: str
    sentences: int
    version: int | None
    error: dict[str, Any] | None


_COLUMNS = [texts.c[name] for name in TextRow._fields]


FAILED_OR_CANCELLED = ("failed", "cancelled")
"""states of texts that become no version unless they are accepted again"""


WAITING = ("accepted", "ingested")
"""states of texts that are to become a version"""


def known(connection: Connection, corpus: int, body: str) -> TextRow | None:
    """Return the text with this body, whatever its state. The caller holds the corpus' ACCEPTANCE lock."""
    sha256 = hashlib.sha256(body.encode()).digest()
    row = connection.execute(select(*_COLUMNS).where(texts.c.corpus == corpus, texts.c.sha256 == sha256)).first()
    return None if row is None else TextRow(*row)


HIGHEST = 3
"""priority; 0 is that of the corpus"""


def accept(connection: Connection, corpus: int, title: str, body: str, priority: int = 0) -> TextRow:
    """Insert a text that is not `known`, last in the order of acceptance."""
    values = {"corpus": corpus, "title": title, "body": body, "sha256": hashlib.sha256(body.encode()).digest()}
    new = insert(texts).values(**values, priority=priority, seq=_next_seq(corpus), origin=correlation.row())
    return TextRow(*connection.execute(new.returning(*_COLUMNS)).one())


def accept_again(connection: Connection, text: TextRow, priority: int | None = None) -> TextRow:
    """Accept a failed or cancelled text again, last in the order of acceptance; None: with the priority it had."""
    again = {"state": "accepted", "sentences": 0, "reached": None, "error": None, "finished_at": None}
    again |= {} if priority is None else {"priority": priority}
    changed = (
        update(texts).where(texts.c.id == text.id).values(**again, seq=_next_seq(text.corpus), origin=correlation.row())
    )
    return TextRow(*connection.execute(changed.returning(*_COLUMNS)).one())


def _next_seq(corpus: int) -> ScalarSelect[int]:
    """Return the next `seq`. The caller holds the corpus' ACCEPTANCE lock."""
    return select(func.coalesce(func.max(texts.c.seq), 0) + 1).where(texts.c.corpus == corpus).scalar_subquery()


def in_order(rows: Iterable[TextRow]) -> list[TextRow]:
    """In the order of acceptance: so are texts locked by all that lock several of a corpus (ADR 0079)."""
    return sorted(rows, key=lambda row: (row.corpus, row.seq))


def lock_first_waiting(connection: Connection, corpus: int, but: Collection[int] = ()) -> TextRow | None:
    """Return the text whose turn it is: the first in the order of acceptance that is accepted or ingested, `but` these.

    Its row is locked: it cannot be cancelled until the transaction ends. The caller holds the ORDER lock.
    """
    query = _FIRST_WAITING.where(texts.c.id.not_in(but)) if but else _FIRST_WAITING
    row = connection.execute(query, {"of": corpus}).first()
    return None if row is None else TextRow(*row)


_FIRST_WAITING = (
    select(*_COLUMNS)
    .where(texts.c.corpus == bindparam("of"), texts.c.state.in_(WAITING))
    .order_by(texts.c.seq)
    .limit(1)
    .with_for_update()
)


def body(connection: Connection, text: int) -> str:
    """The text as it was accepted. Raises StoreCorrupt where it was changed since."""
    found, sha256 = connection.execute(select(texts.c.body, texts.c.sha256).where(texts.c.id == text)).one()
    if hashlib.sha256(found.encode()).digest() != bytes(sha256):
        raise StoreCorrupt(problem=f"text {text} is not the one that was accepted: its checksum differs")
    return str(found)


def all_of(connection: Connection, corpus: int) -> list[TextRow]:
    rows = connection.execute(select(*_COLUMNS).where(texts.c.corpus == corpus).order_by(texts.c.seq))
    return [TextRow(*row) for row in rows]


def ingested(connection: Connection, text: int, sentences: int, *, whole: bool) -> None:
    """Record how far a text is ingested. The caller holds the ORDER lock."""
    state = {"state": "ingested"} if whole else {}
    changed = update(texts).where(texts.c.id == text)
    connection.execute(changed.values(sentences=sentences, reached=_limit(texts.c.corpus), **state))


def _limit(corpus: ColumnElement[int]) -> ScalarSelect[int]:
    """How many phrases a corpus has, those of an unfinished text too: the id that the next one gets."""
    last = select(func.coalesce(func.max(phrases.c.next), 1)).where(phrases.c.corpus == corpus)
    return last.scalar_subquery()


def make_version(connection: Connection, text: TextRow) -> tuple[int, float]:
    """Make an ingested text the next version of its corpus; (its number, seconds since the text was accepted).

    Raises StoreCorrupt where the phrases are not those that its last part left: better no version than a wrong one.
    """
    bump = update(corpora).where(corpora.c.id == text.corpus).values(version=corpora.c.version + 1)
    version = connection.execute(bump.returning(corpora.c.version)).scalar_one()
    done = update(texts).where(texts.c.id == text.id)
    values = {"state": "current", "version": version, "phrases": _limit(texts.c.corpus), "finished_at": func.now()}
    age = func.extract("epoch", func.clock_timestamp() - texts.c.accepted_at).label("age")
    made = connection.execute(done.values(values).returning(texts.c.phrases, texts.c.reached, age)).one()
    if made.reached is not None and made.phrases != made.reached:
        raise StoreCorrupt(problem=f"'{text.title}' left {made.reached} phrases, and there are {made.phrases}")
    return int(version), float(made.age)


def fail(connection: Connection, corpus: int, text: int, error: dict[str, Any]) -> bool:
    """Mark a text as failed and delete its words and phrases; return False where it had ended already.

    The caller holds the ORDER lock. Rows beyond the current version are this text's only if a part of it was ingested;
    else they are those of a text before it.
    """
    waiting = texts.c.id == text, texts.c.state.in_(["accepted", "ingested"])
    ingested_sentences = connection.execute(
        select(texts.c.sentences).where(*waiting).with_for_update()
    ).scalar_one_or_none()
    if ingested_sentences is None:
        return False
    values = {"state": "failed", "error": error, "finished_at": func.now()}
    connection.execute(update(texts).where(texts.c.id == text).values(values))
    if ingested_sentences:
        delete_ingested(connection, corpus)
    return True


def delete_ingested(connection: Connection, corpus: int) -> None:
    """Delete the words and phrases of a text that is no version yet. The caller holds the ORDER lock.

    What is left is the context of the version as it was before that text. The next text gets the same ids again.
    """
    connection.execute(select(func.delete_ingested(corpus)))


# ── summaries ─────────────────────────────────────────────────────────────────────────────────────


class TextSummary(NamedTuple):
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
    priority: int


_PAGE = """
SELECT texts.id, seq, title, state, sentences, version, octet_length(body), error, position, accepted_at, finished_at,
       priority
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
       ) END, accepted_at, finished_at, priority
  FROM texts WHERE corpus = :corpus AND id = :number
"""


def page(connection: Connection, corpus: int, after: int, state: str | None, most: int) -> list[TextSummary]:
    """Return at most `most` texts of a corpus after `after`, in the order of acceptance; of one `state` where given."""
    values = {"corpus": corpus, "after": after, "state": state, "most": most}
    return [TextSummary(*row) for row in connection.execute(text(_PAGE), values)]


def one(connection: Connection, corpus: int, number: int) -> TextSummary | None:
    """A text of this corpus."""
    row = connection.execute(text(_ONE), {"corpus": corpus, "number": number}).first()
    return None if row is None else TextSummary(*row)


class VersionText(NamedTuple):
    """A text that is a version; `size`: of its body, in bytes."""

    id: int
    title: str
    version: int
    size: int


def versions(connection: Connection, corpus: int, first: int, last: int) -> list[VersionText]:
    """The texts that are the versions from `first` to `last`, in their order."""
    found = texts.c
    query = select(found.id, found.title, found.version, func.octet_length(found.body))
    query = query.where(found.corpus == corpus, found.version.between(first, last)).order_by(found.version)
    return [VersionText(*row) for row in connection.execute(query)]


# ── words and phrases ───────────────────────────────────────────────────────────────────────────


def add(connection: Connection, corpus: int, index: PhraseIndex, added: Additions, born: int) -> None:
    """Write what a part of a text brings to the index, born in a version that is still to be made."""
    if added.words:
        new = {"corpus": corpus, "first": len(index.vocabulary), "born": born, "words": added.words}
        bulk.execute(connection, _ADD_WORDS, new)
    if len(added.parent):
        values = {
            "corpus": corpus,
            "first": index.nodes,
            "count": len(added.parent),
            "born": born,
            "parent": runs.pack_numbers(added.parent),
            "word": runs.pack_numbers(added.word),
        }
        connection.execute(phrases.insert().values(values))


_ADD_WORDS = """
INSERT INTO words (corpus, id, born, word)
SELECT %(corpus)s, %(first)s + place - 1, %(born)s, word
  FROM unnest(%(words)b::text[]) WITH ORDINALITY AS new (word, place)
"""


def bring_forward(connection: Connection, corpus: int, index: PhraseIndex, *, pending: bool = False) -> PhraseIndex:
    """The index with all later versions. Safe to call at any moment, also outside the locks.

    With `pending`, also with the ingested parts of an unfinished text. Those may be deleted and their ids given to
    another text, so that index is for the holder of the ORDER lock only, and must not be cached.

    Raises StoreCorrupt where something of them is missing: what was searched with less would be no closure.
    """
    # Limits first: under read committed, whatever they point to is there for the later statements.
    newer = connection.execute(
        select(texts.c.version, texts.c.phrases)
        .where(texts.c.corpus == corpus, texts.c.version > index.version)
        .order_by(texts.c.version)
    ).all()
    limits = (*index.limits, *(each.phrases for each in newer))
    if (versions := [each.version for each in newer]) != [*range(index.version + 1, len(limits))]:
        problem = f"in corpus {corpus} versions {versions[:3]} follow on version {index.version}"
        raise StoreCorrupt(problem=f"{problem}; see 'crochet verify'")
    born = len(limits) if pending else len(limits) - 1
    chunks = bulk.rows(connection, _CHUNKS, {"corpus": corpus, "first": index.nodes, "born": born})
    ((new_words,),) = bulk.rows(connection, _WORDS, {"corpus": corpus, "first": len(index.vocabulary), "born": born})
    added = Additions(new_words.split(" ") if new_words else [], *unpacked(chunks))
    _check(corpus, index, added, limits, pending=pending)
    if not added.words and not len(added.parent) and limits == index.limits:
        return index
    return index.extended(added, limits)


def _check(corpus: int, index: PhraseIndex, added: Additions, limits: tuple[int, ...], *, pending: bool) -> None:
    """Whether these are all phrases up to the last limit, and all their words: each word is a phrase, too."""
    size = index.nodes + len(added.parent)
    if size < limits[-1] or (size > limits[-1] and not pending):
        problem = (
            f"version {len(limits) - 1} of corpus {corpus} has {limits[-1] - 1} phrases, and {size - 1} are stored"
        )
        raise StoreCorrupt(problem=f"{problem}; see 'crochet verify'")
    single = int(np.count_nonzero(added.parent == 0))
    if single != len(added.words):
        problem = f"corpus {corpus} got {len(added.words)} words, and {single} phrases of one word"
        raise StoreCorrupt(problem=f"{problem}; see 'crochet verify'")


_WORDS = """
SELECT string_agg(word, ' ' ORDER BY id) FROM words
 WHERE corpus = %(corpus)s AND id >= %(first)s AND born <= %(born)s
"""
"""As one value: a row for each of them takes ten times as long. No word holds a blank."""

_CHUNKS = """
SELECT first, count, parent, word FROM phrases
 WHERE corpus = %(corpus)s AND first >= %(first)s AND born <= %(born)s
 ORDER BY first
"""


def unpacked(chunks: Iterable[tuple[Any, ...]]) -> tuple[Ints, Ints]:
    """Prefixes and last words of chunks of phrases, given as (first, count, parent, word), one after the other.

    Raises StoreCorrupt where one is damaged.
    """
    parents, lasts = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    for first, count, parent, word in chunks:
        try:
            parents.append(runs.unpack_numbers(parent, count))
            lasts.append(runs.unpack_numbers(word, count))
        except runs.DamagedRun as error:
            problem = f"the phrases {first} to {first + count - 1} are damaged ({error}); see 'crochet verify'"
            raise StoreCorrupt(problem=problem) from error
    return np.concatenate(parents), np.concatenate(lasts)
