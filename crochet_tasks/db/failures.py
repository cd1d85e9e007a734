"""An error of a task, from app.py or the relay: by its retry class its work is tried again (attempts.py) or fails."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from crochet_tasks.db import Connection, attempts, corpora, outbox, publishing, texts
from crochet_tasks.db.attempts import Pauses
from crochet_tasks.db.corpora import Lock
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.sessions import Database
from crochet_tasks.db.tally import OF_A_TEXT
from crochet_tasks.errors import CrochetError, Retry, retry_class
from crochet_tasks.settings import Settings


def describe(error: BaseException, **where: str) -> dict[str, Any]:
    """Return an error as it is stored with a work item or text; `where`: the task and worker that raised it."""
    code, context = (error.code, error.context) if isinstance(error, CrochetError) else ("internal", {})
    return {
        "code": code,
        "message": str(error) or type(error).__name__,
        "type": type(error).__name__,
        "context": {name: str(value) for name, value in context.items()},
        **where,
    }


def record(
    database: Database, settings: Settings, corpus: int, ids: Sequence[uuid.UUID], error: Exception, **where: str
) -> list[Item]:
    """Record the error on each open item; return those that failed permanently.

    A text fails with its ingestion: its words and phrases are deleted, and the next text gets its turn. Two workers may
    fail on the same item, one after the other; for the second one it is not open any more.
    """
    pauses = Pauses(settings.max_attempts, settings.retry_first, settings.retry_longest)
    description = describe(error, **where)
    with database.transaction() as connection:
        own = set(ids) - _park_out_of_turn(connection, corpus, ids)
        later = retry_class(error) is Retry.LATER
        used = error.attempts if isinstance(error, CrochetError) else 1
        failed = attempts.record(connection, sorted(own), description, pauses, later=later, used=used)
        for item in failed:
            if item.kind in OF_A_TEXT:
                _fail_text(connection, item, description)
    return failed


def _park_out_of_turn(connection: Connection, corpus: int, ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Park the ingestions whose texts wait for another text, and return them: the error is not theirs.

    Where these items include work of texts this takes the corpus' ORDER lock and locks the text whose turn it is.
    """
    of_texts = [item for item in outbox.opened(connection, ids) if item.kind in OF_A_TEXT]
    if not of_texts:
        return set()
    corpora.take_lock(connection, corpus, Lock.ORDER)
    first = texts.lock_first_waiting(connection, corpus)
    waiting = {item.id for item in of_texts if first is None or item.subject != first.id}
    for item in sorted(waiting):
        publishing.park(connection, item)
    return waiting


def _fail_text(connection: Connection, item: Item, error: dict[str, Any]) -> None:
    if texts.fail(connection, item.corpus, item.subject, error):
        work = [outbox.ingest(item.corpus, item.subject).id, outbox.context(item.corpus, item.subject).id]
        attempts.fail(connection, work, error)
        publishing.release_next_text(connection, item.corpus)
