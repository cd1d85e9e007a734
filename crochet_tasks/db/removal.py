"""Deleting corpora: first they are hidden, then their rows are deleted, a few at a time."""

from __future__ import annotations

from sqlalchemy import Connection, func, select, text, update

from crochet_tasks.db import corpora as locks
from crochet_tasks.db import outbox
from crochet_tasks.db.corpora import Lock
from crochet_tasks.db.tables import corpora

_STEPS = (
    # First the work, of any state: a worker that has a message for it finds no row, so nothing more is written.
    # In the order of an index: rows of others and rows deleted just before are not read. Locked as by `outbox.locked`.
    """
    DELETE FROM work WHERE id = ANY(ARRAY(
        SELECT id FROM work WHERE id = ANY(ARRAY(
            SELECT id FROM work WHERE corpus = :corpus ORDER BY state, created_at LIMIT 5000
        )) ORDER BY id FOR UPDATE
    ))
    """,
    "DELETE FROM best WHERE id IN (SELECT id FROM best WHERE corpus = :corpus LIMIT 10)",
    "DELETE FROM batches WHERE id IN (SELECT id FROM batches WHERE corpus = :corpus LIMIT 25)",
    # From the end: a chunk refers to the one before it.
    """
    DELETE FROM phrases WHERE corpus = :corpus
       AND first IN (SELECT first FROM phrases WHERE corpus = :corpus ORDER BY first DESC LIMIT 100)
    """,
    "DELETE FROM words WHERE corpus = :corpus AND id IN (SELECT id FROM words WHERE corpus = :corpus LIMIT 20000)",
    """
    DELETE FROM idempotency WHERE corpus = :corpus
       AND key IN (SELECT key FROM idempotency WHERE corpus = :corpus LIMIT 5000)
    """,
    # Locked in their order of acceptance: after a text that is cancelled, the next one is locked.
    "DELETE FROM texts WHERE id IN (SELECT id FROM texts WHERE corpus = :corpus ORDER BY seq LIMIT 50 FOR UPDATE)",
    "DELETE FROM counts WHERE corpus = :corpus",
    "DELETE FROM windows WHERE corpus = :corpus",
    "DELETE FROM corpora WHERE id = :corpus",
)
"""Each takes some tenths of a second, at the most. In this order no row is left that another one refers to."""
LOCK_WAIT = "500ms"
"""how long a deletion waits for tasks that work on the corpus, before it stops until the next time"""


def hide(connection: Connection, corpus: int) -> None:
    """Hide a corpus: after the commit it is not found and accepts no text. The caller holds the ACCEPTANCE lock."""
    connection.execute(update(corpora).where(corpora.c.id == corpus).values(removed_at=func.clock_timestamp()))


def hidden(connection: Connection) -> list[int]:
    """Return the hidden corpora that still have rows, oldest first."""
    query = select(corpora.c.id).where(corpora.c.removed_at.is_not(None)).order_by(corpora.c.removed_at)
    return list(connection.execute(query).scalars())


def delete_some(connection: Connection, corpus: int) -> bool:
    """Delete a few rows of a hidden corpus; False when there was none left.

    Excludes the ordered stages and merges; searches have work, which is deleted first. Searches for the best lock
    their job and then its work, so it is done in this order here, too: else each could wait for the other. Raises what
    a lock time-out raises while one is at work.
    """
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'"))
    locks.take_lock(connection, corpus, Lock.ORDER)
    locks.take_lock(connection, corpus, Lock.MERGE)
    outbox.lock_jobs(connection, corpus)
    return any(connection.execute(text(step), {"corpus": corpus}).rowcount for step in _STEPS)
