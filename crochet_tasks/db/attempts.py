"""Errors of work: every attempt, when work is retried, and what has failed permanently."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select, text, update

from crochet_tasks.db import sessions
from crochet_tasks.db.outbox import COLUMNS, Item, lock_jobs, locked, read
from crochet_tasks.db.tables import attempts, work
from crochet_tasks.db.tally import BESIDE, OF_A_TEXT
from crochet_tasks.telemetry import correlation, metrics


class Pauses(NamedTuple):
    """How often work is tried, and the backoff in seconds: doubled each time, with jitter."""

    most: int
    first: float
    longest: float


def record(
    connection: Connection,
    ids: Sequence[uuid.UUID],
    error: dict[str, Any],
    pauses: Pauses,
    *,
    later: bool,
    used: int = 1,
) -> list[Item]:
    """Record the error on each open item; return those that failed permanently.

    With `later` an item is retried after a backoff until its attempts are used up; without, it has failed. `used`: how
    many attempts the error counts as.
    """
    values = {
        "ids": list(ids),
        "used": used,
        "error": json.dumps(error),
        "permanent": not later,
        "backoff": later,
        "most": pauses.most,
        "first": pauses.first,
        "longest": pauses.longest,
    }
    changed = connection.execute(text(_RECORD), values).all()
    sessions.once_committed(connection, lambda: _count(changed, str(error.get("code"))))
    return [read(row[:-1]) for row in changed if row.state == "failed"]


def _count(changed: Iterable[Any], code: str) -> None:
    for row in changed:
        (metrics.FAILED if row.state == "failed" else metrics.RETRIED).add(kind=row.kind, code=code)


_RECORD = f"""
WITH open_ones AS MATERIALIZED (
    SELECT id, attempts + :used AS attempt, :permanent OR attempts + :used >= :most AS ends FROM work
     WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'open' ORDER BY id FOR UPDATE
), changed AS (
    UPDATE work
       SET attempts = attempt,
           error = CAST(:error AS jsonb),
           state = CASE WHEN ends THEN 'failed' ELSE 'open' END,
           published_at = NULL,
           not_before = CASE WHEN :backoff AND NOT ends THEN clock_timestamp() + make_interval(
               secs => least(:longest, :first * power(2, least(attempt, 60) - 1) * (0.5 + random()))) END
      FROM open_ones
     WHERE work.id = open_ones.id
    RETURNING work.*
), recorded AS (
    INSERT INTO attempts (work, corpus, number, error) SELECT id, corpus, attempts, error FROM changed
)
SELECT {", ".join(f"changed.{column.name}" for column in COLUMNS)}, changed.state FROM changed
"""


def settled(connection: Connection, ids: Sequence[uuid.UUID], message: str, died_at: dt.datetime) -> set[uuid.UUID]:
    """Return those of these items for which a dead-lettered message no longer matters.

    Its error is recorded already, or an operator has reopened them since.
    """
    tried = select(attempts.c.work).where(attempts.c.work.in_(ids), attempts.c.error["message_id"].astext == message)
    again = select(work.c.id).where(work.c.id.in_(ids), work.c.reopened_at >= died_at)
    return set(connection.execute(tried.union(again)).scalars())


def fail(connection: Connection, ids: Iterable[uuid.UUID], error: dict[str, Any]) -> None:
    """Mark those of these items that are open as failed permanently."""
    record(connection, sorted(ids), error, Pauses(0, 0, 0), later=True)


def reopen(connection: Connection, ids: Iterable[uuid.UUID]) -> int:
    """Open failed or dropped items again, with all their attempts; return how many there were.

    Not cancelled parts of searches for the best: their search is planned anew.
    """
    cancelled = (work.c.state == "cancelled") & (work.c.kind != BESIDE)
    ended = locked(work.c.id.in_(list(ids)), (work.c.state == "failed") | cancelled)
    return connection.execute(update(work).where(ended).values(_NEW)).rowcount


def restart(connection: Connection, item: uuid.UUID) -> None:
    """Open an item again whatever its state: its text starts over, with the current origin."""
    ended = update(work).where(work.c.id == item, work.c.state != "open")
    connection.execute(ended.values({**_NEW, "origin": correlation.row()}))


def reopen_failed(connection: Connection, corpus: int) -> int:
    """Reopen failed work; how many items. A text that failed stays failed: later texts have overtaken it."""
    lock_jobs(connection, corpus)
    failed = locked(work.c.corpus == corpus, work.c.state == "failed", work.c.kind.not_in(OF_A_TEXT))
    return connection.execute(update(work).where(failed).values(_NEW)).rowcount


_NEW = {
    "state": "open",
    "published_at": None,
    "not_before": None,
    "attempts": 0,
    "finished_at": None,
    "reopened_at": func.clock_timestamp(),
}
