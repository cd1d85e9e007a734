"""Queries of operators about work and texts, and the changes of state that only operators make."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    case,
    func,
    literal,
    literal_column,
    select,
    text,
    true,
    tuple_,
    union_all,
    update,
)

from crochet_tasks.db import outbox
from crochet_tasks.db.access_tables import tenants
from crochet_tasks.db.tables import attempts, audit, corpora, texts, work
from crochet_tasks.db.tally import BESIDE, OPEN, SEARCHING, SPENT, open_state
from crochet_tasks.db.texts import WAITING, TextRow, delete_ingested
from crochet_tasks.schemas.reports import Audited, Try

ENDED = ("failed", "done", "cancelled")
LOCK_WAIT = "500ms"
"""lock_timeout of an operator's change: an ingestion keeps its text's row locked for longer"""

_STATE = case(
    (work.c.state != "open", work.c.state),
    else_=literal_column(open_state("clock_timestamp()")),
)


class WorkRow(NamedTuple):
    """A piece of work as operators see it; `state` is one of OPEN or ENDED, `title` that of its text."""

    id: uuid.UUID
    corpus: str
    kind: str
    subject: int
    part: Any
    since: int
    version: int
    priority: int
    state: str
    attempts: int
    error: dict[str, Any] | None
    created_at: dt.datetime
    not_before: dt.datetime | None
    published_at: dt.datetime | None
    finished_at: dt.datetime | None
    title: str | None
    tenant: str


_OTHERS: dict[str, ColumnElement[Any]] = {
    "corpus": corpora.c.name,
    "state": _STATE,
    "not_before": func.nullif(work.c.not_before, literal_column("'infinity'::timestamptz")),
    "title": texts.c.title,
    "tenant": tenants.c.name,
}
_WORK: Select[Any] = (
    select(*((_OTHERS[name] if name in _OTHERS else work.c[name]).label(name) for name in WorkRow._fields))
    .join_from(work, corpora, work.c.corpus == corpora.c.id)
    .join(tenants, corpora.c.tenant == tenants.c.id)
    .outerjoin(texts, work.c.kind.in_(["ingest", "context"]) & (work.c.subject == texts.c.id))
)


# ── lists ──────────────────────────────────────────────────────────────────────────────────────


class WorkFilter(NamedTuple):
    """Which work to list: in these states and, where they are given, of one corpus, of one kind, with some errors.

    `tenant` is for `page`: of the corpora of one tenant only.
    """

    states: Collection[str]
    corpus: int | None = None
    kind: str | None = None
    errors: Collection[str] | None = None
    tenant: int | None = None

    @property
    def condition(self) -> ColumnElement[bool]:
        # By state first: it has indexes for the few that are open or failed.
        states = {state if state in ENDED else "open" for state in self.states}
        found: ColumnElement[bool] = work.c.state.in_(states) & _STATE.in_(self.states)
        if self.corpus is not None:
            found &= work.c.corpus == self.corpus
        return self._further(found)

    def within(self, state: str) -> ColumnElement[bool]:
        """As `condition`, but for corpora, of one state of the table. Nothing is said that follows from it: the planner
        would take it for a rare case, and read all rows to sort the few.
        """
        found: ColumnElement[bool] = work.c.state == literal_column(f"'{state}'")
        if state == "open" and not set(OPEN) <= set(self.states):
            found &= _STATE.in_(self.states)
        return self._further(found)

    def _further(self, found: ColumnElement[bool]) -> ColumnElement[bool]:
        if self.errors is not None:
            found &= work.c.error["code"].astext.in_(self.errors)
        return found if self.kind is None else found & (work.c.kind == self.kind)


def listed(
    connection: Connection, which: WorkFilter, most: int, counted: int | None = None
) -> tuple[list[WorkRow], int]:
    """Return the first `most` rows that match, and how many match; at most `counted` are counted.

    Failed work first, then open work in the order in which it is published, then work that ended, newest first.
    """
    ended = set(which.states) in ({"done"}, {"cancelled"})  # of one state: there is an index in that order
    order: tuple[ColumnElement[Any], ...] = (
        (work.c.state == "failed").desc(),
        (work.c.state == "open").desc(),
        work.c.finished_at.desc().nulls_first(),
        work.c.priority.desc(),
        work.c.created_at,
        work.c.id,
    )
    if ended:
        order = (work.c.finished_at.desc(),)
    rows = connection.execute(_WORK.where(which.condition).order_by(*order).limit(most))
    few = select(work.c.id).where(which.condition).limit(counted).subquery()
    number = connection.execute(select(func.count()).select_from(few)).scalar_one()
    return [WorkRow(*row) for row in rows], int(number)


class Place(NamedTuple):
    """A row in the order of `page`, from which the next page goes on: to older rows, or to newer ones."""

    at: dt.datetime
    id: uuid.UUID
    newer: bool


def place(row: WorkRow, which: WorkFilter) -> Place:
    """Where a row of `page` stands; the next page is that of older ones."""
    at = row.finished_at if _only_ended(which) else row.created_at
    assert at is not None
    return Place(at, row.id, newer=False)


def _only_ended(which: WorkFilter) -> bool:
    return set(which.states) <= {"done", "cancelled"}


def page(connection: Connection, which: WorkFilter, begin: Place | None, most: int) -> list[WorkRow]:
    """Return at most `most` rows that match, nearest to `begin` first; without one the newest.

    In the order in which they were written; what is done or cancelled, in that in which it ended. Corpus by corpus and
    state by state by an index, so no more is read than is shown, but for what kind, error and open states leave out.
    """
    moment = work.c.finished_at if _only_ended(which) else work.c.created_at
    newer = begin is not None and begin.newer
    mine = select(corpora.c.id).where(_THERE)
    if which.tenant is not None:
        mine = mine.where(corpora.c.tenant == which.tenant)
    if which.corpus is not None:
        mine = mine.where(corpora.c.id == which.corpus)
    states = sorted({state if state in ENDED else "open" for state in which.states})
    found = union_all(*(_first(mine, which.within(state), moment, begin, most) for state in states)).subquery()
    first = select(found.c.id, found.c.moment).order_by(*_ordered(found.c.moment, found.c.id, newer)).limit(most)
    chosen = first.cte("chosen")
    rows = _WORK.join(chosen, chosen.c.id == work.c.id).order_by(*_ordered(chosen.c.moment, chosen.c.id, newer))
    return [WorkRow(*row) for row in connection.execute(rows)]


def _first(
    mine: Select[Any], condition: ColumnElement[bool], moment: ColumnElement[Any], begin: Place | None, most: int
) -> Select[Any]:
    """The first rows of each corpus that match, as (id, moment)."""
    of = mine.subquery()
    rows = select(work.c.id, moment.label("moment")).where(work.c.corpus == of.c.id, condition)
    newer = begin is not None and begin.newer
    if begin is not None:
        here, there = tuple_(moment, work.c.id), tuple_(literal(begin.at), literal(begin.id))
        rows = rows.where(here > there if newer else here < there)
    few = rows.order_by(*_ordered(moment, work.c.id, newer)).limit(most).lateral()
    return select(few.c.id, few.c.moment).select_from(of.join(few, true()))


def _ordered(moment: ColumnElement[Any], item: ColumnElement[Any], newer: bool) -> tuple[ColumnElement[Any], ...]:  # noqa: FBT001
    return (moment, item) if newer else (moment.desc(), item.desc())


def with_ids_between(connection: Connection, low: uuid.UUID, high: uuid.UUID) -> list[WorkRow]:
    """Return at most two items of work whose ids lie in a range."""
    return [WorkRow(*row) for row in connection.execute(_WORK.where(work.c.id.between(low, high)).limit(2))]


def with_ids(connection: Connection, ids: Iterable[uuid.UUID]) -> list[WorkRow]:
    rows = connection.execute(_WORK.where(work.c.id.in_(list(ids))).order_by(work.c.created_at, work.c.id))
    return [WorkRow(*row) for row in rows]


_TEXT = select(*(texts.c[name] for name in TextRow._fields))


def corpus_of(connection: Connection, item: uuid.UUID) -> int | None:
    """The corpus of a piece of work; None where there is no such work."""
    found: int | None = connection.execute(select(work.c.corpus).where(work.c.id == item)).scalar()
    return found


def owner_of_work(connection: Connection, item: uuid.UUID) -> int | None:
    """The tenant whose corpus a piece of work is of; None where there is no such work."""
    query = select(corpora.c.tenant).join(work, work.c.corpus == corpora.c.id).where(work.c.id == item, _THERE)
    found: int | None = connection.execute(query).scalar()
    return found


def owner_of_text(connection: Connection, number: int) -> int | None:
    """As `owner_of_work`, of a text."""
    query = select(corpora.c.tenant).join(texts, texts.c.corpus == corpora.c.id).where(texts.c.id == number, _THERE)
    found: int | None = connection.execute(query).scalar()
    return found


_THERE = corpora.c.removed_at.is_(None)


def text_row(connection: Connection, number: int, *, lock: bool = False) -> TextRow | None:
    """A text by its number. With `lock` its row is locked until the transaction ends."""
    query = _TEXT.where(texts.c.id == number)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else TextRow(*row)


class TextDetails(NamedTuple):
    """The columns of a text that TextRow lacks."""

    accepted_at: dt.datetime
    finished_at: dt.datetime | None
    characters: int


def text_details(connection: Connection, number: int) -> TextDetails:
    query = select(texts.c.accepted_at, texts.c.finished_at, func.length(texts.c.body)).where(texts.c.id == number)
    return TextDetails(*connection.execute(query).one())


def failed_attempts(connection: Connection, item: uuid.UUID) -> list[Try]:
    """Return every failed attempt of a work item, oldest first."""
    query = select(attempts).where(attempts.c.work == item).order_by(attempts.c.id)
    return [Try.model_validate(row, from_attributes=True) for row in connection.execute(query)]


def audited(connection: Connection, subject: str) -> list[Audited]:
    """Every change of state of 'work ID' or 'text NUMBER', oldest first."""
    query = select(audit).where(audit.c.subject == subject).order_by(audit.c.id)
    return [Audited.model_validate(row, from_attributes=True) for row in connection.execute(query)]


# ── progress ───────────────────────────────────────────────────────────────────────────────────


def unfinished(connection: Connection, corpus: int, ids: Collection[int]) -> bool:
    """Whether one of these texts is not a version yet, or work of the corpus is open that can be done.

    Searches for the best orthos do not count. Of a paused corpus nothing can be done.
    """
    return bool(connection.execute(text(_UNFINISHED), {"corpus": corpus, "ids": list(ids)}).scalar_one())


# Remediations of a version are not run while those of an older one have failed or were cancelled: they stay open. So do
# searches of a corpus whose budget is spent.
_UNFINISHED = f"""
SELECT NOT EXISTS (SELECT FROM corpora WHERE id = :corpus AND paused_at IS NOT NULL) AND (EXISTS (
    SELECT FROM texts WHERE id = ANY(CAST(:ids AS bigint[])) AND state IN ('accepted', 'ingested')
) OR EXISTS (
    SELECT FROM work
     WHERE corpus = :corpus AND state = 'open' AND kind <> 'best'
       AND NOT (kind = 'remediations' AND EXISTS (
           SELECT FROM work AS failed
            WHERE failed.corpus = :corpus AND failed.state IN ('failed', 'cancelled')
              AND failed.kind = 'remediations'
              AND failed.subject < work.subject
       ))
       AND NOT (kind = 'search' AND EXISTS (SELECT FROM corpora WHERE id = :corpus AND {SPENT}))
))
"""


# ── changes ─────────────────────────────────────────────────────────────────────────────────────


def limit_lock_wait(connection: Connection, longest: str | None = None) -> None:
    """Set this transaction's lock_timeout; LOCK_WAIT by default."""
    connection.execute(text(f"SET LOCAL lock_timeout = '{longest or LOCK_WAIT}'"))


def of_text(corpus: int, number: int) -> list[uuid.UUID]:
    """The ids of the work on a text, whether there is such work or not."""
    return [outbox.ingest(corpus, number).id, outbox.context(corpus, number).id]


def cancel_text(connection: Connection, row: TextRow) -> None:
    """Cancel a text that is no version yet, and its open and failed work. The caller has locked its row.

    What was ingested of it is deleted; then the caller holds the ORDER lock, too.
    """
    if row.state in WAITING and row.sentences:
        delete_ingested(connection, row.corpus)
    cancelled = {"state": "cancelled", "sentences": 0, "reached": None, "error": None, "finished_at": func.now()}
    connection.execute(update(texts).where(texts.c.id == row.id).values(cancelled))
    cancel_items(connection, of_text(row.corpus, row.id))


def drop(connection: Connection, ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Cancel failed work; return the ids of what had failed. Its last error stays."""
    failed = outbox.locked(work.c.id.in_(list(ids)), work.c.state == "failed")
    dropped = update(work).where(failed).values(_CANCELLED).returning(work.c.id)
    return set(connection.execute(dropped).scalars())


def cancel_items(connection: Connection, ids: Collection[uuid.UUID]) -> int:
    """Cancel work that is open or has failed; how much that was."""
    return _cancel(connection, work.c.id.in_(list(ids)), work.c.state.in_(["open", "failed"]))


def cancel_open(connection: Connection, corpus: int, kinds: Collection[str], most: int) -> int:
    """Cancel at most `most` open items of a corpus; how many."""
    some = select(work.c.id).where(work.c.corpus == corpus, work.c.state == "open", work.c.kind.in_(kinds)).limit(most)
    return _cancel(connection, work.c.id.in_(some), work.c.state == "open")


def _cancel(connection: Connection, *which: ColumnElement[bool]) -> int:
    return connection.execute(update(work).where(outbox.locked(*which)).values(_CANCELLED)).rowcount


_CANCELLED = {"state": "cancelled", "published_at": None, "not_before": None, "finished_at": func.now()}


def first_waiting_text(connection: Connection, corpus: int) -> int | None:
    """Return the text whose turn it is; texts.lock_first_waiting also locks it."""
    waiting = select(texts.c.id).where(texts.c.corpus == corpus, texts.c.state.in_(["accepted", "ingested"]))
    found: int | None = connection.execute(waiting.order_by(texts.c.seq).limit(1)).scalar()
    return found


def failed_work(
    connection: Connection, corpus: int | None, *, too_dropped: bool
) -> tuple[list[uuid.UUID], list[TextRow]]:
    """Return all failed work of searches, those for the best, too, and all failed texts.

    With `too_dropped` also dropped work of searches for the closure: what was dropped of one for the best stays so.
    """
    lost_work = (work.c.state == "failed") & work.c.kind.in_([*SEARCHING, BESIDE])
    dropped = (work.c.state == "cancelled") & work.c.kind.in_(SEARCHING)
    lost = select(work.c.id).where(lost_work | dropped if too_dropped else lost_work).order_by(work.c.id)
    failed = _TEXT.where(texts.c.state == "failed").order_by(texts.c.corpus, texts.c.seq)
    if corpus is not None:
        lost, failed = lost.where(work.c.corpus == corpus), failed.where(texts.c.corpus == corpus)
    return list(connection.execute(lost).scalars()), [TextRow(*row) for row in connection.execute(failed)]
