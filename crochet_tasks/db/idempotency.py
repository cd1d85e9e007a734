"""Requests that may come again: each is done once, and its answer is kept with what it did."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select, text
from sqlalchemy.dialects.postgresql import insert

from crochet_tasks.db.access_tables import idempotency
from crochet_tasks.errors import IdempotencyKeyReused

KEPT = dt.timedelta(hours=24)
AT_ONCE = 1000


class Kept(NamedTuple):
    """An answer as it was first given."""

    status: int
    answer: dict[str, Any]


def once(connection: Connection, corpus: int, key: str, request: bytes, do: Callable[[], Kept]) -> tuple[Kept, bool]:
    """Do what is asked, or give the answer that was given before; (answer, whether it was done now).

    `request` is a SHA-256 of all that was asked of this corpus: another one with its name, later, knows none of its
    answers. Of two at the same time the second one waits for the first. What
    raises is not kept. Raises IdempotencyKeyReused where the key came with another request.
    """
    connection.execute(text(_LOCK), {"corpus": corpus, "key": f"idempotency {key}"})
    known = connection.execute(
        select(idempotency.c.request, idempotency.c.status, idempotency.c.answer).where(
            idempotency.c.corpus == corpus,
            idempotency.c.key == key,
            idempotency.c.created_at > func.clock_timestamp() - KEPT,
        )
    ).first()
    if known is not None:
        if known.request != request:
            raise IdempotencyKeyReused(key=key)
        return Kept(known.status, known.answer), False
    done = do()
    values = {"request": request, "status": done.status, "answer": done.answer}
    new = insert(idempotency).values(corpus=corpus, key=key, **values)
    connection.execute(
        new.on_conflict_do_update(index_elements=["corpus", "key"], set_={**values, "created_at": func.now()})
    )
    return done, True


_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(:key, :corpus))"


def forget_old(connection: Connection) -> int:
    """Delete some of the answers that nobody may ask for any more; how many."""
    return connection.execute(text(_FORGET), {"kept": KEPT, "most": AT_ONCE}).rowcount


_FORGET = """
DELETE FROM idempotency WHERE (corpus, key) IN (
    SELECT corpus, key FROM idempotency WHERE created_at < clock_timestamp() - CAST(:kept AS interval) LIMIT :most
) AND created_at < clock_timestamp() - CAST(:kept AS interval)
"""
"""The second condition is for an answer that is kept anew meanwhile."""
