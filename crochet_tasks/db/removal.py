"""Deleting corpora: first they are hidden, then their rows are deleted, a few at a time."""

from __future__ import annotations

from sqlalchemy import Connection, func, select, text, update

from crochet_tasks.db import corpora as locks
from crochet_tasks.db.corpora import Lock
from crochet_tasks.db.tables import corpora

_STEPS = (
    # First the work, of any state: a worker that has a message for it finds no row, so nothing more is written.
    # In the order of an index: what others have is not read, nor what was deleted just before.
    """
    DELETE FROM work
     WHERE id IN (SELECT id FROM work WHERE corpus = :corpus ORDER BY state, created_at LIMIT 5000)
    """,
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
    "DELETE FROM texts WHERE id IN (SELECT id FROM texts WHERE corpus = :corpus LIMIT 50)",
    "DELETE FROM counts WHERE corpus = :corpus",
    "DELETE FROM corpora WHERE id = :corpus",
)
"""Each takes some tenths of a second, at the most. In this order no row is left that another one refers to."""
PATIENCE = "500ms"
"""how long a deletion waits for who is at work on the corpus, before it leaves it for another time"""


def hide(connection: Connection, corpus: int) -> None:
    """From the commit on the corpus is not found, and takes no text. The caller holds the ACCEPTANCE lock."""
    connection.execute(update(corpora).where(corpora.c.id == corpus).values(removed_at=func.clock_timestamp()))


def hidden(connection: Connection) -> list[int]:
    """The corpora of which something is still there, oldest first."""
    query = select(corpora.c.id).where(corpora.c.removed_at.is_not(None)).order_by(corpora.c.removed_at)
    return list(connection.execute(query).scalars())


def delete_some(connection: Connection, corpus: int) -> bool:
    """Delete a few rows of a hidden corpus; False when there was none left.

    Excludes the ordered stages and the storing of orthos. Raises what a lock time-out raises while one is at work.
    """
    connection.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE}'"))
    locks.hold(connection, corpus, Lock.ORDER)
    locks.hold(connection, corpus, Lock.VERSION)
    return any(connection.execute(text(step), {"corpus": corpus}).rowcount for step in _STEPS)
