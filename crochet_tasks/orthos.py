"""Stage 5: store what a search found. One transaction: orthos, remediations, follow-up work, "this work is done"."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import NamedTuple

import numpy as np
from sqlalchemy import Connection

from crochet_tasks.app import Step, app
from crochet_tasks.broker.messages import Packed, Searched, SearchResult
from crochet_tasks.db import batches, bulk, corpora, outbox, publishing, sessions, tally, texts
from crochet_tasks.db.batches import NewBatch
from crochet_tasks.db.corpora import Lock
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.process import here
from crochet_tasks.db.tally import Change
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.telemetry import metrics


@app.task(base=Step, name="orthos.store", message=SearchResult, serializer="msgpack")
def store(result: SearchResult) -> None:
    """Store a result, all of it or nothing; a result whose work is done already is dropped."""
    with here().database.transaction() as connection:
        corpora.hold(connection, result.corpus, Lock.VERSION, shared=True)
        items = outbox.claim(connection, result.items)
        if len(items) == len(result.items):
            version = corpora.version(connection, result.corpus)  # a statement of its own, after the lock
            _write(connection, result, items, version)
            publishing.hand_back(connection, result.handed_back)
        else:  # another result was quicker with a part of the work; the rest is searched again
            publishing.hand_back(connection, [*(item.id for item in items), *result.handed_back])
            metrics.DUPLICATES.add(len(result.items) - len(items), what="result")


def by(item: Item) -> str:
    """What finds orthos, as a label of metrics."""
    if item.kind == "seed":
        return "seed"
    return "replay" if item.since else "grow"


class _Stored(NamedTuple):
    """A batch that the result writes or leaves as it is: what it waits on (None: nothing yet) and the work it makes."""

    id: int
    sides: Sides
    size: int
    waits: bytes | None


def _write(connection: Connection, result: SearchResult, items: list[Item], version: int) -> None:
    found = _add(connection, result, [(f"found {number}", packed) for number, packed in enumerate(result.found)])
    stored = [
        _Stored(batch, packed.sides, packed.count, packed.consulted)
        for batch, packed in zip(found, result.found, strict=True)
    ]
    follow_up = [
        outbox.grow(result.corpus, batch.id, batch.sides, batch.size, since=0, version=result.upto)
        for batch in stored
        if batch.waits is None
    ]
    change = Counter(batch.sides for batch in stored)  # of the number of batches
    by_id = {item.id: item for item in items}
    stored += [_searched(connection, result, done, by_id[done.work[0]], change, follow_up) for done in result.searched]
    waits = {batch.id: batch.waits for batch in stored if batch.waits is not None}
    batches.wait(connection, waits, result.upto)
    due = _due_at_once(connection, result, stored, version) if version > result.upto else []
    follow_up += due
    if result.seed is not None and result.seed_left_over is not None:
        follow_up.append(outbox.seed(result.corpus, by_id[result.seed].version, result.seed_left_over))
    outbox.done(connection, result.items, result.upto, sum(packed.count for packed in result.found))
    outbox.add(connection, follow_up)
    orthos: Counter[Sides] = Counter()
    for packed in result.found:
        orthos[packed.sides] += packed.count
    changes = {sides: Change(orthos[sides], change[sides]) for sides in {*orthos, *change}}
    tally.count(connection, result.corpus, changes)
    lag = version - result.upto
    sessions.once_committed(connection, lambda: _measure(result, by_id, list(waits.values()), due=len(due), lag=lag))


def _measure(result: SearchResult, items: dict[uuid.UUID, Item], waits: list[bytes], *, due: int, lag: int) -> None:
    found_by = by(items[result.items[0]])
    for packed in result.found:
        metrics.STORED.add(packed.count, shape=metrics.shape(packed.sides), by=found_by)
        metrics.BATCH.observe(packed.count)
    for done in result.searched:
        sizes = (items[work].size for work in done.work)
        number = sum(sizes) if done.rewritten is None else done.rewritten.count
        metrics.SEARCHED.add(number, shape=metrics.shape(items[done.work[0]].sides or ()), by=found_by)
        metrics.BATCHES_SEARCHED.add(len(done.batches), by=found_by)
    metrics.REMEDIATIONS.add(len(waits))
    metrics.CONSULTED.add(sum(len(phrases) for phrases in waits) // PHRASE_BYTES)
    metrics.DUE.add(due, found="storing")
    metrics.RESULT_LAG.observe(lag)


PHRASE_BYTES = 4


def _add(connection: Connection, result: SearchResult, named: list[tuple[str, Packed]]) -> list[int]:
    """Write batches under keys that follow from the work that made them, so that the same step makes them once."""
    work = " ".join(sorted(map(str, result.items)))
    rows = [
        NewBatch(
            uuid.uuid5(outbox.NAMESPACE, f"{name} by {work}"), packed.sides, packed.count, packed.width, packed.cells
        )
        for name, packed in named
    ]
    return batches.add(connection, result.corpus, rows, by=result.items[0], born=result.upto)


def _searched(
    connection: Connection,
    result: SearchResult,
    done: Searched,
    item: Item,
    change: Counter[Sides],
    follow_up: list[Item],
) -> _Stored:
    """Where searched batches were put together or cut, write the new ones in their place."""
    assert item.sides is not None
    if done.rewritten is None:
        return _Stored(done.batches[0], item.sides, item.size, done.consulted)
    new = [(f"searched {done.work[0]}", done.rewritten)]
    if done.left_over is not None:
        new.append((f"left over {done.work[0]}", done.left_over))
    ids = _add(connection, result, new)
    if done.left_over is not None:
        # As far searched as its orthos were before; what they waited on they still wait on.
        known = batches.waited_on(connection, done.batches)
        if known:
            batches.wait(connection, {ids[1]: bulk.packed(np.unique(np.concatenate(known)))}, item.window)
        left = done.left_over
        follow_up.append(
            outbox.grow(result.corpus, ids[1], left.sides, left.count, since=item.window, version=item.version)
        )
    batches.remove(connection, done.batches)
    change[item.sides] += len(new) - len(done.batches)
    return _Stored(ids[0], item.sides, done.rewritten.count, done.consulted)


def _due_at_once(connection: Connection, result: SearchResult, stored: list[_Stored], version: int) -> list[Item]:
    """The version race: what waits on a phrase that versions made during the search have continued is due again."""
    missed = texts.continued(connection, result.corpus, result.upto, version)
    return [
        outbox.grow(result.corpus, batch.id, batch.sides, batch.size, since=result.upto, version=result.upto + 1)
        for batch in stored
        if batch.waits is not None and np.isin(bulk.ints(batch.waits), missed, assume_unique=True).any()
    ]
