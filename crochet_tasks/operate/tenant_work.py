"""What the owner of a corpus may do to its work: retry and cancel; and in the console whose work a caller reaches."""

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
from crochet_tasks.intake.posted import number_of
from crochet_tasks.operate import actions, cancelling, inspection
from crochet_tasks.operate.names import find
from crochet_tasks.schemas.names import DEAD
from crochet_tasks.schemas.reports import WorkChanged, WorkDetail

Made: TypeAlias = Callable[[Process, list[str], Entry | None], WorkChanged]
Change: TypeAlias = Callable[[Process, int, str, str, Entry | None], WorkChanged]


def retry(process: Process, tenant: int, corpus: str, name: str, entry: Entry | None = None) -> WorkChanged:
    """Open failed work of this corpus again, or accept a text again. Raises NotFound and WorkNotFailed."""
    check(process, tenant, corpus, name)
    with _found(name):
        return actions.retry(process, [name], entry)


def cancel(process: Process, tenant: int, corpus: str, name: str, entry: Entry | None = None) -> WorkChanged:
    """Cancel a text of this corpus, by its name or its work, or a search. Raises NotFound, and as cancelling.cancel."""
    check(process, tenant, corpus, name)
    with _found(name):
        return cancelling.cancel(process, [name], entry)


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


def owner(process: Process, reach: int | None, work: str) -> int | None:
    """The tenant of work, of a text (`text-NUMBER`) or of a dead letter, which has none. Raises NotFound.

    `reach` is the tenant of who asks, None that of operators: of all tenants, and dead letters. Whole names only.
    """
    with process.database.snapshot() as connection:
        if work.startswith(f"{DEAD}-") and reach is None:
            with _found(work):
                find(connection, work)
            return None
        found = _owner(connection, work)
    if found is None or reach not in (None, found):
        raise NotFound(what="work", name=work[:100])
    return found


def _owner(connection: Connection, work: str) -> int | None:
    try:
        item = uuid.UUID(work)
    except ValueError:
        return operators.owner_of_text(connection, number_of(work))
    return operators.owner_of_work(connection, item) if str(item) == work else None


def change(process: Process, reach: int | None, work: str, made: Made, entry: Entry) -> WorkChanged:
    """Retry, cancel or drop (of actions.py) work in the caller's reach; the entry goes to the log of whose it is.

    Raises NotFound, and what that action does.
    """
    tenant = owner(process, reach, work)
    with _found(work):
        return made(process, [work], entry if tenant is None else entry._replace(tenant=tenant))


def details(process: Process, reach: int | None, work: str) -> WorkDetail:
    """All details of work, a text or a dead letter in the caller's reach; raises NotFound."""
    owner(process, reach, work)
    with _found(work):
        return inspection.details(process, work)
