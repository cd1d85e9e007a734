"""What operators ask about work and texts, and the changes of state that only they make."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, case, func, literal_column, select, text, update

from crochet_tasks.db import outbox
from crochet_tasks.db.tables import attempts, audit, corpora, texts, work
from crochet_tasks.db.tally import SEARCHING, SPENT, standing
from crochet_tasks.db.texts import TextRow
from crochet_tasks.engine.geometry import Sides

ENDED = ("failed", "done", "cancelled")
PATIENCE = "500ms"
"""how long an operator's change waits for a row: who ingests a text holds it for longer"""

_STANDING = case(
    (work.c.state != "open", work.c.state),
    else_=literal_column(standing("clock_timestamp()")),
)


class WorkRow(NamedTuple):
    """A piece of work as operators see it; `standing` is one of OPEN or ENDED, `title` that of its text."""

    id: uuid.UUID
    corpus: str
    kind: str
    subject: int
    part: Any
    since: int
    version: int
    priority: int
    size: int
    sides: Sides | None
    standing: str
    attempts: int
    error: dict[str, Any] | None
    upto: int | None
    created_at: dt.datetime
    not_before: dt.datetime | None
    published_at: dt.datetime | None
    finished_at: dt.datetime | None
    title: str | None


_OTHERS: dict[str, ColumnElement[Any]] = {
    "corpus": corpora.c.name,
    "standing": _STANDING,
    "not_before": func.nullif(work.c.not_before, literal_column("'infinity'::timestamptz")),
    "title": texts.c.title,
}
_WORK: Select[Any] = (
    select(*((_OTHERS[name] if name in _OTHERS else work.c[name]).label(name) for name in WorkRow._fields))
    .join_from(work, corpora, work.c.corpus == corpora.c.id)
    .outerjoin(texts, work.c.kind.in_(["ingest", "context"]) & (work.c.subject == texts.c.id))
)


def _read(row: Any) -> WorkRow:
    item = WorkRow(*row)
    return item if item.sides is None else item._replace(sides=tuple(item.sides))


# ── which there are ─────────────────────────────────────────────────────────────────────────────


class Wanted(NamedTuple):
    """Which work is asked for: of these standings, and of one corpus, one kind, some errors where they are given."""

    standings: Collection[str]
    corpus: int | None = None
    kind: str | None = None
    errors: Collection[str] | None = None

    @property
    def condition(self) -> ColumnElement[bool]:
        # By state first: it has indexes for the few that are open or failed.
        states = {standing if standing in ENDED else "open" for standing in self.standings}
        found: ColumnElement[bool] = work.c.state.in_(states) & _STANDING.in_(self.standings)
        if self.corpus is not None:
            found &= work.c.corpus == self.corpus
        if self.errors is not None:
            found &= work.c.error["code"].astext.in_(self.errors)
        return found if self.kind is None else found & (work.c.kind == self.kind)


def listed(connection: Connection, wanted: Wanted, most: int, counted: int | None = None) -> tuple[list[WorkRow], int]:
    """The first of what is wanted, and how much there is in all; `counted` where there is more.

    First what has failed, then what is open in the order in which it is published, then what ended last.
    """
    ended = set(wanted.standings) in ({"done"}, {"cancelled"})  # of one state: there is an index in that order
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
    rows = connection.execute(_WORK.where(wanted.condition).order_by(*order).limit(most))
    few = select(work.c.id).where(wanted.condition).limit(counted).subquery()
    number = connection.execute(select(func.count()).select_from(few)).scalar_one()
    return [_read(row) for row in rows], int(number)


def beginning(connection: Connection, low: uuid.UUID, high: uuid.UUID) -> list[WorkRow]:
    """Two, at the most, of the work whose ids lie in a range."""
    return [_read(row) for row in connection.execute(_WORK.where(work.c.id.between(low, high)).limit(2))]


def numbered(connection: Connection, ids: Iterable[uuid.UUID]) -> list[WorkRow]:
    rows = connection.execute(_WORK.where(work.c.id.in_(list(ids))).order_by(work.c.created_at, work.c.id))
    return [_read(row) for row in rows]


_TEXT = select(*(texts.c[name] for name in TextRow._fields))


def corpus_of(connection: Connection, item: uuid.UUID) -> int | None:
    """The corpus of a piece of work; None where there is no such work."""
    found: int | None = connection.execute(select(work.c.corpus).where(work.c.id == item)).scalar()
    return found


def text_row(connection: Connection, number: int, *, lock: bool = False) -> TextRow | None:
    """A text by its number. With `lock` its row is locked until the transaction ends."""
    query = _TEXT.where(texts.c.id == number)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else TextRow(*row)


class Noted(NamedTuple):
    """What a text's row says beside TextRow."""

    accepted_at: dt.datetime
    finished_at: dt.datetime | None
    characters: int


def noted(connection: Connection, number: int) -> Noted:
    query = select(texts.c.accepted_at, texts.c.finished_at, func.length(texts.c.body)).where(texts.c.id == number)
    return Noted(*connection.execute(query).one())


class Attempt(NamedTuple):
    number: int
    at: dt.datetime
    error: dict[str, Any]


def tries(connection: Connection, item: uuid.UUID) -> list[Attempt]:
    """Every try of a piece of work that did not succeed, oldest first."""
    query = select(*(attempts.c[name] for name in Attempt._fields)).where(attempts.c.work == item)
    return [Attempt(*row) for row in connection.execute(query.order_by(attempts.c.id))]


class Entry(NamedTuple):
    """An entry of the audit."""

    at: dt.datetime
    who: str
    what: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def audited(connection: Connection, subject: str) -> list[Entry]:
    """Every change of state of 'work ID' or 'text NUMBER', oldest first."""
    query = select(*(audit.c[name] for name in Entry._fields)).where(audit.c.subject == subject)
    return [Entry(*row) for row in connection.execute(query.order_by(audit.c.id))]


# ── whether it goes on ──────────────────────────────────────────────────────────────────────────


def unfinished(connection: Connection, corpus: int, ids: Collection[int]) -> bool:
    """Whether one of these texts is still to become a version, or work of the corpus is open that can be done."""
    return bool(connection.execute(text(_UNFINISHED), {"corpus": corpus, "ids": list(ids)}).scalar_one())


# Remediations of a version are not run while those of an older one have failed: they stay open. So do searches of
# a corpus whose budget is spent.
_UNFINISHED = f"""
SELECT EXISTS (
    SELECT FROM texts WHERE id = ANY(CAST(:ids AS bigint[])) AND state IN ('accepted', 'ingested')
) OR EXISTS (
    SELECT FROM work
     WHERE corpus = :corpus AND state = 'open'
       AND NOT (kind = 'remediations' AND EXISTS (
           SELECT FROM work AS failed
            WHERE failed.corpus = :corpus AND failed.state = 'failed' AND failed.kind = 'remediations'
              AND failed.subject < work.subject
       ))
       AND NOT (kind IN ('seed', 'grow') AND EXISTS (SELECT FROM corpora WHERE id = :corpus AND {SPENT}))
)
"""


# ── changes ─────────────────────────────────────────────────────────────────────────────────────


def be_impatient(connection: Connection) -> None:
    """From here to its end, the transaction does not wait for others' rows for longer than PATIENCE."""
    connection.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE}'"))


def of_text(corpus: int, number: int) -> list[uuid.UUID]:
    """The ids of the work on a text, whether there is such work or not."""
    return [outbox.ingest(corpus, number).id, outbox.context(corpus, number).id]


def cancel_text(connection: Connection, row: TextRow) -> None:
    """Let a text that is no version not become one, with what is open or failed of its work. Its row is locked."""
    given_up = {"state": "cancelled", "sentences": 0, "error": None, "finished_at": func.now()}
    connection.execute(update(texts).where(texts.c.id == row.id).values(given_up))
    items = update(work).where(work.c.id.in_(of_text(row.corpus, row.id)), work.c.state.in_(["open", "failed"]))
    connection.execute(items.values(_CANCELLED))


def drop(connection: Connection, ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Let failed work be as it is; returns that which had failed. Its last error stays."""
    failed = update(work).where(work.c.id.in_(list(ids)), work.c.state == "failed")
    return set(connection.execute(failed.values(_CANCELLED).returning(work.c.id)).scalars())


_CANCELLED = {"state": "cancelled", "published_at": None, "not_before": None, "finished_at": func.now()}


def first_in_line(connection: Connection, corpus: int) -> int | None:
    """The text whose turn it is at this moment; texts.next_in_line also locks it."""
    waiting = select(texts.c.id).where(texts.c.corpus == corpus, texts.c.state.in_(["accepted", "ingested"]))
    found: int | None = connection.execute(waiting.order_by(texts.c.seq).limit(1)).scalar()
    return found


def given_up(connection: Connection, corpus: int | None, *, too_dropped: bool) -> tuple[list[uuid.UUID], list[TextRow]]:
    """All searching work that has failed (and what was dropped of it, if wanted), and the texts that have."""
    states = ["failed", "cancelled"] if too_dropped else ["failed"]
    lost = select(work.c.id).where(work.c.state.in_(states), work.c.kind.in_(SEARCHING)).order_by(work.c.id)
    failed = _TEXT.where(texts.c.state == "failed").order_by(texts.c.corpus, texts.c.seq)
    if corpus is not None:
        lost, failed = lost.where(work.c.corpus == corpus), failed.where(texts.c.corpus == corpus)
    return list(connection.execute(lost).scalars()), [TextRow(*row) for row in connection.execute(failed)]
