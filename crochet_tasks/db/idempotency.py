"""Idempotency keys: a request is processed once, and its response is stored in the same transaction."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import Connection, Interval, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import insert

from crochet_tasks.db.access_tables import idempotency
from crochet_tasks.errors import IdempotencyKeyReused


class StoredAnswer(NamedTuple):
    """The response to a request when it was first processed."""

    status: int
    answer: dict[str, Any]


def once(
    connection: Connection, corpus: int, key: str, request: bytes, hours: int, do: Callable[[], StoredAnswer]
) -> tuple[StoredAnswer, bool]:
    """Process a request, or return the stored answer; (answer, whether it was processed now).

    `request` is the SHA-256 of the request; an answer counts for so many `hours`. Keys are those of a corpus: a later
    corpus of the same name has none of them. Of two concurrent requests the second waits for the first. Where `do`
    raises nothing is stored. Raises IdempotencyKeyReused where the key came with another request.
    """
    connection.execute(_LOCK, {"corpus": corpus, "key": f"idempotency {key}"})
    known = connection.execute(_KNOWN, {"of": corpus, "named": key, "valid": dt.timedelta(hours=hours)}).first()
    if known is not None:
        if known.request != request:
            raise IdempotencyKeyReused(key=key)
        return StoredAnswer(known.status, known.answer), False
    done = do()
    values = {"request": request, "status": done.status, "answer": done.answer}
    new = insert(idempotency).values(corpus=corpus, key=key, **values)
    connection.execute(
        new.on_conflict_do_update(index_elements=["corpus", "key"], set_={**values, "created_at": func.now()})
    )
    return done, True


_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, :corpus))")
_KNOWN = select(idempotency.c.request, idempotency.c.status, idempotency.c.answer).where(
    idempotency.c.corpus == bindparam("of"),
    idempotency.c.key == bindparam("named"),
    idempotency.c.created_at > func.clock_timestamp() - bindparam("valid", type_=Interval),
)
