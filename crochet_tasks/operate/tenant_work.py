"""What the owner of a corpus may do to its work: retry and cancel."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import TypeAlias

from crochet_tasks.db import Connection, corpora, operators
from crochet_tasks.db.access import Entry
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.errors import NotFound, WorkUnknown
from crochet_tasks.intake.admission import number_of
from crochet_tasks.operate import actions, inspection
from crochet_tasks.schemas.reports import WorkChanged, WorkDetail

Change: TypeAlias = Callable[[Process, int, str, str, Entry | None], WorkChanged]


def retry(process: Process, tenant: int, corpus: str, name: str, entry: Entry | None = None) -> WorkChanged:
    """Open failed work of this corpus again, or accept a text again. Raises NotFound and WorkNotFailed."""
    check(process, tenant, corpus, name)
    with _found(name):
        return actions.retry(process, [name], entry)


def cancel(process: Process, tenant: int, corpus: str, name: str, entry: Entry | None = None) -> WorkChanged:
    """Cancel a text of this corpus, by its name or its work. Raises NotFound, TextStarted, WorkNotCancellable."""
    check(process, tenant, corpus, name)
    with _found(name):
        return actions.cancel(process, [name], entry)


def details(process: Process, tenant: int, corpus: str, name: str) -> WorkDetail:
    """All details of work of this corpus, with errors as operators see them. Raises CorpusUnknown and NotFound."""
    check(process, tenant, corpus, name)
    with _found(name):
        return inspection.details(process, name)


@contextlib.contextmanager
def _found(work: str) -> Iterator[None]:
    """Raise NotFound for work that was deleted after `check`."""
    try:
        yield
    except WorkUnknown as error:
        raise NotFound(what="work", name=work[:100]) from error


def check(process: Process, tenant: int, name: str, work: str) -> None:
    """Raise CorpusUnknown or NotFound unless that is a tenant's corpus, and work of it. Work never changes corpora."""
    with process.database.snapshot() as connection:
        corpus = corpora.named(connection, name, tenant)
        if not _belongs(connection, corpus, work):
            raise NotFound(what="work", name=work[:100])


def _belongs(connection: Connection, corpus: Corpus, work: str) -> bool:
    try:
        item = uuid.UUID(work)
    except ValueError:
        row = operators.text_row(connection, number_of(work))
        return row is not None and row.corpus == corpus.id
    return str(item) == work and operators.corpus_of(connection, item) == corpus.id
