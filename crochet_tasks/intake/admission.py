"""Accept texts from the API: each once, in order, and only while the backlog of their corpus is bounded.

Nothing is published here: the row is committed with its work item, which the relay publishes. So accepting a text takes
as long while the broker is down.
"""

from __future__ import annotations

import functools
import hashlib
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from crochet_tasks.db import Connection, attempts, corpora, idempotency, outbox, quotas, sessions, tally, texts
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.idempotency import StoredAnswer
from crochet_tasks.db.process import Process, here
from crochet_tasks.db.texts import TextRow
from crochet_tasks.errors import TooBusy
from crochet_tasks.intake import posted
from crochet_tasks.schemas.names import text_name
from crochet_tasks.telemetry import metrics

BACKLOG_SECONDS = 1.0
"""for which the backlog check of a corpus is cached"""
BUSY_SECONDS = 10
"""Retry-After of a refusal"""
ACCEPTED, KNOWN = 202, 200


def accept(corpus: Corpus, title: str, body: str, priority: int = 0) -> tuple[TextRow, bool]:
    """Accept a text: its row and its work in one transaction; (text, whether it is to be ingested).

    A text that the corpus has already is returned as it is; one that failed is accepted again.
    """
    with here().database.transaction() as connection:
        if corpora.lock_for_acceptance(connection, corpus.id) is None:
            raise corpora.unknown(connection, corpus.name, corpus.tenant)
        return accepted(connection, corpus.id, title, body, priority=priority)


def accepted(
    connection: Connection,
    corpus: int,
    title: str,
    body: str,
    check_room: Callable[[], None] | None = None,
    *,
    priority: int | None = None,
) -> tuple[TextRow, bool]:
    """As `accept`, in the transaction of a caller that has called `corpora.lock_for_acceptance`.

    `check_room` raises if there is no room for another text; it is not called for a text that is there already.
    Raises ReadingRulesDiffer, and QuotaReached: a text that failed or was cancelled is kept, and counts already.
    """
    known = texts.known(connection, corpus, body)
    if known is not None and known.state not in texts.FAILED_OR_CANCELLED:
        sessions.once_committed(connection, lambda: metrics.DUPLICATES.add(what="text"))
        return known, False
    if check_room is not None:
        check_room()
    if known is None:
        quotas.check_text(connection, corpus, len(body.encode()))
    corpora.check_reading(connection, corpus)
    if known is None:
        text = texts.accept(connection, corpus, title, body, priority or 0)
    else:
        text = texts.accept_again(connection, known, priority)
    item = outbox.ingest(corpus, text.id)
    outbox.add(connection, [item])
    if known is not None:
        attempts.restart(connection, item.id)
    sessions.once_committed(connection, metrics.TEXTS.add)
    return text, True


class SubmittedText(NamedTuple):
    """A text of a request."""

    title: str
    body: str
    priority: int = 0


class Admission:
    """Accepts texts for all corpora, with the caches of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._backlog = _Backlog(process.settings.max_open_work)

    def post(self, tenant: int, name: str, submitted: SubmittedText, key: str | None) -> tuple[StoredAnswer, bool]:
        """Accept a text; (the answer, whether it is the one to an earlier request with this key).

        202 where it is to be ingested, 200 where the corpus has it already. Raises CorpusUnknown, TooBusy,
        QuotaReached, IdempotencyKeyReused.
        """
        with self._process.database.transaction() as connection:
            corpus = corpora.named(connection, name, tenant)
            if key is None:
                return self._accept(connection, corpus, submitted), False
            beside = f"{submitted.priority} " if submitted.priority else ""
            digest = hashlib.sha256(f"{beside}{submitted.title!r}{submitted.body}".encode()).digest()
            hours = self._process.settings.idempotency_hours
            kept, new = idempotency.once(
                connection, corpus.id, key, digest, hours, lambda: self._accept(connection, corpus, submitted)
            )
        if not new:
            metrics.DUPLICATES.add(what="request")
        return kept, not new

    def _accept(self, connection: Connection, corpus: Corpus, submitted: SubmittedText) -> StoredAnswer:
        if corpora.lock_for_acceptance(connection, corpus.id) is None:  # deleted while this waited for the lock
            raise corpora.unknown(connection, corpus.name, corpus.tenant)
        room = functools.partial(self._check_room, connection, corpus)
        row, new = accepted(connection, corpus.id, submitted.title, submitted.body, room, priority=submitted.priority)
        answer = posted.text(connection, corpus, text_name(row.id))
        return StoredAnswer(ACCEPTED if new else KNOWN, answer.model_dump(mode="json"))

    def _check_room(self, connection: Connection, corpus: Corpus) -> None:
        """Raise TooBusy where the corpus has too large a backlog."""
        most = self._process.settings.max_waiting_texts
        if tally.waiting_texts(connection, corpus.id, most) >= most:
            raise TooBusy(what=f"{most} texts of this corpus wait already", seconds=BUSY_SECONDS)
        if self._backlog.high(connection, corpus.id):
            raise TooBusy(what="much of this corpus is still to be searched", seconds=BUSY_SECONDS)


class _Backlog:
    """Whether too much work of a corpus is open, cached for BACKLOG_SECONDS."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._checked: dict[int, tuple[float, bool]] = {}

    def high(self, connection: Connection, corpus: int) -> bool:
        now = time.monotonic()
        with self._lock:
            at, high = self._checked.get(corpus, (0.0, False))
        if now - at < BACKLOG_SECONDS:
            return high
        # Searches on hold for a spent budget do not count: texts still become versions.
        high = tally.unpublished(connection, corpus, self._most) >= self._most and not tally.spent(connection, corpus)
        with self._lock:
            self._checked = {each: check for each, check in self._checked.items() if now - check[0] < BACKLOG_SECONDS}
            self._checked[corpus] = (now, high)
        return high
