"""Stage 5: store what a search found. One transaction: orthos, remediations, follow-up work, "this work is done"."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

import numpy as np
from sqlalchemy import Connection

from crochet_tasks.app import Step, app, here
from crochet_tasks.db import batches, bulk, corpora, outbox, texts
from crochet_tasks.db.corpora import Change, Lock
from crochet_tasks.db.outbox import Item
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.engine.phrases import Ints
from crochet_tasks.schemas import Packed, SearchResult, Searched


@app.task(base=Step, name="orthos.store", bind=True, serializer="msgpack")
def store(self: Step, payload: dict[str, Any]) -> None:
    """Store a result, all of it or nothing; a result whose work is done already is dropped."""
    result = SearchResult.model_validate(payload)
    with here().database.transaction() as connection:
        corpora.hold(connection, result.corpus, Lock.VERSION, shared=True)
        items = {item.id: item for item in outbox.claim(connection, result.work)}
        if len(items) == len(result.work):
            version = corpora.version(connection, result.corpus)  # a statement of its own, after the lock
            _Storing(connection, result, items, version).all()
        # What is still open now was not done by this result: there was no room, or another was quicker with a part of it.
        outbox.hand_back(connection, [*result.work, *result.handed_back])


class _Storing:
    """The statements of one `store`."""

    def __init__(self, connection: Connection, result: SearchResult, items: dict[uuid.UUID, Item], version: int) -> None:
        self.connection = connection
        self.result = result
        self.items = items
        self.follow_up: list[Item] = []
        self.orthos: Counter[Sides] = Counter()
        self.batches: Counter[Sides] = Counter()
        # What versions that came while the search ran have continued: whoever waits on it is due again at once.
        self.missed = np.zeros(0, np.bool_)
        if version > result.upto:
            continued = texts.continued(connection, result.corpus, result.upto, version)
            self.missed = np.zeros(int(continued[-1]) + 1 if len(continued) else 0, np.bool_)
            self.missed[continued] = True

    def all(self) -> None:
        for number, packed in enumerate(self.result.found):
            batch = self._write(packed, self.result.work, f"found {number}")
            self._grow(batch, packed.sides, packed.count, since=0, version=self.result.upto)
            self.orthos[packed.sides] += packed.count
        for done in self.result.searched:
            self._searched(done)
        if self.result.seed is not None and self.result.seed_left_over is not None:
            version = self.items[self.result.seed].version
            self.follow_up.append(outbox.seed(self.result.corpus, version, self.result.seed_left_over))
        outbox.done(self.connection, self.result.work, self.result.upto)
        outbox.add(self.connection, self.follow_up)
        changes = {sides: Change(self.orthos[sides], self.batches[sides]) for sides in {*self.orthos, *self.batches}}
        corpora.count(self.connection, self.result.corpus, changes)

    def _searched(self, done: Searched) -> None:
        """Note what searched batches wait on; where they were put together or cut, write the new ones instead."""
        item = self.items[done.work[0]]
        assert item.sides is not None
        waits = bulk.ints(done.consulted)
        batch, count = done.batches[0], item.size
        if done.rewritten is not None:
            old = {batch.id: batch for batch in batches.read(self.connection, done.batches)}
            batch, count = self._write(done.rewritten, done.work, "searched"), done.rewritten.count
            if done.left_over is not None:
                self._leave_over(done.left_over, done, [old[number].phrases for number in done.batches])
            batches.remove(self.connection, done.batches)
            self.batches[item.sides] -= len(done.batches)
        batches.wait(self.connection, batch, waits, self.result.upto)
        if self.missed[waits[: np.searchsorted(waits, len(self.missed))]].any():
            self._grow(batch, item.sides, count, since=self.result.upto, version=self.result.upto + 1)

    def _leave_over(self, packed: Packed, done: Searched, waits: list[Ints | None]) -> None:
        """Write the orthos for which there was no more room; they are as far searched as they were."""
        item = self.items[done.work[0]]
        batch = self._write(packed, done.work, "left over")
        known = [phrases for phrases in waits if phrases is not None]
        if known:
            batches.wait(self.connection, batch, np.unique(np.concatenate(known)), item.window)
        self._grow(batch, packed.sides, packed.count, since=item.window, version=item.version)

    def _write(self, packed: Packed, work: list[uuid.UUID], name: str) -> int:
        self.batches[packed.sides] += 1
        key = uuid.uuid5(outbox.NAMESPACE, f"{name} by {' '.join(sorted(map(str, work)))}")
        return batches.add(
            self.connection,
            self.result.corpus,
            key,
            packed.sides,
            packed.unpacked(),
            by=work[0],
            born=self.result.upto,
        )

    def _grow(self, batch: int, sides: Sides, count: int, *, since: int, version: int) -> None:
        self.follow_up.append(
            outbox.grow(self.result.corpus, batch, sides, count, since=since, version=version)
        )
