"""What operators do: retry or drop what has failed; read a corpus again."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable

from crochet_tasks.db import (
    Connection,
    access,
    attempts,
    best,
    corpora,
    dead_letters,
    operators,
    outbox,
    texts,
)
from crochet_tasks.db.access import Entry
from crochet_tasks.db.corpora import DEFAULT_TENANT
from crochet_tasks.db.dead_letters import DeadLetterRow
from crochet_tasks.db.operators import WorkRow
from crochet_tasks.db.process import Process
from crochet_tasks.db.tally import BESIDE, OF_A_TEXT
from crochet_tasks.db.texts import TextRow
from crochet_tasks.errors import CorpusExists, NotFound, WorkNotCancellable, WorkNotFailed
from crochet_tasks.intake import admission
from crochet_tasks.operate.cancelling import incomplete
from crochet_tasks.operate.inspection import changed
from crochet_tasks.operate.names import find, text_of
from crochet_tasks.schemas.names import TEXT, best_name, text_name
from crochet_tasks.schemas.reports import WorkChanged

DROPPABLE = ("search", BESIDE)
"""Not `remediations`: the window of a later version would begin after it."""
_LACKING = "later versions would lack orthos without it; retry it"


def rebuild(process: Process, name: str, new: str) -> int:
    """Accept the texts of a corpus again, in their order, for a new one with the same limits; how many.

    For corpora whose texts were read by other rules. Texts that failed or were cancelled stay behind. Raises
    CorpusUnknown and CorpusExists.
    """
    with process.database.transaction() as connection:
        old = corpora.named(connection, name)
        corpora.check_name(new)
        made = corpora.create(connection, old.tenant, new, old.limits, old.description, old.budget)
        if made is None:
            raise CorpusExists(corpus=new)
        rows = [row for row in texts.all_of(connection, old.id) if row.state not in texts.FAILED_OR_CANCELLED]
        for row in rows:
            admission.accepted(connection, made.id, row.title, texts.body(connection, row.id))
    return len(rows)


def retry(process: Process, names: Iterable[str], entry: Entry | None = None) -> WorkChanged:
    """Open failed or dropped work again, as new; a text is accepted again, at the end of the line.

    A search for the best goes on as a whole: where a part of it was dropped, or was stopped with it, all of them do.
    `entry` goes to the security log with what is done. Raises WorkNotFailed and NotFound (its corpus is deleted), and
    then nothing was changed, and what names raise.
    """
    with process.database.transaction() as connection:
        again = [_retryable(connection, name) for name in names]
        work = [target for target in again if isinstance(target, WorkRow)]
        items = [item.id for item in work]
        _check_not_deleted(connection, items)
        resumed = _reopen(connection, work)
        if entry is not None and items:
            access.add_log_entry(connection, entry)
    rows = [row for row in again if isinstance(row, TextRow)]
    if gone := _accept_again(process, rows, entry):
        raise NotFound(what=TEXT, name=text_name(gone[0].id))
    notes = [f"{best_name(job)} is planned anew, with all its parts" for job in resumed]
    return _now(process, items, rows).model_copy(update={"notes": notes})


def _reopen(connection: Connection, work: list[WorkRow]) -> list[int]:
    """Open work again. Searches for the best of which a part was cancelled are planned anew; which ones.

    Raises NotFound for a part whose search was deleted.
    """
    jobs = {job.id: job for job in best.lock(connection, (item.subject for item in work if item.kind == BESIDE))}
    lost = [item.id for item in work if item.kind == BESIDE and item.subject not in jobs]
    if lost:
        raise NotFound(what="search for the best any more for work", name=str(lost[0]))
    now = operators.with_ids(connection, (item.id for item in work))  # of these jobs no one stops or plans any more
    planned = {item.id: item.subject for item in now if item.kind == BESIDE and item.state == "cancelled"}
    attempts.reopen(connection, [item.id for item in now if item.id not in planned])
    return [number for number in sorted(set(planned.values())) if best.start(connection, jobs[number])]


def _check_not_deleted(connection: Connection, items: Collection[uuid.UUID]) -> None:
    """Raise NotFound for work of a deleted corpus; locks the corpora, so none is deleted before the commit."""
    of = {operators.corpus_of(connection, item): item for item in items}
    for corpus in sorted(of, key=lambda number: number or 0):
        if corpus is None or corpora.lock_for_acceptance(connection, corpus) is None:
            raise NotFound(what="work", name=of[corpus])


def retry_all(
    process: Process,
    corpus: str | None = None,
    tenant: int = DEFAULT_TENANT,
    *,
    dropped: bool = False,
    entry: Entry | None = None,
) -> WorkChanged:
    """Retry all failed work, with `dropped` also dropped or cancelled work; cancelled texts stay so.

    Raises CorpusUnknown.
    `entry` goes to the security log if there is any.
    """
    with process.database.transaction() as connection:
        number = None if corpus is None else corpora.named(connection, corpus, tenant).id
        best.lock_with(connection, "failed", number)
        items, rows = operators.failed_work(connection, number, too_dropped=dropped)
        attempts.reopen(connection, items)
        if entry is not None and (items or rows):
            access.add_log_entry(connection, entry)
    _accept_again(process, rows)  # but for those whose corpus is being deleted
    return _now(process, items, rows)


def _retryable(connection: Connection, name: str) -> WorkRow | TextRow:
    """The failed, dropped or cancelled work or text of that name."""
    target = find(connection, name)
    if isinstance(target, DeadLetterRow):
        raise WorkNotFailed(work=name, state="a dead letter", wanted="retried")
    found = text_of(connection, target) or target
    if found.state not in ("failed", "cancelled"):
        raise WorkNotFailed(work=name, state=found.state, wanted="retried")
    return found


def _accept_again(process: Process, rows: list[TextRow], entry: Entry | None = None) -> list[TextRow]:
    """Accept each text again in its own transaction; return those whose corpus was deleted."""
    gone = []
    for row in {row.id: row for row in rows}.values():
        with process.database.transaction() as connection:
            if corpora.lock_for_acceptance(connection, row.corpus) is None:
                gone.append(row)
                continue
            admission.accepted(connection, row.corpus, row.title, texts.body(connection, row.id))
            if entry is not None:
                access.add_log_entry(connection, entry)
    return gone


def _now(process: Process, items: list[uuid.UUID], rows: list[TextRow]) -> WorkChanged:
    with process.database.snapshot() as connection:
        return changed(connection, items, {row.id for row in rows})


def drop(process: Process, names: Iterable[str], entry: Entry | None = None) -> WorkChanged:
    """Drop failed work, failed texts and dead letters, all of these or none.

    Dropped work and texts can be retried; a dead letter is gone. A search for the best is stopped with its part.
    `entry` goes to the security log with it. Raises WorkNotFailed, WorkNotCancellable, and what names raise.
    """
    with process.database.transaction() as connection:
        operators.limit_lock_wait(connection)
        targets = [(name, find(connection, name)) for name in names]
        found = [(target, name) for name, target in targets if isinstance(target, WorkRow)]
        jobs = best.lock(connection, (item.subject for item, _ in found if item.kind == BESIDE))
        chosen = {row.id: (row, name) for name, target in targets if (row := text_of(connection, target)) is not None}
        items = {item.id: name for item, name in found if item.kind not in OF_A_TEXT}
        rows = [_failed_text(connection, *chosen[row.id]) for row in texts.in_order(row for row, _ in chosen.values())]
        outbox.lock(connection, [*items, *(item for row in rows for item in operators.of_text(row.corpus, row.id))])
        for row in rows:
            operators.cancel_text(connection, row)
        _drop_searches(connection, items)
        for job in jobs:
            best.stop(connection, job)  # without its part it would not come to its end
        for number in sorted(target.id for _, target in targets if isinstance(target, DeadLetterRow)):
            dead_letters.drop(connection, number)
        if entry is not None and targets:
            access.add_log_entry(connection, entry)
        made = changed(connection, items, chosen)
        lacking = sorted({line.corpus or "" for line in made.changed if line.kind == "search"})
    notes = [*(incomplete(corpus) for corpus in lacking), *(f"{best_name(job.id)} is stopped" for job in jobs)]
    return made.model_copy(update={"notes": notes})


def _failed_text(connection: Connection, found: TextRow, name: str) -> TextRow:
    """The text, locked."""
    row = operators.text_row(connection, found.id, lock=True)
    if row is None:  # its corpus was deleted meanwhile
        raise NotFound(what=TEXT, name=name)
    if row.state != "failed":
        raise WorkNotFailed(work=name, state=row.state, wanted="dropped")
    return row


def _drop_searches(connection: Connection, names: dict[uuid.UUID, str]) -> None:
    rows = operators.with_ids(connection, names)
    for item in rows:
        if item.state != "failed":
            raise WorkNotFailed(work=names[item.id], state=item.state, wanted="dropped")
        if item.kind not in DROPPABLE:
            raise WorkNotCancellable(work=names[item.id], kind=item.kind, wanted="dropped", why=_LACKING)
    dropped = operators.drop(connection, sorted(names))
    for item in rows:
        if item.id not in dropped:  # it has just been retried
            raise WorkNotFailed(work=names[item.id], state="ready", wanted="dropped")
