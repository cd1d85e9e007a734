"""Lists of work for operators, all details of a work item, and the status as it changes."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from crochet_tasks.db import Connection, corpora, dead_letters, operators, tally
from crochet_tasks.db.dead_letters import DeadLetterRow
from crochet_tasks.db.operators import Place, WorkFilter, WorkRow
from crochet_tasks.db.process import Process
from crochet_tasks.db.tally import BESIDE, OF_A_TEXT, OPEN
from crochet_tasks.db.texts import TextRow
from crochet_tasks.errors import MessageDied, WorkerLost
from crochet_tasks.operate.names import find, text_of
from crochet_tasks.reporting import reports
from crochet_tasks.retry import Outage
from crochet_tasks.schemas.names import DEAD, TEXT, best_name, text_name
from crochet_tasks.schemas.reports import Status, WorkChanged, WorkDetail, WorkError, WorkLine, WorkList

DIED = frozenset({MessageDied.code, WorkerLost.code})
"""errors of work whose messages were dead-lettered"""


def listed(
    process: Process, *, corpus: str | None = None, state: str | None = None, kind: str | None = None, most: int = 50
) -> WorkList:
    """Work, and the dead letters after it; of one of STATES, or what is open, failed and dead. Raises CorpusUnknown.

    Dead letters belong to no corpus and to no kind of work.
    """
    states = _states(state)
    with process.database.snapshot() as connection:
        number = None if corpus is None else corpora.named(connection, corpus).id
        rows, there = operators.listed(connection, WorkFilter(states, number, kind), most) if states else ([], 0)
        lines = [line_of_work(row) for row in rows]
        if state in (None, DEAD) and corpus is None and kind is None:
            lines += [_line_of_letter(letter) for letter in dead_letters.first(connection, most - len(lines))]
            there += tally.dead_letters(connection)
    return WorkList(work=lines, more=there - len(lines))


def _states(state: str | None) -> Collection[str]:
    return {None: (*OPEN, "failed"), "open": OPEN, DEAD: ()}.get(state, (state or "",))


def of_corpus(
    connection: Connection, corpus: int, state: str | None, kind: str | None, most: int, counted: int
) -> tuple[WorkList, bool]:
    """As `listed`, of one corpus; `dead` is failed work whose messages were dead-lettered. Counts at most `counted`
    items; the second value is True if there may be more.
    """
    query = WorkFilter(_states(state), corpus, kind)
    if state == DEAD:
        query = WorkFilter(("failed",), corpus, kind, DIED)
    rows, there = operators.listed(connection, query, most, counted)
    return WorkList(work=[line_of_work(row) for row in rows], more=there - len(rows)), there == counted


class Placed(NamedTuple):
    """A line of `page`: whose it is, and where the page goes on behind it."""

    line: WorkLine
    tenant: str
    place: Place


def chosen(
    state: str | None,
    kind: str | None,
    error: str | None = None,
    *,
    corpus: int | None = None,
    tenant: int | None = None,
) -> WorkFilter:
    """Which work `page` lists; `state` as in `of_corpus`, `error` is the code of its last error."""
    errors = None if error is None else frozenset({error})
    if state == DEAD:
        died = DIED if errors is None else DIED & errors
        return WorkFilter(("failed",), corpus, kind, died, tenant)
    return WorkFilter(_states(state), corpus, kind, errors, tenant)


def page(connection: Connection, which: WorkFilter, begin: Place | None, most: int) -> list[Placed]:
    """As db.operators.page."""
    rows = operators.page(connection, which, begin, most)
    return [Placed(line_of_work(row), row.tenant, operators.place(row, which)) for row in rows]


def letters(connection: Connection, begin: int | None, most: int, *, newer: bool) -> list[tuple[int, WorkLine]]:
    """Dead letters and their numbers, as db.dead_letters.page."""
    rows = dead_letters.page(connection, begin, most, newer=newer)
    return [(row.id, _line_of_letter(row)) for row in rows]


def details(process: Process, name: str) -> WorkDetail:
    """All details of a work item, a text or a dead letter."""
    with process.database.snapshot() as connection:
        target = find(connection, name)
        if isinstance(target, DeadLetterRow):
            return _letter(connection, target)
        if isinstance(target, TextRow):
            return _text(connection, target)
        return _work(connection, target, process.settings.lease)


def _line_of_letter(letter: DeadLetterRow) -> WorkLine:
    return WorkLine(
        id=f"{DEAD}-{letter.id}",
        corpus=None,
        kind="message",
        about=f"{letter.task or 'no task'} in queue {letter.queue}",
        state=DEAD,
        tries=0,
        error=WorkError(code="message_died", message=letter.reason),
        created_at=letter.died_at,
        not_before=None,
        published_at=None,
        finished_at=None,
    )


def line_of_work(item: WorkRow) -> WorkLine:
    return WorkLine(
        id=str(item.id),
        corpus=item.corpus,
        kind=item.kind,
        about=_about(item),
        state=item.state,
        tries=item.attempts,
        error=_error(item.error),
        created_at=item.created_at,
        not_before=item.not_before,
        published_at=item.published_at,
        finished_at=item.finished_at,
    )


def _error(facts: dict[str, Any] | None) -> WorkError | None:
    return None if facts is None else WorkError.model_validate(facts)


def _about(item: WorkRow) -> str:
    if item.kind in OF_A_TEXT:
        return f"{text_name(item.subject)}, '{item.title}'"
    if item.kind == BESIDE:
        what = "plan" if item.part is None else f"starts {item.part.lower} to {item.part.upper - 1}"
        return f"{best_name(item.subject)} of version {item.version}, {what}"
    if item.part is not None:
        return f"version {item.subject}, starts {item.part.lower} to {item.part.upper - 1}"
    if item.kind == "search":
        return f"version {item.subject}, boxes that another search left over"
    return f"version {item.subject}"


def line_of_text(connection: Connection, row: TextRow) -> WorkLine:
    facts = operators.text_details(connection, row.id)
    return WorkLine(
        id=text_name(row.id),
        corpus=corpora.numbered(connection, row.corpus).name,
        kind=TEXT,
        about=f"seq {row.seq}, '{row.title}'",
        state=row.state,
        tries=0,
        error=_error(row.error),
        created_at=facts.accepted_at,
        not_before=None,
        published_at=None,
        finished_at=facts.finished_at,
    )


def _work(connection: Connection, item: WorkRow, lease: float) -> WorkDetail:
    text = text_of(connection, item)
    part = None if item.part is None else [item.part.lower, item.part.upper]
    facts = {name: getattr(item, name) for name in ("subject", "since", "version", "priority")}
    return WorkDetail(
        line=line_of_work(item),
        next=_next(item, lease),
        details={name: fact for name, fact in {**facts, "part": part}.items() if fact is not None},
        tries=operators.failed_attempts(connection, item.id),
        related=[] if text is None else [line_of_text(connection, text)],
        audit=operators.audited(connection, f"work {item.id}"),
    )


def _next(item: WorkRow, lease: float) -> str:
    """When it is published next, for people."""
    match item.state:
        case "ready":
            return "at the next poll of the relay that finds room for it"
        case "held":
            return "when the budget of its corpus, or its tenant's quota of orthos, is raised, or its corpus is resumed"
        case "published":
            assert item.published_at is not None
            overdue = item.published_at + dt.timedelta(seconds=lease)
            return f"{overdue:%Y-%m-%d %H:%M:%S} UTC, if no worker has finished it by then"
        case "waiting":
            return f"{item.not_before:%Y-%m-%d %H:%M:%S} UTC"
        case "parked":
            return "when the texts before it are done with"
        case "done":
            return "never: it is done"
    return "never, unless it is retried"


def _text(connection: Connection, row: TextRow) -> WorkDetail:
    facts = operators.text_details(connection, row.id)
    work = operators.with_ids(connection, operators.of_text(row.corpus, row.id))
    details = {"title": row.title, "seq": row.seq, "sentences": row.sentences, "version": row.version}
    return WorkDetail(
        line=line_of_text(connection, row),
        next=_next_of_text(row),
        details={**details, "characters": facts.characters},
        tries=[each for item in work for each in operators.failed_attempts(connection, item.id)],
        related=[line_of_work(item) for item in work],
        audit=operators.audited(connection, f"text {row.id}"),
    )


def _next_of_text(row: TextRow) -> str:
    if row.state in ("accepted", "ingested"):
        return "see its work"
    return "never: it is a version" if row.state == "current" else "never, unless it is retried or submitted again"


def _letter(connection: Connection, letter: DeadLetterRow) -> WorkDetail:
    facts = {name: getattr(letter, name) for name in ("queue", "reason", "task", "message")}
    return WorkDetail(
        line=_line_of_letter(letter),
        next="never: it names no work of ours; drop it",
        details={**facts, "body": dead_letters.body(connection, letter.id).decode(errors="backslashreplace")},
        tries=[],
        related=[],
        audit=[],
    )


def changed(connection: Connection, items: Collection[uuid.UUID] = (), texts_too: Collection[int] = ()) -> WorkChanged:
    """What became of these texts and items."""
    rows = [operators.text_row(connection, number) for number in sorted(texts_too)]
    lines = [line_of_text(connection, row) for row in rows if row is not None]
    lines += [line_of_work(item) for item in operators.with_ids(connection, items)]
    return WorkChanged(changed=lines, notes=[])


# ── watching ────────────────────────────────────────────────────────────────────────────────────


def poll_status(process: Process, every: float, note: Callable[[str], None]) -> Iterator[Status]:
    """Yield the status every so many seconds; report an outage of the database once."""
    outage = Outage(note, "polling again")
    while True:
        began = time.monotonic()
        with outage.tolerated():
            yield reports.status(process)
        time.sleep(max(0.0, began + every - time.monotonic()))
