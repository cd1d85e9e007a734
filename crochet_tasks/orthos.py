"""Stage 5, parallel: store the result of a search in one transaction: orthos, remediations, new work, work done.

A worker that dies while it stores loses the transaction; the broker redelivers the message, because tasks are
acknowledged late (celeryconfig.py), and the work is still open. One that dies after the commit leaves a message whose
work is done: it is dropped. A message that is delivered too often becomes a dead letter, and its work, which is the
search, is tried again (services/relay.py). When no work of a corpus is left open, it is closed (reporting/reports.py).
"""

from __future__ import annotations

import uuid
from collections import Counter

from crochet_tasks import telemetry
from crochet_tasks.app import Step, app
from crochet_tasks.broker.messages import SearchResult
from crochet_tasks.db import batches, outbox, sessions, tally, windows
from crochet_tasks.db.batches import NewBatch
from crochet_tasks.db.process import here
from crochet_tasks.db.tally import Change
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.telemetry import labels, metrics


@app.task(base=Step, name="orthos.store", message=SearchResult, serializer="msgpack")
def store(result: SearchResult) -> None:
    """Store a result, all of it or nothing. One whose work is done, or was another before a restore, is dropped."""
    with here().database.transaction() as connection:
        items = outbox.claim(connection, result.items)
        if not items or result.written not in (None, items[0].written):
            metrics.DUPLICATES.add(what="result")
            return
        (item,) = items
        # Keys derive from the work, so no task stores a batch twice.
        new = [
            NewBatch(uuid.uuid5(outbox.NAMESPACE, f"found {number} by {item.id}"), *dict(found).values())
            for number, found in enumerate(result.found)
        ]
        batches.add(connection, item.corpus, new, by=item.id, born=item.version)
        left = (outbox.search(item.corpus, item.since, item.version, part) for part in result.left_over)
        outbox.add(connection, left)
        orthos: Counter[Sides] = Counter()
        for batch in new:
            orthos[batch.sides] += batch.count
        outbox.done(connection, [item.id], orthos.total())
        number = Counter(batch.sides for batch in new)
        tally.count(connection, item.corpus, {sides: Change(orthos[sides], number[sides]) for sides in orthos})
        windows.stored(connection, item.corpus, item.version, orthos.total())
        sessions.once_committed(connection, lambda: _measure(new))


def _measure(new: list[NewBatch]) -> None:
    for batch in new:
        metrics.STORED.add(batch.count, shape=labels.shape(batch.sides))
        metrics.BATCH.observe(batch.count)
    telemetry.result(stored=sum(batch.count for batch in new))
