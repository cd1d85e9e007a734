"""What operators do: cancel texts that have not been started, retry or drop what has failed."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Collection, Iterable, Iterator

from crochet_tasks.db import (
    Connection,
    DBAPIError,
    LockNotAvailable,
    access,
    attempts,
    corpora,
    dead_letters,
    operators,
    publishing,
    texts,
)
from crochet_tasks.db.access import Entry
from crochet_tasks.db.dead_letters import DeadLetterRow
from crochet_tasks.db.operators import WorkRow
from crochet_tasks.db.process import Process
from crochet_tasks.db.tally import BESIDE, OF_A_TEXT
from crochet_tasks.db.texts import TextRow
from crochet_tasks.errors import CorpusExists, NotFound, TextStarted, WorkNotCancellable, WorkNotFailed
from crochet_tasks.intake import admission
from crochet_tasks.operate.inspection import line_of_text, line_of_work
from crochet_tasks.operate.names import find, text_of
from crochet_tasks.schemas.names import TEXT, text_name
from crochet_tasks.schemas.reports import WorkChanged

DROPPABLE = ("search", BESIDE)
"""Not `remediations`: the window of a later version would begin after it."""
_ONLY_TEXTS = "only a text that has not been started can be"
_LACKING = "later versions would lack orthos without it; retry it"
_INSTEAD = {BESIDE: "stop the search for the best that it is a part of"}


def cancel(process: Process, names: Iterable[str], entry: Entry | None = None) -> WorkChanged:
    """Cancel texts that have not been started, all of these or none; the next in line get their turn.

    Does not wait for an ingestion. `entry` goes to the security log with what is done. Raises TextStarted,
    WorkNotCancellable and what names raise.
    """
    with process.database.transaction() as connection:
        operators.limit_lock_wait(connection)
        chosen = {row.id: row for name in names for row in [_cancellable(connection, name)]}
        cancelled = [row for row in (_unstarted(connection, chosen[number]) for number in sorted(chosen)) if row]
        # Where others than the first in line are cancelled, the worker that finishes the first one publishes the next.
        first = {row.corpus: operators.first_waiting_text(connection, row.corpus) for row in cancelled}
        for row in cancelled:
            with _locked_means_started(row):
                operators.cancel_text(connection, row)
        for corpus in sorted({row.corpus for row in cancelled if first[row.corpus] in chosen}):
            texts.lock_first_waiting(connection, corpus)  # it stays the first until its message is committed
            publishing.release_next_text(connection, corpus)
        if entry is not None and cancelled:
            access.add_log_entry(connection, entry)
        return _changed(connection, texts_too=chosen)


def _cancellable(connection: Connection, name: str) -> TextRow:
    target = find(connection, name)
    row = text_of(connection, target)
    if row is None:
        kind = target.kind if isinstance(target, WorkRow) else "dead letter"
        raise WorkNotCancellable(work=name, kind=kind, wanted="cancelled", why=_INSTEAD.get(kind, _ONLY_TEXTS))
    return row


def _unstarted(connection: Connection, row: TextRow) -> TextRow | None:
    """The text, locked; None where it is cancelled already. Raises TextStarted, NotFound."""
    with _locked_means_started(row):
        locked = operators.text_row(connection, row.id, lock=True)
    if locked is None:  # its corpus was deleted meanwhile
        raise NotFound(what=TEXT, name=text_name(row.id))
    if locked.state == "cancelled":
        return None
    if locked.state != "accepted" or locked.sentences:
        state = "being ingested" if locked.state == "accepted" else locked.state
        raise TextStarted(title=row.title, state=state)
    return locked


@contextlib.contextmanager
def _locked_means_started(row: TextRow) -> Iterator[None]:
    """Raise TextStarted on a lock time-out: a worker is ingesting the text."""
    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, LockNotAvailable):
            raise TextStarted(title=row.title, state="being ingested") from error
        raise


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

    `entry` goes to the security log with what is done. Raises WorkNotFailed and NotFound (its corpus is deleted), and
    then nothing was changed, and what names raise.
    """
    with process.database.transaction() as connection:
        again = [_retryable(connection, name) for name in names]
        items = [target.id for target in again if isinstance(target, WorkRow)]
        _check_not_deleted(connection, items)
        attempts.reopen(connection, items)
        if entry is not None and items:
            access.add_log_entry(connection, entry)
    rows = [row for row in again if isinstance(row, TextRow)]
    if gone := _accept_again(process, rows, entry):
        raise NotFound(what=TEXT, name=text_name(gone[0].id))
    return _now(process, items, rows)


def _check_not_deleted(connection: Connection, items: Collection[uuid.UUID]) -> None:
    """Raise NotFound for work of a deleted corpus; locks the corpora, so none is deleted before the commit."""
    of = {operators.corpus_of(connection, item): item for item in items}
    for corpus in sorted(of, key=lambda number: number or 0):
        if corpus is None or corpora.lock_for_acceptance(connection, corpus) is None:
            raise NotFound(what="work", name=of[corpus])


def retry_all(
    process: Process, corpus: str | None = None, *, dropped: bool = False, entry: Entry | None = None
) -> WorkChanged:
    """Retry all failed work, with `dropped` also dropped work; cancelled texts stay so. Raises CorpusUnknown.

    `entry` goes to the security log if there is any.
    """
    with process.database.transaction() as connection:
        number = None if corpus is None else corpora.named(connection, corpus).id
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
        return _changed(connection, items, {row.id for row in rows})


def drop(process: Process, names: Iterable[str], entry: Entry | None = None) -> WorkChanged:
    """Drop failed work, failed texts and dead letters, all of these or none.

    Dropped work and texts can be retried; a dead letter is gone. `entry` goes to the security log with it. Raises
    WorkNotFailed, WorkNotCancellable, and what names raise.
    """
    with process.database.transaction() as connection:
        operators.limit_lock_wait(connection)
        targets = [(name, find(connection, name)) for name in names]
        chosen = {row.id: name for name, target in targets if (row := text_of(connection, target)) is not None}
        for number in sorted(chosen):
            _drop_text(connection, number, chosen[number])
        items = {
            target.id: name for name, target in targets if isinstance(target, WorkRow) and target.kind not in OF_A_TEXT
        }
        _drop_searches(connection, items)
        for _, target in targets:
            if isinstance(target, DeadLetterRow):
                dead_letters.drop(connection, target.id)
        if entry is not None and targets:
            access.add_log_entry(connection, entry)
        changed = _changed(connection, items, chosen)
        lacking = sorted({line.corpus or "" for line in changed.changed if line.kind == "search"})
    notes = [
        f"corpus '{corpus}' is incomplete until it is retried: it lacks what dropped work would have found"
        for corpus in lacking
    ]
    return changed.model_copy(update={"notes": notes})


def _drop_text(connection: Connection, number: int, name: str) -> None:
    row = operators.text_row(connection, number, lock=True)
    if row is None:  # its corpus was deleted meanwhile
        raise NotFound(what=TEXT, name=name)
    if row.state != "failed":
        raise WorkNotFailed(work=name, state=row.state, wanted="dropped")
    operators.cancel_text(connection, row)


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


def _changed(connection: Connection, items: Collection[uuid.UUID] = (), texts_too: Collection[int] = ()) -> WorkChanged:
    rows = [operators.text_row(connection, number) for number in sorted(texts_too)]
    lines = [line_of_text(connection, row) for row in rows if row is not None]
    lines += [line_of_work(item) for item in operators.with_ids(connection, items)]
    return WorkChanged(changed=lines, notes=[])
