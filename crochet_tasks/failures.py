"""What happens to work whose task raised: tried again later, or failed for good, as the error's class says."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from crochet_tasks.db import attempts, corpora, outbox, publishing, texts
from crochet_tasks.db.attempts import Pauses
from crochet_tasks.db.corpora import Lock
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.sessions import Database
from crochet_tasks.db.tally import OF_A_TEXT
from crochet_tasks.errors import CrochetError, Retry, retry_class
from crochet_tasks.settings import Settings


def described(error: BaseException, **where: str) -> dict[str, Any]:
    """An error as it is kept with the work or text that it befell; `where` says which task and worker had it."""
    code, context = (error.code, error.context) if isinstance(error, CrochetError) else ("internal", {})
    return {
        "code": code,
        "message": str(error) or type(error).__name__,
        "type": type(error).__name__,
        "context": {name: str(value) for name, value in context.items()},
        **where,
    }


def note(
    database: Database, settings: Settings, corpus: int, ids: Sequence[uuid.UUID], error: Exception, **where: str
) -> list[Item]:
    """Keep with the open items among these what befell them; returns those that have failed for good.

    With its ingestion a text has failed: what it had brought goes, and the next one gets its turn. Two workers may
    fail on the same work, one after the other; the second one finds it given up.
    """
    pauses = Pauses(settings.max_attempts, settings.retry_first, settings.retry_longest)
    described_error = described(error, **where)
    with database.transaction() as connection:
        own = set(ids) - _not_their_turn(connection, corpus, ids)
        later = retry_class(error) is Retry.LATER
        failed = attempts.record(connection, sorted(own), described_error, pauses, later=later)
        for item in failed:
            if item.kind in OF_A_TEXT:
                _give_up(connection, item, described_error)
    return failed


def _not_their_turn(connection: Connection, corpus: int, ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Park the ingestions whose texts wait for another one: what befell their messages is no fault of theirs.

    Where work of texts is among these the corpus' ORDER lock is taken, and the text whose turn it is locked.
    """
    of_texts = [item for item in outbox.opened(connection, ids) if item.kind in OF_A_TEXT]
    if not of_texts:
        return set()
    corpora.hold(connection, corpus, Lock.ORDER)
    first = texts.next_in_line(connection, corpus)
    waiting = {item.id for item in of_texts if first is None or item.subject != first.id}
    for item in sorted(waiting):
        publishing.park(connection, item)
    return waiting


def _give_up(connection: Connection, item: Item, error: dict[str, Any]) -> None:
    if texts.fail(connection, item.corpus, item.subject, error):
        work = [outbox.ingest(item.corpus, item.subject).id, outbox.context(item.corpus, item.subject).id]
        attempts.fail(connection, work, error)
        publishing.knock(connection, item.corpus)
