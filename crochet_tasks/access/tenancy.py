"""A tenant's corpora: create, change, delete. A tenant never sees another tenant's."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from crochet_tasks.access.keys import Scope
from crochet_tasks.db import Connection, IntegrityError, UniqueViolation, access, corpora, publishing, removal, tenants
from crochet_tasks.db.access import Entry
from crochet_tasks.db.corpora import Corpus, CorpusFields, Lock
from crochet_tasks.db.process import Process
from crochet_tasks.db.sessions import Database
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.errors import (
    CorpusExists,
    DatabaseConflict,
    NotConfirmed,
    PreconditionFailed,
    PriorityTooHigh,
    TooManyCorpora,
)
from crochet_tasks.schemas.answers import CorpusLine, LimitsSet


def line(corpus: Corpus) -> CorpusLine:
    """The corpus as answers show it."""
    return CorpusLine(
        name=corpus.name,
        description=corpus.description,
        limits=LimitsSet(**corpus.limits._asdict()),
        budget=corpus.budget,
        paused=corpus.paused,
        priority=corpus.priority,
        revision=corpus.revision,
    )


def tag(corpus: Corpus) -> str:
    """The ETag of what can be changed of a corpus; unlike that of an earlier corpus of the same name."""
    return f"{corpus.id}-{corpus.revision}"


PRIORITY_OF: dict[Scope, int] = {"write": 1, "operate": 2, "admin": corpora.HIGHEST}
"""The highest priority that each role gives a corpus. Anyone who writes may lower one, or leave it as it is."""


def highest_priority(scopes: Collection[Scope]) -> int:
    return max((PRIORITY_OF[scope] for scope in scopes if scope in PRIORITY_OF), default=corpora.LOWEST)


def check_priority(wanted: int, highest: int, before: int = 0) -> None:
    """Raise PriorityTooHigh unless who gives up to `highest` may give that, in place of the one before."""
    if wanted > max(highest, before):
        raise PriorityTooHigh(priority=wanted, highest=highest, operators=PRIORITY_OF["operate"])


def create(
    process: Process,
    tenant: int,
    fields: CorpusFields,
    limits: Limits,
    entry: Entry | None = None,
    *,
    highest: int = corpora.HIGHEST,
) -> Corpus:
    """A new corpus; raises CorpusExists, InvalidName, LimitOutOfRange, TenantSuspended, TooManyCorpora.

    `entry`, here and below, goes to the security log with what is done; `highest` is the highest priority that the
    caller gives: PriorityTooHigh.
    """
    check_priority(fields.priority, highest)
    corpora.checked(limits)
    corpora.check_name(fields.name)
    with process.database.transaction() as connection:
        there = corpora.owned(connection, tenant)
        made = corpora.create(
            connection, tenant, fields.name, limits, fields.description, fields.budget, fields.priority
        )
        if made is None:
            raise CorpusExists(corpus=fields.name)
        most = tenants.max_corpora(connection, tenant, process.settings.max_corpora)
        if there >= most:
            raise TooManyCorpora(most=most)
        _log(connection, entry)
        return made


def _log(connection: Connection, entry: Entry | None) -> None:
    if entry is not None:
        access.add_log_entry(connection, entry)


def change(
    process: Process,
    tenant: int,
    name: str,
    etags: Collection[str] | None,
    changes: dict[str, Any],
    entry: Entry | None = None,
    *,
    highest: int = corpora.HIGHEST,
) -> Corpus:
    """The corpus with some of its fields (CorpusFields) changed. `etags` are the ETags it may have, None: any.

    A budget that is raised lets searches go on. Of a paused corpus nothing is published, and no worker begins what was
    published; what runs ends. Raises CorpusUnknown, PreconditionFailed, CorpusExists, InvalidName, PriorityTooHigh.
    """
    try:
        with process.database.transaction() as connection:
            corpus = corpora.named(connection, name, tenant, lock=True)
            if etags is not None and tag(corpus) not in etags:
                raise PreconditionFailed(current=tag(corpus), given=", ".join(etags))
            before = CorpusFields(*(getattr(corpus, field) for field in CorpusFields._fields))
            after = before._replace(**changes)
            check_priority(after.priority, highest, before.priority)
            corpora.check_name(after.name)
            changed = corpora.change(connection, corpus, after)
            if before.paused and not after.paused:  # messages that came meanwhile were dropped
                publishing.release_all(connection, corpus.id)
            if changed.budget != corpus.budget:
                publishing.hold_searches(connection)
            if changed.revision != corpus.revision:
                _log(connection, entry)
            return changed
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation):
            raise CorpusExists(corpus=changes["name"]) from error
        raise


def remove(process: Process, tenant: int, name: str, confirmed: str | None, entry: Entry | None = None) -> int:
    """Hide a corpus at once, which frees its name, and return its number; `sweep` deletes its rows later.

    Raises CorpusUnknown, and NotConfirmed unless `confirmed` is its name.
    """
    with process.database.transaction() as connection:
        corpus = corpora.named(connection, name, tenant)
        if confirmed != name:
            raise NotConfirmed(corpus=name)
        corpora.take_lock(connection, corpus.id, Lock.ACCEPTANCE)
        corpora.named(connection, name, tenant, lock=True)
        removal.hide(connection, corpus.id)
        _log(connection, entry)
        return corpus.id


def sweep(database: Database, seconds: float) -> bool:
    """Delete rows of removed corpora for about `seconds`; whether anything is left.

    Each step is a short transaction of its own. A corpus that is locked is left for the next call.
    """
    until = time.monotonic() + seconds
    with database.transaction() as connection:
        hidden = removal.hidden(connection)
    left = False
    for number, corpus in enumerate(hidden, 1):
        left |= not _deleted(database, corpus, until)
        if time.monotonic() > until:
            return left or number < len(hidden)
    return left


def _deleted(database: Database, corpus: int, until: float) -> bool:
    """Delete steps of one corpus until the time is up; whether nothing of it is left."""
    while True:
        try:
            with database.transaction() as connection:
                if not removal.delete_some(connection, corpus):
                    return True
        except DatabaseConflict:
            return False
        if time.monotonic() > until:
            return False
