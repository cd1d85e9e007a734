"""Maintenance: merge sorted runs of one shape, so that few of them cover the same range, however many texts came.

Every search adds runs of its own. Where more than MOST of them overlap, or many small ones follow on each other, they
are rewritten as one sorted sequence, in the numbering of the newest version.
"""

from __future__ import annotations

import heapq
import logging
import time
import uuid
from collections.abc import Callable

import numpy as np

from crochet_tasks.app import app, charged
from crochet_tasks.broker import queues
from crochet_tasks.broker.messages import FoundBatch
from crochet_tasks.db import Connection, batches, corpora, outbox, tally
from crochet_tasks.db.batches import NewBatch, Span, Stored
from crochet_tasks.db.corpora import Lock
from crochet_tasks.db.process import here
from crochet_tasks.db.tally import Change
from crochet_tasks.engine import runs
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.engine.runs import Run
from crochet_tasks.errors import CrochetError, StoreCorrupt
from crochet_tasks.telemetry import metrics

log = logging.getLogger(__name__)

MOST = 8
"""runs that may cover the same range"""
SMALL_SHARE = 4
"""more than MOST batches in a row are small if they have no more than this part of a full batch together"""
EVERY_SECONDS = 30.0
"""between two checks by the relay of what is to be merged"""
SECONDS = 10.0
"""for how long a task merges"""


@app.task(name="maintenance.merge", acks_on_failure=True)  # type: ignore[untyped-decorator]
def merge(corpus: int, sides: list[int]) -> None:
    """Merge batches of a shape for a while. The relay calls it until no more than MOST of them overlap."""
    end = time.monotonic() + SECONDS
    try:
        with charged(corpus):
            while time.monotonic() < end and merge_some(corpus, tuple(sides)):
                pass
    except CrochetError as error:  # the relay calls again
        log.error("merge_failed", extra={"code": error.code, "error": str(error)})  # noqa: TRY400 - it is ours


def publish_merges() -> int:
    """Have workers merge what is to be merged; return for how many shapes. Raises an Unavailable error."""
    with here().database.transaction() as connection:
        crowded = batches.crowded(connection, MOST, _small())
    for corpus, sides in crowded:
        with queues.broker_errors():
            merge.apply_async([corpus, sides], expires=EVERY_SECONDS)
    return len(crowded)


def merge_all(corpus: int, stopped: Callable[[], bool] = lambda: False) -> None:
    """Merge all that is to be merged in a corpus, here."""
    with here().database.transaction() as connection:
        crowded = batches.crowded(connection, MOST, _small(), corpus)
    for _, sides in crowded:
        while not stopped() and merge_some(corpus, sides):
            pass


def merge_some(corpus: int, sides: Sides) -> bool:
    """Merge a few batches in one transaction; False when there is nothing to merge, or another one merges."""
    with here().database.transaction() as connection:
        if not corpora.try_lock(connection, corpus, Lock.MERGE):
            return False
        (every,) = batches.covering(connection, corpus, [Span(sides)])
        chosen = crowd(every) or neighbours(every, _small())
        if chosen:
            _rewrite(connection, corpus, sides, chosen)
    return bool(chosen)


def _small() -> int:
    return here().settings.batch_orthos // SMALL_SHARE


def crowd(every: list[Stored]) -> list[Stored]:
    """MOST batches that have a place in common with a larger one; `every`: ascending by their first.

    The larger one stays as it is: what a small text brings is merged with what others brought, not with everything.
    """
    ends: list[tuple[str, int]] = []
    for place, batch in enumerate(every):
        while ends and ends[0][0] < batch.first:
            heapq.heappop(ends)
        heapq.heappush(ends, (batch.last, place))
        if len(ends) > MOST:
            return sorted((every[other] for _, other in ends), key=lambda each: each.count)[:-1]
    return []


def neighbours(every: list[Stored], size: int) -> list[Stored]:
    """More than MOST batches that follow on each other and together have so many orthos or fewer."""
    begin = total = 0
    for end, batch in enumerate(every):
        if total + batch.count > size and end - begin > MOST:
            break
        total += batch.count
        while total > size:
            total -= every[begin].count
            begin += 1
    else:
        end = len(every)
    return every[begin:end] if end - begin > MOST else []


def _rewrite(connection: Connection, corpus: int, sides: Sides, chosen: list[Stored]) -> None:
    """Replace batches by new ones with the same orthos, cut again."""
    version = max(batch.numbering for batch in chosen)
    tree = here().tree(connection, corpus, version)
    by_id = {batch.id: batch for batch in chosen}
    parts = [
        tree.renumbered(by_id[number].numbering, batches.unpacked(by_id[number], value, tree))
        for number, value in batches.packed(connection, by_id)
    ]
    rows = runs.ascending(np.concatenate(parts))
    if len(rows) != (recorded := sum(batch.count for batch in chosen)):
        raise StoreCorrupt(problem=f"batches to be merged hold {len(rows)} orthos, and {recorded} are recorded")
    by = uuid.uuid5(outbox.NAMESPACE, "merge of " + " ".join(map(str, by_id)))
    new = [
        NewBatch(uuid.uuid5(outbox.NAMESPACE, f"{number} of {by}"), *dict(batch).values())
        for number, batch in enumerate(FoundBatch.cut(tree, [Run(sides, rows)], here().settings.batch_orthos))
    ]
    born = max(batch.born for batch in chosen)
    batches.add(connection, corpus, new, by=by, born=born, numbering=version)
    batches.remove(connection, by_id)
    tally.count(connection, corpus, {sides: Change(0, len(new) - len(chosen))})
    metrics.MERGED.add(len(chosen))
