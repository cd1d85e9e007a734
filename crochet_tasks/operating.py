"""What operators do: look at work, cancel texts that have not been started, retry or drop what has failed.

A piece of work is named by the beginning of its id, a text by `text-NUMBER`, a dead letter by `dead-NUMBER`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from crochet_tasks import ingest, reports
from crochet_tasks.app import Process
from crochet_tasks.db import attempts, corpora, dead_letters, operators, publishing, texts
from crochet_tasks.db.attempts import OF_A_TEXT
from crochet_tasks.db.dead_letters import Buried
from crochet_tasks.db.operators import ENDED, OPEN, Wanted, WorkRow
from crochet_tasks.db.texts import TextRow
from crochet_tasks.engine.geometry import shape_name
from crochet_tasks.errors import (
    MessageDied,
    Retry,
    TextStarted,
    Unavailable,
    WorkAmbiguous,
    WorkerLost,
    WorkNotCancellable,
    WorkNotFailed,
    WorkUnknown,
    WrongCall,
)
from crochet_tasks.schemas import Audited, Status, Try, WorkChanged, WorkDetail, WorkLine, WorkList

DEAD, TEXT = "dead", "text"
STATES = ("open", *OPEN, *ENDED, DEAD)
"""what can be asked for: a standing, `open` for every one of open work, or dead letters"""
FEWEST_DIGITS = 4
DROPPABLE = ("seed", "grow")
"""Not `remediations`: a later version would search through a window that begins after the one dropped."""

Target = WorkRow | TextRow | Buried


# ── names ───────────────────────────────────────────────────────────────────────────────────────


def text_name(number: int) -> str:
    return f"{TEXT}-{number}"


def _find(connection: Connection, name: str) -> Target:
    """What a name stands for; raises WorkUnknown, WorkAmbiguous, or WrongCall for too short a beginning."""
    numbered = re.fullmatch(rf"({TEXT}|{DEAD})-([0-9]{{1,18}})", name)
    if numbered is None:
        return _by_beginning(connection, name)
    number = int(numbered[2])
    found: Target | None
    if numbered[1] == TEXT:
        found = operators.text_row(connection, number)
    else:
        found = next((letter for letter in dead_letters.every(connection) if letter.id == number), None)
    if found is None:
        raise WorkUnknown(work=name)
    return found


def _by_beginning(connection: Connection, name: str) -> WorkRow:
    digits = name.lower().replace("-", "")
    if not re.fullmatch(r"[0-9a-f]{1,32}", digits):
        raise WorkUnknown(work=name)
    if len(digits) < FEWEST_DIGITS:
        raise WrongCall(problem=f"'{name}' is too short: give {FEWEST_DIGITS} or more digits of the id")
    low, high = (uuid.UUID(digits.ljust(32, end)) for end in "0f")
    if "-" in name and not str(low).startswith(name.lower()):
        raise WorkUnknown(work=name)
    found = operators.beginning(connection, low, high)
    if not found:
        raise WorkUnknown(work=name)
    if len(found) > 1:
        raise WorkAmbiguous(work=name)
    return found[0]


def _text_of(connection: Connection, target: Target) -> TextRow | None:
    """The text that this is or is about."""
    if isinstance(target, WorkRow) and target.kind in OF_A_TEXT:
        return operators.text_row(connection, target.subject)
    return target if isinstance(target, TextRow) else None


# ── looking ─────────────────────────────────────────────────────────────────────────────────────


def listed(
    process: Process, *, corpus: str | None = None, state: str | None = None, kind: str | None = None, most: int = 50
) -> WorkList:
    """Work, and the dead letters after it; of one of STATES, or what is open, failed and dead. Raises CorpusUnknown.

    Dead letters belong to no corpus and to no kind of work.
    """
    standings = _standings(state)
    with process.database.snapshot() as connection:
        number = None if corpus is None else corpora.named(connection, corpus).id
        rows, there = operators.listed(connection, Wanted(standings, number, kind), most) if standings else ([], 0)
        letters = dead_letters.every(connection) if state in (None, DEAD) and corpus is None and kind is None else []
        targets: list[Target] = [*rows, *letters]
        lines = [_line(connection, target) for target in targets[:most]]
    return WorkList(work=lines, more=there + len(letters) - len(lines))


def _standings(state: str | None) -> Collection[str]:
    return {None: (*OPEN, "failed"), "open": OPEN, DEAD: ()}.get(state, (state or "",))


def of_corpus(connection: Connection, corpus: int, state: str | None, kind: str | None, most: int) -> WorkList:
    """As `listed`, of one corpus; `dead` is the failed work whose messages the broker gave up."""
    wanted = Wanted(_standings(state), corpus, kind)
    if state == DEAD:
        wanted = Wanted(("failed",), corpus, kind, (MessageDied.code, WorkerLost.code))
    rows, there = operators.listed(connection, wanted, most)
    return WorkList(work=[_line_of_work(row) for row in rows], more=there - len(rows))


def shown(process: Process, name: str) -> WorkDetail:
    """All there is to know about a piece of work, a text or a dead letter."""
    with process.database.snapshot() as connection:
        target = _find(connection, name)
        if isinstance(target, Buried):
            return _letter(connection, target)
        if isinstance(target, TextRow):
            return _text(connection, target)
        return _work(connection, target, process.settings.lease)


def _line(connection: Connection, target: Target) -> WorkLine:
    if isinstance(target, WorkRow):
        return _line_of_work(target)
    if isinstance(target, TextRow):
        return _line_of_text(connection, target)
    return WorkLine(
        id=f"{DEAD}-{target.id}",
        corpus=None,
        kind="message",
        about=f"{target.task or 'no task'} in queue {target.queue}",
        state=DEAD,
        tries=0,
        error={"code": "message_died", "message": target.reason},
        created_at=target.died_at,
        not_before=None,
        published_at=None,
        finished_at=None,
    )


def _line_of_work(item: WorkRow) -> WorkLine:
    return WorkLine(
        id=str(item.id),
        corpus=item.corpus,
        kind=item.kind,
        about=_about(item),
        state=item.standing,
        tries=item.attempts,
        error=item.error,
        created_at=item.created_at,
        not_before=item.not_before,
        published_at=item.published_at,
        finished_at=item.finished_at,
    )


def _about(item: WorkRow) -> str:
    if item.kind in OF_A_TEXT:
        return f"{text_name(item.subject)}, '{item.title}'"
    if item.kind == "seed":
        return f"version {item.subject}, start pairs {item.part.lower} to {item.part.upper - 1}"
    if item.sides is not None:
        return f"batch {item.subject}: {item.size:,} of {shape_name(item.sides)}"
    return f"version {item.subject}"


def _line_of_text(connection: Connection, row: TextRow) -> WorkLine:
    noted = operators.noted(connection, row.id)
    return WorkLine(
        id=text_name(row.id),
        corpus=corpora.numbered(connection, row.corpus).name,
        kind=TEXT,
        about=f"seq {row.seq}, '{row.title}'",
        state=row.state,
        tries=0,
        error=row.error,
        created_at=noted.accepted_at,
        not_before=None,
        published_at=None,
        finished_at=noted.finished_at,
    )


def _work(connection: Connection, item: WorkRow, lease: float) -> WorkDetail:
    text = _text_of(connection, item)
    part = None if item.part is None else [item.part.lower, item.part.upper]
    facts = {name: getattr(item, name) for name in ("subject", "since", "version", "priority", "size", "sides", "upto")}
    return WorkDetail(
        line=_line_of_work(item),
        next=_next(item, lease),
        details={name: fact for name, fact in {**facts, "part": part}.items() if fact is not None},
        tries=[Try(**each._asdict()) for each in operators.tries(connection, item.id)],
        related=[] if text is None else [_line_of_text(connection, text)],
        audit=_audit(connection, f"work {item.id}"),
    )


def _next(item: WorkRow, lease: float) -> str:
    """When it is published next, for people."""
    match item.standing:
        case "ready":
            return "at the next look of the relay that finds room for it"
        case "published":
            assert item.published_at is not None
            overdue = item.published_at + dt.timedelta(seconds=lease)
            return f"{overdue:%Y-%m-%d %H:%M:%S} UTC, if nobody has finished it by then"
        case "waiting":
            return f"{item.not_before:%Y-%m-%d %H:%M:%S} UTC"
        case "parked":
            return "when the texts before it are done with"
        case "done":
            return "never: it is done"
    return "never, unless it is retried"


def _text(connection: Connection, row: TextRow) -> WorkDetail:
    noted = operators.noted(connection, row.id)
    work = operators.numbered(connection, operators.of_text(row.corpus, row.id))
    details = {"title": row.title, "seq": row.seq, "sentences": row.sentences, "version": row.version}
    return WorkDetail(
        line=_line_of_text(connection, row),
        next=_next_of_text(row),
        details={**details, "characters": noted.characters},
        tries=[Try(**each._asdict()) for item in work for each in operators.tries(connection, item.id)],
        related=[_line_of_work(item) for item in work],
        audit=_audit(connection, f"text {row.id}"),
    )


def _next_of_text(row: TextRow) -> str:
    if row.state in ("accepted", "ingested"):
        return "see its work"
    return "never: it is a version" if row.state == "current" else "never, unless it is retried or given again"


def _letter(connection: Connection, letter: Buried) -> WorkDetail:
    facts = {name: getattr(letter, name) for name in ("queue", "reason", "task", "message")}
    return WorkDetail(
        line=_line(connection, letter),
        next="never: it names no work of ours; drop it",
        details={**facts, "body": letter.body.decode(errors="backslashreplace")},
        tries=[],
        related=[],
        audit=[],
    )


def _audit(connection: Connection, subject: str) -> list[Audited]:
    return [Audited(**entry._asdict()) for entry in operators.audited(connection, subject)]


# ── changing ────────────────────────────────────────────────────────────────────────────────────


def cancel(process: Process, names: Iterable[str]) -> WorkChanged:
    """Cancel texts that have not been started, all of these or none; the next in line get their turn.

    Does not wait for an ingestion. Raises TextStarted, WorkNotCancellable and what names raise.
    """
    with process.database.transaction() as connection:
        operators.be_impatient(connection)
        chosen = {row.id: row for name in names for row in [_cancellable(connection, name)]}
        cancelled = [row for row in (_unstarted(connection, chosen[number]) for number in sorted(chosen)) if row]
        # Where others than the first in line are cancelled, whoever is done with that one knocks for the next.
        first = {row.corpus: operators.first_in_line(connection, row.corpus) for row in cancelled}
        for row in cancelled:
            with _in_hand(row):
                operators.cancel_text(connection, row)
        for corpus in sorted({row.corpus for row in cancelled if first[row.corpus] in chosen}):
            texts.next_in_line(connection, corpus)  # it stays the first until the knock is committed
            publishing.knock(connection, corpus)
        return _changed(connection, texts_too=chosen)


def _cancellable(connection: Connection, name: str) -> TextRow:
    target = _find(connection, name)
    row = _text_of(connection, target)
    if row is None:
        kind = target.kind if isinstance(target, WorkRow) else "dead letter"
        raise WorkNotCancellable(work=name, kind=kind)
    return row


def _unstarted(connection: Connection, row: TextRow) -> TextRow | None:
    """The text, locked; None where it is cancelled already. Raises TextStarted."""
    with _in_hand(row):
        locked = operators.text_row(connection, row.id, lock=True)
    assert locked is not None  # texts are never deleted
    if locked.state == "cancelled":
        return None
    if locked.state != "accepted" or locked.sentences:
        state = "being ingested" if locked.state == "accepted" else locked.state
        raise TextStarted(title=row.title, state=state)
    return locked


@contextlib.contextmanager
def _in_hand(row: TextRow) -> Iterator[None]:
    """Whoever holds a text, or its work, for longer than one is patient is at work on it."""
    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, LockNotAvailable):
            raise TextStarted(title=row.title, state="being ingested") from error
        raise


def retry(process: Process, names: Iterable[str]) -> WorkChanged:
    """Open failed or dropped work again, as new; a text is accepted again, at the end of the line.

    Raises WorkNotFailed, and then nothing was changed, and what names raise.
    """
    with process.database.transaction() as connection:
        again = [_given_up(connection, name) for name in names]
        items = [target.id for target in again if isinstance(target, WorkRow)]
        attempts.reopen(connection, items)
    return _accepted_again(process, items, [row for row in again if isinstance(row, TextRow)])


def retry_all(process: Process, corpus: str | None = None, *, dropped: bool = False) -> WorkChanged:
    """Retry all that has failed, and what was `dropped`, if wanted; a cancelled text stays so. Raises CorpusUnknown."""
    with process.database.transaction() as connection:
        number = None if corpus is None else corpora.named(connection, corpus).id
        items, rows = operators.given_up(connection, number, too_dropped=dropped)
        attempts.reopen(connection, items)
    return _accepted_again(process, items, rows)


def _given_up(connection: Connection, name: str) -> WorkRow | TextRow:
    """The failed, dropped or cancelled work or text of that name."""
    target = _find(connection, name)
    if isinstance(target, Buried):
        raise WorkNotFailed(work=name, state="a dead letter", wanted="retried")
    found = _text_of(connection, target) or target
    state = found.state if isinstance(found, TextRow) else found.standing
    if state not in ("failed", "cancelled"):
        raise WorkNotFailed(work=name, state=state, wanted="retried")
    return found


def _accepted_again(process: Process, items: list[uuid.UUID], rows: list[TextRow]) -> WorkChanged:
    """Each text in a transaction of its own, as when it was new."""
    for row in {row.id: row for row in rows}.values():
        with process.database.transaction() as connection:
            ingest.accepted(connection, row.corpus, row.title, texts.body(connection, row.id))
    with process.database.snapshot() as connection:
        return _changed(connection, items, {row.id for row in rows})


def drop(process: Process, names: Iterable[str]) -> WorkChanged:
    """Let failed work, failed texts and dead letters be, all of these or none.

    Dropped work and texts can be retried; a dead letter is gone. Raises WorkNotFailed, WorkNotCancellable, and what
    names raise.
    """
    with process.database.transaction() as connection:
        operators.be_impatient(connection)
        targets = [(name, _find(connection, name)) for name in names]
        chosen = {row.id: name for name, target in targets if (row := _text_of(connection, target)) is not None}
        for number in sorted(chosen):
            _drop_text(connection, number, chosen[number])
        items = {
            target.id: name for name, target in targets if isinstance(target, WorkRow) and target.kind not in OF_A_TEXT
        }
        _drop_searches(connection, items)
        for _, target in targets:
            if isinstance(target, Buried):
                dead_letters.drop(connection, target.id)
        changed = _changed(connection, items, chosen)
        lacking = sorted({line.corpus or "" for line in changed.changed if line.kind in DROPPABLE})
    notes = [
        f"corpus '{corpus}' is incomplete until it is retried: it lacks what dropped work would have found"
        for corpus in lacking
    ]
    return changed.model_copy(update={"notes": notes})


def _drop_text(connection: Connection, number: int, name: str) -> None:
    row = operators.text_row(connection, number, lock=True)
    assert row is not None
    if row.state != "failed":
        raise WorkNotFailed(work=name, state=row.state, wanted="dropped")
    operators.cancel_text(connection, row)


def _drop_searches(connection: Connection, names: dict[uuid.UUID, str]) -> None:
    rows = operators.numbered(connection, names)
    for item in rows:
        if item.standing != "failed":
            raise WorkNotFailed(work=names[item.id], state=item.standing, wanted="dropped")
        if item.kind not in DROPPABLE:
            raise WorkNotCancellable(work=names[item.id], kind=item.kind)
    dropped = operators.drop(connection, sorted(names))
    for item in rows:
        if item.id not in dropped:  # somebody has just retried it
            raise WorkNotFailed(work=names[item.id], state="ready", wanted="dropped")


def _changed(connection: Connection, items: Collection[uuid.UUID] = (), texts_too: Collection[int] = ()) -> WorkChanged:
    rows = [operators.text_row(connection, number) for number in sorted(texts_too)]
    lines = [_line_of_text(connection, row) for row in rows if row is not None]
    lines += [_line_of_work(item) for item in operators.numbered(connection, items)]
    return WorkChanged(changed=lines, notes=[])


# ── watching ────────────────────────────────────────────────────────────────────────────────────


def looks(process: Process, every: float, said: Callable[[str], None]) -> Iterator[Status]:
    """The status, again and again, with the rates since the look before; while the database is away it is said once."""
    before: tuple[float, Status] | None = None
    away = False
    while True:
        began = time.monotonic()
        try:
            status = reports.status(process)
        except Unavailable as error:
            if error.retry is Retry.NEVER:
                raise
            if not away:
                said(f"{error}; looking again")
            away = True
        else:
            away = False
            yield status if before is None else reports.with_rates(status, before[1], began - before[0])
            before = began, status
        time.sleep(max(0.0, began + every - time.monotonic()))
