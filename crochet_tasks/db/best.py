"""Jobs that search for the best orthos of a version: their questions, how far they are, the faces they stack.

What is left of a job is rows of `work`: its state follows from them. Who changes a job or its work locks its row first.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import ColumnElement, Connection, case, delete, func, null, select, text, true, update
from sqlalchemy.dialects.postgresql import insert

from crochet_tasks.db import attempts, outbox
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.tables import best, best_faces, work
from crochet_tasks.engine import runs
from crochet_tasks.engine.best.faces import ordered
from crochet_tasks.engine.best.shapes import Scope
from crochet_tasks.engine.geometry import Sides, shape_name
from crochet_tasks.engine.order import Ids
from crochet_tasks.errors import StoreCorrupt

KEPT = 50
"""jobs of a corpus; older ones that are at their end are deleted when one is added"""


class Question(NamedTuple):
    """The best of a version: all that share the largest volume and cells, or the `top` so many."""

    version: int
    scope: Scope
    top: int | None


class Job(NamedTuple):
    """How far the search for an answer is. `search`: its state, as JSON; None before the first step."""

    id: int
    corpus: int
    question: Question
    revision: int
    search: str | None


class Expected(NamedTuple):
    """About how many visits are left; `all`: False where there is more, which is not estimated yet."""

    low: float
    high: float
    all: bool


# ── questions ───────────────────────────────────────────────────────────────────────────────────


def ask(connection: Connection, corpus: int, question: Question) -> int:
    """The job of a question, which is made if there is none. The caller has called `corpora.lock_for_acceptance`."""
    asked = _columns(corpus, question)
    made = connection.execute(insert(best).values(asked).on_conflict_do_nothing().returning(best.c.id)).scalar()
    if made is not None:
        old = connection.execute(text(_DELETE_OLD), {"corpus": corpus, "kept": KEPT}).scalars().all()
        if old:
            _cancel(connection, work.c.corpus == corpus, work.c.subject.in_(old), work.c.state == "failed")
        return int(made)
    same = [best.c[name].is_not_distinct_from(value) for name, value in asked.items()]
    return int(connection.execute(select(best.c.id).where(*same)).scalar_one())


def _columns(corpus: int, question: Question) -> dict[str, int | None]:
    return {"corpus": corpus, "version": question.version, **question.scope._asdict(), "top": question.top}


_DELETE_OLD = """
DELETE FROM best WHERE id = ANY(ARRAY(
    SELECT id FROM best WHERE corpus = :corpus
       AND id NOT IN (SELECT id FROM best WHERE corpus = :corpus ORDER BY id DESC LIMIT :kept)
       AND NOT EXISTS (
           SELECT FROM work WHERE kind = 'best' AND state = 'open' AND work.corpus = best.corpus AND subject = best.id
           )
     ORDER BY id FOR UPDATE
)) RETURNING id
"""


def start(connection: Connection, job: Job) -> bool:
    """Have a job go on, unless it is proven or being worked on; whether it does now, and did not."""
    items = work.c.kind == "best", work.c.corpus == job.corpus, work.c.subject == job.id, work.c.state == "open"
    if connection.execute(select(work.c.id).where(*items).limit(1)).first() is not None:
        return False
    unproven = update(best).where(best.c.id == job.id, best.c.finished_at.is_(None))
    if not connection.execute(unproven.values(began_at=None, visits=0)).rowcount:
        return False
    stop(connection, job)  # what has failed: it is planned again
    add(connection, [outbox.best(job.corpus, job.id, job.question.version)])
    return True


def stop(connection: Connection, job: Job) -> None:
    """Cancel what is left of a job. What its parts have found stays; what runs is lost."""
    of = work.c.corpus == job.corpus, work.c.subject == job.id
    _cancel(connection, *of, work.c.state.in_(["open", "failed"]))


def _cancel(connection: Connection, *which: ColumnElement[bool]) -> None:
    parts = update(work).where(outbox.locked(work.c.kind == "best", *which))
    connection.execute(parts.values(state="cancelled", published_at=None, not_before=None, finished_at=func.now()))


def end_parts(connection: Connection, job: Job) -> None:
    """Mark the open parts of a job as done, and cancel failed ones: its search has ended."""
    items = work.c.kind == "best", work.c.corpus == job.corpus, work.c.subject == job.id
    left = select(work.c.id).where(*items, work.c.state == "open", work.c.part.is_not(None)).order_by(work.c.id)
    outbox.done(connection, list(connection.execute(left.with_for_update()).scalars()))
    _cancel(connection, *items, work.c.state == "failed", work.c.part.is_not(None))


def add(connection: Connection, items: list[Item]) -> None:
    """Add work of a job; what was done or cancelled before is opened again."""
    outbox.add(connection, items)
    for item in items:
        attempts.restart(connection, item.id)


def lock_with(connection: Connection, state: str, corpus: int | None = None) -> list[Job]:
    """The jobs that have work in this state, of one corpus or of all, locked in the order of their numbers."""
    items = work.c.kind == "best", work.c.state == state, work.c.corpus == corpus if corpus is not None else true()
    return lock(connection, connection.execute(select(work.c.subject).where(*items)).scalars())


def lock(connection: Connection, numbers: Iterable[int]) -> list[Job]:
    """Those of these jobs that are there, locked in the order of their numbers."""
    there = _JOB.where(best.c.id.in_(list(numbers))).order_by(best.c.id).with_for_update()
    return [_job(row) for row in connection.execute(there)]


def running(connection: Connection, corpus: int) -> int:
    """How many jobs of a corpus are not at their end."""
    items = work.c.kind == "best", work.c.corpus == corpus, work.c.state == "open"
    return int(connection.execute(select(func.count(work.c.subject.distinct())).where(*items)).scalar_one())


# ── progress ────────────────────────────────────────────────────────────────────────────────────

_JOB = select(*(best.c[name] for name in ("id", "corpus", "version", *Scope._fields, "top", "revision", "search")))


def read(connection: Connection, number: int, *, lock: bool = False) -> Job | None:
    """A job; None where it was deleted. With `lock` its row is locked until the transaction ends."""
    query = _JOB.where(best.c.id == number)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _job(row)


def _job(row: Any) -> Job:
    return Job(row.id, row.corpus, _question(row), row.revision, row.search)


def _question(row: Any) -> Question:
    return Question(row.version, Scope(row.max_axes, row.max_side, row.max_cells), row.top)


def write(
    connection: Connection,
    job: Job,
    search: str,
    report: dict[str, Any],
    *,
    visits: int,
    expected: Expected | None = None,
    certificate: str | None = None,
) -> None:
    """Write how far a job is, whose row is locked, after so many `visits` more; without `expected`, so many fewer are
    left.
    """
    left = case(
        (best.c.expected.is_(None), null()),
        else_=func.jsonb_build_array(*(_less(place, visits) for place in range(2)), best.c.expected[2]),
    )
    values = {
        "search": search,
        "report": report,
        "revision": best.c.revision + 1,
        "visits": best.c.visits + visits,
        "expected": left if expected is None else list(expected),
        "began_at": func.coalesce(best.c.began_at, func.clock_timestamp()),
        "changed_at": func.clock_timestamp(),
        "certificate": certificate,
        "finished_at": None if certificate is None else func.clock_timestamp(),
    }
    connection.execute(update(best).where(best.c.id == job.id).values(values))


def _less(place: int, visits: int) -> Any:
    return func.greatest(0, best.c.expected[place].as_float() - visits)


class JobRow(NamedTuple):
    """A job without its search and its certificate."""

    id: int
    version: int
    max_axes: int | None
    max_side: int
    max_cells: int | None
    top: int | None
    report: dict[str, Any] | None
    expected: list[Any] | None
    visits: int
    created_at: dt.datetime
    began_at: dt.datetime | None
    changed_at: dt.datetime | None
    finished_at: dt.datetime | None
    parts: int
    """open work"""
    error: dict[str, Any] | None
    """of work that failed"""

    @property
    def seconds(self) -> float:
        """From the first step to the last one."""
        return (self.changed_at - self.began_at).total_seconds() if self.began_at and self.changed_at else 0.0


_OF_JOB = work.c.kind == "best", work.c.corpus == best.c.corpus, work.c.subject == best.c.id
_ROW = select(
    *(best.c[name] for name in JobRow._fields[:-2]),
    select(func.count()).where(*_OF_JOB, work.c.state == "open").correlate(best).scalar_subquery(),
    select(work.c.error).where(*_OF_JOB, work.c.state == "failed").limit(1).correlate(best).scalar_subquery(),
)


def row(connection: Connection, corpus: int, number: int | None = None) -> JobRow | None:
    """A job of a corpus, by default the newest; None where there is none."""
    query = _ROW.where(best.c.corpus == corpus)
    query = query.order_by(best.c.id.desc()).limit(1) if number is None else query.where(best.c.id == number)
    found: Any = connection.execute(query).first()
    return None if found is None else JobRow(*found)


def certificate(connection: Connection, corpus: int, number: int) -> str | None:
    """The proof of a job, as JSON; None where there is none yet."""
    query = select(best.c.certificate).where(best.c.corpus == corpus, best.c.id == number)
    found: str | None = connection.execute(query).scalar()
    return found


def earlier(connection: Connection, job: Job) -> list[dict[str, Any]]:
    """The reports of the newest other jobs of this version and older ones: their orthos exist in this one, too."""
    query = select(best.c.report).where(
        best.c.corpus == job.corpus,
        best.c.version <= job.question.version,
        best.c.id != job.id,
        best.c.report.is_not(None),
    )
    return list(connection.execute(query.order_by(best.c.id.desc()).limit(EARLIER)).scalars())


EARLIER = 3
"""jobs whose answers a new one begins with"""


# ── faces ───────────────────────────────────────────────────────────────────────────────────────


def add_faces(connection: Connection, job: int, sides: Sides, first: int, boxes: Ids) -> None:
    """Store orthos that the part from start `first` on has found."""
    if len(boxes):
        values = {"job": job, "sides": list(sides), "first": first, "count": len(boxes)}
        connection.execute(insert(best_faces).values(**values, boxes=runs.pack(boxes, 0)))


def faces(connection: Connection, job: int, sides: Sides, words: int) -> Ids:
    """All stored orthos of a shape, in alphabetical order, as ids of words, which are below `words`.

    Raises StoreCorrupt where they are damaged.
    """
    query = select(best_faces.c.count, best_faces.c.boxes)
    width = math.prod(sides)
    rows = connection.execute(query.where(best_faces.c.job == job, best_faces.c.sides == list(sides)))
    try:
        every = [runs.unpack(packed, count, width, 0, words) for count, packed in rows]
    except runs.DamagedRun as error:
        problem = f"the {shape_name(sides)} of job {job} for the best orthos are damaged ({error})"
        raise StoreCorrupt(problem=problem) from error
    return ordered(np.concatenate([np.empty((0, width), np.uint32), *every]))


def shapes_of_faces(connection: Connection, job: int) -> list[Sides]:
    """The shapes of which orthos are stored."""
    rows = connection.execute(select(best_faces.c.sides).where(best_faces.c.job == job).distinct())
    return sorted(tuple(sides) for (sides,) in rows)


def remove_faces(connection: Connection, job: int, sides: Sides | None = None) -> None:
    """Delete the stored orthos of a shape, by default of all."""
    of_job = delete(best_faces).where(best_faces.c.job == job)
    connection.execute(of_job if sides is None else of_job.where(best_faces.c.sides == list(sides)))
