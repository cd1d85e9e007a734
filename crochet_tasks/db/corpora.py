"""Corpora and their locks."""

from __future__ import annotations

import enum
import re
from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, Connection, Select, bindparam, exists, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from crochet_tasks.db.access_tables import tenants
from crochet_tasks.db.tables import corpora, texts
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.engine.text import READING
from crochet_tasks.errors import (
    CorpusUnknown,
    InvalidName,
    LimitOutOfRange,
    LimitsFixed,
    ReadingRulesDiffer,
    TenantSuspended,
)
from crochet_tasks.schemas.names import NAME

RANGES = {"max_axes": (2, 8), "max_side": (2, 64), "max_cells": (4, 1024)}


class Corpus(NamedTuple):
    id: int
    name: str
    limits: Limits
    version: int
    tenant: int = 1
    description: str = ""
    budget: int | None = None
    reading: str = READING
    """the reading rules and Unicode version by which its texts were read (engine/text.py)"""
    revision: int = 1
    """it grows with each change of what can be changed"""
    paused: bool = False
    """none of its work is published"""
    priority: int = 0
    """from LOWEST to HIGHEST: each step doubles its share of what its tenant has"""


class CorpusFields(NamedTuple):
    """What can be changed of a corpus."""

    name: str
    description: str
    budget: int | None
    paused: bool = False
    priority: int = 0


LOWEST, HIGHEST = -3, 3
"""priorities"""
KNOWN = 20
"""at most so many corpora are named by an error"""
DEFAULT_TENANT = 1
"""that of the command line"""


class Lock(enum.IntEnum):
    """The advisory locks of a corpus, and one of a tenant. Held to the end of the transaction."""

    ACCEPTANCE = 1
    """for accepting a text: texts are numbered in the order of acceptance"""
    ORDER = 2
    """for the ordered stages: one task of a corpus at a time"""
    MERGE = 3
    """for merging batches, and for deleting the corpus: only merges write rows for which there is no work"""
    COUNTS = 4
    """for changing counters, as the last step of a transaction: so transactions do not deadlock on their rows"""
    QUOTA = 5
    """of a tenant: for counting its texts and adding one; the last lock that is taken"""


def take_lock(connection: Connection, corpus: int, lock: Lock) -> None:
    """Take a lock of a corpus, or QUOTA of a tenant.

    What it protects has to be read in a later statement: this one's snapshot may be older.
    """
    connection.execute(_LOCK, {"lock": int(lock), "corpus": corpus})


_LOCK = text("SELECT pg_advisory_xact_lock(:lock, :corpus)")


def try_lock(connection: Connection, corpus: int, lock: Lock) -> bool:
    """Take a lock if no other transaction has it; whether it is taken."""
    query = text("SELECT pg_try_advisory_xact_lock(:lock, :corpus)")
    return bool(connection.execute(query, {"lock": int(lock), "corpus": corpus}).scalar_one())


def lock_for_acceptance(connection: Connection, number: int) -> Corpus | None:
    """The corpus, locked against other texts and deletion until the transaction ends; None where it is deleted."""
    take_lock(connection, number, Lock.ACCEPTANCE)
    row = connection.execute(_EXISTING, {"number": number}).first()
    return None if row is None else _corpus(*row)


def check_reading(connection: Connection, number: int) -> None:
    """Raise ReadingRulesDiffer where the corpus' texts were read by other rules: the closure needs one set of rules.

    A corpus without texts takes the rules of this program. The caller has called `lock_for_acceptance`.
    """
    corpus = numbered(connection, number)
    if corpus.reading == READING:
        return
    unread = update(corpora).where(corpora.c.id == corpus.id, ~exists().where(texts.c.corpus == corpus.id))
    if connection.execute(unread.values(reading=READING)).rowcount == 0:
        raise ReadingRulesDiffer(corpus=corpus.name, found=corpus.reading, needed=READING)


def checked(limits: Limits) -> Limits:
    """The limits, or LimitOutOfRange."""
    for name, value in limits._asdict().items():
        low, high = RANGES[name]
        if not low <= value <= high:
            raise LimitOutOfRange(limit=name, low=low, high=high, value=value)
    return limits


def check_name(name: str) -> None:
    """Raise InvalidName unless a corpus can have that name."""
    if not re.fullmatch(NAME, name):
        raise InvalidName(name=name)


def get_or_create(
    connection: Connection,
    name: str,
    limits: dict[str, int],
    tenant: int = DEFAULT_TENANT,
    *,
    budget: int | None = None,
) -> Corpus:
    """Return the corpus of that name; create it with these limits (defaults for the rest) and budget if there is none.

    Raises LimitsFixed where there is one with other limits.
    """
    checked_limits = checked(Limits(**limits))
    check_name(name)
    values = {"tenant": tenant, "name": name, "budget": budget, "reading": READING}
    new = insert(corpora).values(**values, **checked_limits._asdict())
    connection.execute(new.on_conflict_do_nothing())
    corpus = named(connection, name, tenant)
    if any(getattr(corpus.limits, limit) != value for limit, value in limits.items()):
        raise LimitsFixed(corpus=name, existing=_in_words(corpus.limits._asdict()), wanted=_in_words(limits))
    return corpus


def _in_words(limits: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in limits.items())


def create(
    connection: Connection,
    tenant: int,
    name: str,
    limits: Limits,
    description: str,
    budget: int | None,
    priority: int = 0,
) -> Corpus | None:
    """A new corpus of a tenant; None where it has one of that name."""
    values = {"tenant": tenant, "name": name, "description": description, "budget": budget, "reading": READING}
    values |= {"priority": priority, **limits._asdict()}
    new = insert(corpora).values(values).on_conflict_do_nothing().returning(corpora.c.id)
    number = connection.execute(new).scalar()
    return None if number is None else numbered(connection, number)


def change(connection: Connection, corpus: Corpus, fields: CorpusFields) -> Corpus:
    """The corpus with other fields, in its next revision; as it is where they are the same."""
    after = corpus._replace(**fields._asdict())
    if after == corpus:
        return corpus
    values = {**fields._asdict(), "revision": corpus.revision + 1}
    if values.pop("paused") != corpus.paused:
        values["paused_at"] = func.now() if after.paused else None
    connection.execute(update(corpora).where(corpora.c.id == corpus.id).values(values))
    return after._replace(revision=corpus.revision + 1)


def named(
    connection: Connection,
    name: str,
    tenant: int = DEFAULT_TENANT,
    *,
    lock: bool = False,
    only: Collection[int] | None = None,
) -> Corpus:
    """The tenant's corpus of that name; raises CorpusUnknown, which names no other tenant's corpora.

    With `lock`, its row is locked until the transaction ends. With `only`, no others than these exist.
    """
    query = _NAMED.with_for_update(key_share=True) if lock else _NAMED
    row = connection.execute(query, {"name": name, "of": tenant}).first()
    if row is None or (only is not None and row.id not in only):
        raise unknown(connection, name, tenant, only)
    return _corpus(*row)


def unknown(connection: Connection, name: str, tenant: int, only: Collection[int] | None = None) -> CorpusUnknown:
    """Return the error for a tenant without a corpus of that name."""
    known = ", ".join(corpus.name for corpus in page(connection, tenant, "", KNOWN, only)) or "none"
    return CorpusUnknown(corpus=name, known=known)


def existing(connection: Connection, ids: list[int]) -> set[int]:
    """Which of these corpora have not been deleted."""
    query = select(corpora.c.id).where(corpora.c.id.in_(ids), corpora.c.removed_at.is_(None))
    return set(connection.execute(query).scalars()) if ids else set()


def owned(connection: Connection, tenant: int) -> int:
    """How many corpora a tenant has. Locked: no other is made for it before the transaction ends.

    Raises TenantSuspended, also for a tenant that was deleted: its corpora would be neither paused nor deleted.
    """
    there = select(tenants.c.suspended_at).where(tenants.c.id == tenant, tenants.c.removed_at.is_(None))
    row = connection.execute(there.with_for_update(key_share=True)).first()
    if row is None or row.suspended_at is not None:
        raise TenantSuspended
    mine = select(func.count()).where(corpora.c.tenant == tenant, corpora.c.removed_at.is_(None))
    return int(connection.execute(mine).scalar_one())


def numbered(connection: Connection, number: int) -> Corpus:
    return _corpus(*connection.execute(_NUMBERED, {"number": number}).one())


def tenant_of(connection: Connection, corpus: int) -> int | None:
    """The number of a corpus' tenant, which never changes; None where the corpus was deleted."""
    found: int | None = connection.execute(select(corpora.c.tenant).where(corpora.c.id == corpus)).scalar()
    return found


def name_of(connection: Connection, corpus: int) -> str:
    """The name of a corpus, for log lines; its id where it was deleted."""
    return connection.execute(select(corpora.c.name).where(corpora.c.id == corpus)).scalar() or str(corpus)


def every(connection: Connection, tenant: int = DEFAULT_TENANT) -> list[Corpus]:
    rows = connection.execute(_visible(tenant).order_by(corpora.c.name))
    return [_corpus(*row) for row in rows]


def page(
    connection: Connection, tenant: int, after: str, most: int, only: Collection[int] | None = None
) -> list[Corpus]:
    """Return at most `most` of a tenant's corpora (`only` these) in the order of their names, after `after`."""
    query = _visible(tenant).where(corpora.c.name > after)
    if only is not None:
        query = query.where(corpora.c.id.in_(only))
    rows = connection.execute(query.order_by(corpora.c.name).limit(most))
    return [_corpus(*row) for row in rows]


def names(connection: Connection, ids: Collection[int]) -> list[str]:
    """The names of those that are not deleted, in order."""
    query = select(corpora.c.name).where(corpora.c.id.in_(ids), corpora.c.removed_at.is_(None))
    return list(connection.execute(query.order_by(corpora.c.name)).scalars())


def version(connection: Connection, corpus: int) -> int:
    return int(connection.execute(select(corpora.c.version).where(corpora.c.id == corpus)).scalar_one())


_PLAIN = ("id", "name", "version", "tenant", "description", "budget", "reading", "revision", "priority")
_PAUSED = corpora.c.paused_at.is_not(None).label("paused")
_CORPORA = select(*(corpora.c[name] for name in _PLAIN), _PAUSED, *(corpora.c[name] for name in Limits._fields))


def _visible(tenant: int | BindParameter[int]) -> Select[Any]:
    """Select the corpora that a tenant sees: its own that are not being deleted."""
    return _CORPORA.where(corpora.c.tenant == tenant, corpora.c.removed_at.is_(None))


_NUMBERED = _CORPORA.where(corpora.c.id == bindparam("number"))
_EXISTING = _NUMBERED.where(corpora.c.removed_at.is_(None))
_NAMED = _visible(bindparam("of")).where(corpora.c.name == bindparam("name"))
"""compiled once: every request runs it"""


def _corpus(*row: Any) -> Corpus:
    names = (*_PLAIN, "paused")
    plain, limits = row[: len(names)], row[len(names) :]
    return Corpus(limits=Limits(*limits), **dict(zip(names, plain, strict=True)))
