"""Cancel work: a text that is no version yet, a search, what is due in a version, or all work of a corpus.

A text that is being ingested is taken back: its words and phrases are deleted, as of a text that fails. Cancelled
searches can be retried; what they would find is missing until then.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Iterator

from crochet_tasks.db import (
    Connection,
    DBAPIError,
    LockNotAvailable,
    access,
    best,
    corpora,
    operators,
    outbox,
    publishing,
    tally,
)
from crochet_tasks.db import texts as rows_of_texts
from crochet_tasks.db.access import Entry
from crochet_tasks.db.corpora import DEFAULT_TENANT, Lock
from crochet_tasks.db.operators import WorkRow
from crochet_tasks.db.process import Process
from crochet_tasks.db.tally import BESIDE, SEARCHING
from crochet_tasks.db.texts import TextRow
from crochet_tasks.errors import NotFound, TextIsVersion, TextStarted, WorkNotCancellable
from crochet_tasks.operate.inspection import changed
from crochet_tasks.operate.names import find, text_of
from crochet_tasks.schemas.names import TEXT, text_name
from crochet_tasks.schemas.reports import AllCancelled, WorkChanged

_WHY_NOT = {BESIDE: "stop the search for the best that it is a part of", "dead letter": "it names no work; drop it"}
FAILED = "it has failed; retry or drop it"
ORDER_WAIT = "5s"
"""how long it waits for an ordered stage that works on the corpus: a part of a text takes less"""


def cancel(process: Process, names: Iterable[str], entry: Entry | None = None) -> WorkChanged:
    """Cancel texts that are no version yet, and searches, all of these or none; the next text in line gets its turn.

    A text that waits is cancelled at once; for one that is being ingested it waits until a part of it is done.
    `entry` goes to the security log with what is done. Raises TextIsVersion, TextStarted (it is not done in time),
    WorkNotCancellable and what names raise.
    """
    chosen = list(names)
    try:
        return _cancel(process, chosen, entry, ordered=False)
    except TextStarted:
        return _cancel(process, chosen, entry, ordered=True)


def _cancel(process: Process, names: list[str], entry: Entry | None, *, ordered: bool) -> WorkChanged:
    """As `cancel`. `ordered`: with the ORDER locks of the corpora; without, a text that has been started is refused."""
    with process.database.transaction() as connection:
        operators.limit_lock_wait(connection, ORDER_WAIT if ordered else operators.LOCK_WAIT)
        targets = [(name, find(connection, name)) for name in names]
        chosen = {row.id: row for _, target in targets if (row := text_of(connection, target)) is not None}
        items = {
            target.id: name for name, target in targets if isinstance(target, WorkRow) and target.kind in SEARCHING
        }
        for name, target in targets:
            if text_of(connection, target) is None and not (isinstance(target, WorkRow) and target.id in items):
                kind = target.kind if isinstance(target, WorkRow) else "dead letter"
                why = _WHY_NOT.get(kind, "it belongs to no text")
                raise WorkNotCancellable(work=name, kind=kind, wanted="cancelled", why=why)
        if ordered:
            for corpus in sorted({row.corpus for row in chosen.values()}):
                with _in_time(next(row for row in chosen.values() if row.corpus == corpus)):
                    corpora.take_lock(connection, corpus, Lock.ORDER)
        done = _cancel_texts(connection, chosen, items, ordered=ordered)
        done |= _cancel_searches(connection, items)
        if entry is not None and done:
            access.add_log_entry(connection, entry)
        made = changed(connection, items, chosen)
    lacking = sorted({line.corpus or "" for line in made.changed if line.kind in SEARCHING})
    return made.model_copy(update={"notes": [incomplete(corpus) for corpus in lacking]})


def incomplete(corpus: str) -> str:
    """The note on searches that were dropped or cancelled."""
    return f"corpus '{corpus}' is incomplete until it is retried: it lacks what this work would have found"


def _cancel_texts(
    connection: Connection, chosen: dict[int, TextRow], others: Iterable[uuid.UUID] = (), *, ordered: bool
) -> bool:
    """Cancel texts; whether any was not cancelled yet. `others`: work to be locked with theirs, for the caller."""
    in_order = rows_of_texts.in_order(chosen.values())
    rows = [locked for row in in_order if (locked := _locked(connection, row, ordered=ordered))]
    # Where others than the first in line are cancelled, the worker that finishes the first one publishes the next.
    first = {row.corpus: operators.first_waiting_text(connection, row.corpus) for row in rows}
    led = {row.corpus: row for row in rows if first[row.corpus] in chosen}
    items = [item for row in rows for item in operators.of_text(row.corpus, row.id)]
    for corpus, row in sorted(led.items()):
        with _in_time(row):  # the next one stays the first until its message is committed
            following = rows_of_texts.lock_first_waiting(connection, corpus, chosen)
        items += operators.of_text(corpus, following.id) if following else []
    if rows:
        with _in_time(rows[0]):
            outbox.lock(connection, [*items, *others])
    for row in rows:
        operators.cancel_text(connection, row)
    for corpus in led:
        publishing.release_next_text(connection, corpus)
    return bool(rows)


def _locked(connection: Connection, row: TextRow, *, ordered: bool) -> TextRow | None:
    """The text, locked; None where it is cancelled already. Raises TextIsVersion, TextStarted, NotFound."""
    with _in_time(row):
        locked = operators.text_row(connection, row.id, lock=True)
    if locked is None:  # its corpus was deleted meanwhile
        raise NotFound(what=TEXT, name=text_name(row.id))
    if locked.state == "cancelled":
        return None
    if locked.state == "current":
        raise TextIsVersion(title=row.title, version=locked.version)
    if locked.state == "failed":
        raise WorkNotCancellable(work=text_name(row.id), kind=TEXT, wanted="cancelled", why=FAILED)
    if not ordered and (locked.state == "ingested" or locked.sentences):
        raise TextStarted(title=row.title)
    return locked


@contextlib.contextmanager
def _in_time(row: TextRow) -> Iterator[None]:
    """Raise TextStarted on a lock time-out: a worker is ingesting the text."""
    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, LockNotAvailable):
            raise TextStarted(title=row.title) from error
        raise


def _cancel_searches(connection: Connection, names: dict[uuid.UUID, str]) -> bool:
    """Cancel what searches; whether any was not cancelled yet. A result that comes later is dropped."""
    for item in operators.with_ids(connection, names):
        if item.state == "failed":
            raise WorkNotCancellable(work=names[item.id], kind=item.kind, wanted="cancelled", why=FAILED)
    cancelled = operators.cancel_items(connection, names)
    for item in operators.with_ids(connection, names):
        if item.state != "cancelled":
            raise WorkNotCancellable(work=names[item.id], kind=item.kind, wanted="cancelled", why=f"it is {item.state}")
    return bool(cancelled)


def cancel_all(process: Process, corpus: str, tenant: int = DEFAULT_TENANT, entry: Entry | None = None) -> AllCancelled:
    """Cancel all open work of a corpus: texts that are no version yet, searches, searches for the best.

    Its version, its orthos and what has failed stay. Texts accepted meanwhile stay, too. `actions.retry_all` with
    `dropped` opens the searches again. Raises CorpusUnknown, and TextStarted where a stage does not end in time.
    """
    texts, jobs = 0, 0
    with process.database.transaction() as connection:
        found = corpora.named(connection, corpus, tenant)
        operators.limit_lock_wait(connection, ORDER_WAIT)
        with _in_time(TextRow(0, found.id, 0, corpus, "", 0, None, None)):
            corpora.take_lock(connection, found.id, Lock.ORDER)
        outbox.lock_jobs(connection, found.id)
        waiting = [row for row in rows_of_texts.all_of(connection, found.id) if row.state in rows_of_texts.WAITING]
        for row in waiting:
            texts += _cancel_texts(connection, {row.id: row}, ordered=True)
        work = operators.cancel_open(connection, found.id, ["remediations"], MOST_AT_ONCE)
        for job in best.lock_with(connection, "open", found.id):
            best.stop(connection, job)
            jobs += 1
        if entry is not None:
            access.add_log_entry(connection, entry)
    # Each time less is open: only a search that is open writes others.
    while True:
        with process.database.transaction() as connection:
            work += operators.cancel_open(connection, found.id, ["search"], MOST_AT_ONCE)
        with process.database.transaction() as connection:  # one whose row it waited for may have left some over
            if tally.any_open(connection, found.id, "search"):
                continue
        return AllCancelled(
            corpus=corpus, texts=texts, work=work, best=jobs, notes=[incomplete(corpus)] if work else []
        )


MOST_AT_ONCE = 10_000
"""so that each transaction stays short"""
