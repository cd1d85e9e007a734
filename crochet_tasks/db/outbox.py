"""The outbox: rows of `work`, one per work item. A task writes them in its transaction; they are published after it."""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from psycopg.types.range import Range
from sqlalchemy import ColumnElement, Connection, and_, any_, bindparam, case, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from crochet_tasks.db import sessions
from crochet_tasks.db.tables import best as jobs
from crochet_tasks.db.tables import corpora, work
from crochet_tasks.errors import StoreCorrupt
from crochet_tasks.telemetry import correlation, metrics
from crochet_tasks.telemetry.correlation import Origin

NAMESPACE = uuid.UUID("6a7e1f2c-58a1-5f0e-9c39-0d5f6b3d7c11")
"""Fixed for ever: ids of work and keys of batches are uuid5 in it."""

CONTEXT, INGEST, REMEDIATIONS = 4_000_000, 3_000_000, 2_000_000
"""Priorities of the ordered stages. Searches come after them."""
LEFT_OVER, START = 1, 0
"""Priorities of searches: what is left over first, so that little of it is kept."""
BEST = -1
"""Priority of searches for the best orthos: after all others."""


class Item(NamedTuple):
    """A piece of work; docs/pipeline.md explains the kinds."""

    id: uuid.UUID
    corpus: int
    kind: str
    subject: int
    part: tuple[int, int] | None
    since: int
    version: int
    priority: int
    attempts: int = 0
    """how often it was tried without success"""
    origin: Origin | None = None
    """what caused it; not part of its identity"""
    created_at: dt.datetime | None = None
    """when its row was written. In a restored database another text may be that version, and its work has this id"""
    boxes: bytes | None = None
    """of a search: what another one left over. It may be large: only `boxes` reads it"""

    @property
    def written(self) -> int:
        """`created_at` in microseconds."""
        assert self.created_at is not None  # it was read
        return round(self.created_at.timestamp() * 1_000_000)


def _id(kind: str, corpus: int, subject: int, part: object, since: int) -> uuid.UUID:
    return uuid.uuid5(NAMESPACE, f"{kind}:{corpus}:{subject}:{part}:{since}")


def _stage(kind: str, corpus: int, subject: int, version: int, priority: int) -> Item:
    return Item(_id(kind, corpus, subject, None, 0), corpus, kind, subject, None, 0, version, priority)


def ingest(corpus: int, text: int) -> Item:
    return _stage("ingest", corpus, text, 0, INGEST)


def context(corpus: int, text: int) -> Item:
    return _stage("context", corpus, text, 0, CONTEXT)


def remediations(corpus: int, version: int) -> Item:
    return _stage("remediations", corpus, version, version, REMEDIATIONS)


def search(corpus: int, since: int, version: int, part: tuple[int, int] | bytes) -> Item:
    """Search a part of the window (since, version]: starts [first, last) of it, or boxes that were left over."""
    if isinstance(part, bytes):
        identity = _id("search", corpus, version, hashlib.sha256(part).hexdigest(), since)
        return Item(identity, corpus, "search", version, None, since, version, LEFT_OVER, boxes=part)
    return Item(_id("search", corpus, version, part, since), corpus, "search", version, part, since, version, START)


def best(corpus: int, job: int, version: int, shape: str = "", part: tuple[int, int] | None = None) -> Item:
    """Plan a job that searches for the best orthos, or search a part of a shape; `shape` tells apart its searches."""
    return Item(_id("best", corpus, job, f"{shape}:{part}", 0), corpus, "best", job, part, 0, version, BEST)


def add(connection: Connection, items: Iterable[Item]) -> None:
    """Insert items, with the current origin; rows that exist stay as they are."""
    cause = correlation.row()
    # Always in the same order, so that transactions do not deadlock.
    rows = [_row(item, cause) for item in sorted(items, key=lambda item: item.id)]
    if rows:
        connection.execute(insert(work).on_conflict_do_nothing(), rows)


def _row(item: Item, cause: dict[str, str] | None) -> dict[str, Any]:
    values = item._asdict() | {"origin": cause, "part": None if item.part is None else Range(*item.part)}
    del values["created_at"]
    return values


COLUMNS = [work.c[name] for name in Item._fields if name != "boxes"]


def read(row: Any) -> Item:
    item = Item(*row)
    return item._replace(
        part=None if item.part is None else (item.part.lower, item.part.upper),  # type: ignore[attr-defined]
        origin=Origin.read(item.origin),
    )


def boxes(connection: Connection, item: Item) -> bytes | None:
    """What another search left over for this one; None where it has starts instead.

    Raises StoreCorrupt where they are not those that its id was made of.
    """
    found: bytes | None = connection.execute(select(work.c.boxes).where(work.c.id == item.id)).scalar()
    if found and search(item.corpus, item.since, item.version, found).id != item.id:
        raise StoreCorrupt(problem=f"what work {item.id} is to search is not what was left over for it")
    return found


def claim(connection: Connection, ids: Sequence[uuid.UUID], *, runnable: bool = False) -> list[Item]:
    """Lock those of these items that are still open, in the order of their ids; `runnable`: as in `opened`."""
    return [read(row) for row in connection.execute(_CLAIMED_RUNNABLE if runnable else _CLAIMED, {"ids": ids})]


def opened(connection: Connection, ids: Sequence[uuid.UUID], *, runnable: bool = False) -> list[Item]:
    """Return those of these items that are still open, in the order of their ids.

    With `runnable`, only items that are not backing off, and of a corpus that is not paused. An item that is retried
    later gets a new message then; older messages for it must not use up its attempts.
    """
    return [read(row) for row in connection.execute(_OPEN_RUNNABLE if runnable else _OPEN, {"ids": ids})]


# Statements that run for each message are made once, here.
_THESE = work.c.id.in_(bindparam("ids", expanding=True)), work.c.state == "open"
_PAUSED = select(corpora.c.id).where(corpora.c.paused_at.is_not(None))
_DUE = or_(work.c.not_before.is_(None), work.c.not_before <= func.clock_timestamp())
_OPEN = select(*COLUMNS).where(*_THESE).order_by(work.c.id)
_OPEN_RUNNABLE = _OPEN.where(_DUE, work.c.corpus.not_in(_PAUSED))
_CLAIMED, _CLAIMED_RUNNABLE = _OPEN.with_for_update(), _OPEN_RUNNABLE.with_for_update()


def locked(*which: ColumnElement[bool]) -> ColumnElement[bool]:
    """The condition of a change of this work: it is locked first, in the order of its ids.

    All that change several items lock them in this order, so no two wait for each other (ADR 0079).
    """
    ids = select(work.c.id).where(*which).order_by(work.c.id).with_for_update()
    # As an array each id is looked up, however many there are.
    return work.c.id == any_(func.array(ids.scalar_subquery()))


def lock(connection: Connection, ids: Iterable[uuid.UUID]) -> None:
    """Lock items, of any state, that several statements are going to change."""
    connection.execute(select(work.c.id).where(work.c.id.in_(list(ids))).order_by(work.c.id).with_for_update())


def lock_jobs(connection: Connection, corpus: int) -> None:
    """Lock the jobs that search for the best of a corpus, before their work."""
    connection.execute(select(jobs.c.id).where(jobs.c.corpus == corpus).order_by(jobs.c.id).with_for_update())


def done(connection: Connection, ids: Sequence[uuid.UUID], found: int = 0) -> None:
    """Mark open items as done; the number of orthos that they `found` is stored with the first."""
    if not ids:
        return
    ended = connection.execute(_DONE, {"ids": ids, "first": ids[0], "number": found}).all()
    sessions.once_committed(connection, lambda: _count(ended))


_DONE = (
    update(work)
    .where(*_THESE)
    .values(
        state="done",
        boxes=case((work.c.boxes.is_not(None), b"")),
        finished_at=func.now(),
        error=None,
        found=case((work.c.id == bindparam("first"), bindparam("number", type_=work.c.found.type)), else_=0),
    )
    .returning(work.c.kind, func.extract("epoch", func.clock_timestamp() - work.c.created_at))
)


def _count(ended: Iterable[Any]) -> None:
    for kind, age in ended:
        metrics.DONE.add(kind=kind)
        metrics.TURNAROUND.observe(float(age), kind=kind)


class WaitingVersion(NamedTuple):
    """The work of the remediations stage for a version. `ready`: it is open, and not backing off."""

    id: uuid.UUID
    version: int
    ready: bool


def waiting_versions(connection: Connection, corpus: int) -> list[WaitingVersion]:
    """Lock the `remediations` of a corpus that are not done; return them by their versions. Parked ones are ready."""
    ready = and_(work.c.state == "open", _DUE | (work.c.not_before == text("'infinity'")))
    ready = and_(ready, work.c.corpus.not_in(_PAUSED))
    query = select(work.c.id, work.c.subject, ready)
    query = query.where(work.c.corpus == corpus, work.c.kind == "remediations", work.c.state != "done")
    rows = connection.execute(query.order_by(work.c.id).with_for_update())
    return sorted((WaitingVersion(*row) for row in rows), key=lambda waiting: waiting.version)
