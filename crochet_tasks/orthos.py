"""Stage 5, parallel: store the result of a search in one transaction: orthos, remediations, new work, work done."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from crochet_tasks import telemetry
from crochet_tasks.app import Step, app
from crochet_tasks.broker.messages import Packed, Searched, SearchResult
from crochet_tasks.db import Connection, batches, bulk, corpora, outbox, publishing, sessions, tally, texts
from crochet_tasks.db.batches import NewBatch
from crochet_tasks.db.corpora import Lock
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.process import here
from crochet_tasks.db.tally import Change
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.telemetry import metrics

PHRASE_BYTES = 4


@app.task(base=Step, name="orthos.store", message=SearchResult, serializer="msgpack")
def store(result: SearchResult) -> None:
    """Store a result, all of it or nothing; a result whose work is done already is dropped."""
    with here().database.transaction() as connection:
        corpora.take_lock(connection, result.corpus, Lock.VERSION, shared=True)
        items = outbox.claim(connection, result.items)
        if len(items) < len(result.items):  # another result has completed a part of it: the rest is searched again
            publishing.republish(connection, [*(item.id for item in items), *result.handed_back])
            metrics.DUPLICATES.add(len(result.items) - len(items), what="result")
            return
        version = corpora.version(connection, result.corpus)  # a statement of its own, after the lock
        changes = _Changes(connection, result, {item.id: item for item in items})
        changes.add_found()
        for searched in result.searched:
            changes.replace_searched(searched)
        changes.continue_seed()
        changes.write(version)
        publishing.republish(connection, result.handed_back)


def found_by(item: Item) -> str:
    """Return the metric label of the kind of search."""
    if item.kind == "seed":
        return "seed"
    return "replay" if item.since else "grow"


@dataclass
class _Changes:
    """The changes of a result: batches are written immediately, the rest is collected and written by `write`."""

    connection: Connection
    result: SearchResult
    items: dict[uuid.UUID, Item]
    """the work that the result completes"""
    waits: dict[int, tuple[Sides, int, bytes]] = field(default_factory=dict)
    """by batch: its shape, its size, and the phrases that it waits on from now on"""
    follow_up: list[Item] = field(default_factory=list)
    orthos: Counter[Sides] = field(default_factory=Counter)
    """how many are new"""
    batches: Counter[Sides] = field(default_factory=Counter)
    """by how many they grow; negative where several were merged"""

    def add_found(self) -> None:
        """New batches wait on what they consulted, or are to be searched where they were not yet."""
        found = self.result.found
        ids = self._insert({f"found {number}": packed for number, packed in enumerate(found)})
        for batch, packed in zip(ids, found, strict=True):
            self.orthos[packed.sides] += packed.count
            if packed.consulted is None:
                self._search(batch, packed.sides, packed.count, since=0, version=self.result.upto)
            else:
                self.waits[batch] = packed.sides, packed.count, packed.consulted

    def replace_searched(self, searched: Searched) -> None:
        """Batches that were searched now wait; where they were merged or cut, new ones replace them."""
        item = self.items[searched.work[0]]
        assert item.sides is not None
        if searched.rewritten is None:
            self.waits[searched.batches[0]] = item.sides, item.size, searched.consulted
            return
        new = {f"searched {searched.work[0]}": searched.rewritten}
        if searched.left_over is not None:
            new[f"left over {searched.work[0]}"] = searched.left_over
        batch, *rest = self._insert(new)
        self.waits[batch] = item.sides, searched.rewritten.count, searched.consulted
        if searched.left_over is not None:
            self._keep_left_over(rest[0], searched.left_over, searched, item)
        batches.remove(self.connection, searched.batches)
        self.batches[item.sides] -= len(searched.batches)

    def _keep_left_over(self, batch: int, left: Packed, searched: Searched, item: Item) -> None:
        """Store the orthos that were not searched as a batch: it keeps their remediations, and is searched later."""
        known = batches.waited_on(self.connection, searched.batches)
        if known:
            batches.wait(self.connection, {batch: bulk.packed(np.unique(np.concatenate(known)))}, item.window)
        self._search(batch, left.sides, left.count, since=item.window, version=item.version)

    def continue_seed(self) -> None:
        """Add a seed for the start pairs that did not fit into this result."""
        seed, left = self.result.seed, self.result.seed_left_over
        if seed is not None and left is not None:
            self.follow_up.append(outbox.seed(self.result.corpus, self.items[seed].version, left))

    def write(self, version: int) -> None:
        """Write remediations, follow-up work and counts, and mark the work as done; `version`: of the context now."""
        result = self.result
        batches.wait(self.connection, {batch: phrases for batch, (_, _, phrases) in self.waits.items()}, result.upto)
        due = self._add_due(version) if version > result.upto else 0
        outbox.done(self.connection, result.items, result.upto, self.orthos.total())
        outbox.add(self.connection, self.follow_up)
        shapes = {*self.orthos, *self.batches}
        counts = {sides: Change(self.orthos[sides], self.batches[sides]) for sides in shapes}
        tally.count(self.connection, result.corpus, counts)
        sessions.once_committed(self.connection, lambda: self._measure(due, version - result.upto))
        sessions.once_committed(self.connection, lambda: telemetry.result(stored=self.orthos.total()))

    def _add_due(self, version: int) -> int:
        """The version race: what waits on a phrase that versions made during the search have continued is due."""
        upto = self.result.upto
        missed = texts.continued(self.connection, self.result.corpus, upto, version)
        before = len(self.follow_up)
        for batch, (sides, size, phrases) in self.waits.items():
            if np.isin(bulk.ints(phrases), missed, assume_unique=True).any():
                self._search(batch, sides, size, since=upto, version=upto + 1)
        return len(self.follow_up) - before

    def _insert(self, new: Mapping[str, Packed]) -> list[int]:
        """Insert batches. Their keys derive from the work items, so a repeated task inserts none twice."""
        work = " ".join(sorted(map(str, self.result.items)))
        rows = [
            NewBatch(uuid.uuid5(outbox.NAMESPACE, f"{name} by {work}"), each.sides, each.count, each.width, each.cells)
            for name, each in new.items()
        ]
        self.batches.update(row.sides for row in rows)
        by, born = self.result.items[0], self.result.upto
        return batches.add(self.connection, self.result.corpus, rows, by=by, born=born)

    def _search(self, batch: int, sides: Sides, size: int, *, since: int, version: int) -> None:
        self.follow_up.append(outbox.grow(self.result.corpus, batch, sides, size, since=since, version=version))

    def _measure(self, due: int, lag: int) -> None:
        label = found_by(self.items[self.result.items[0]])
        for packed in self.result.found:
            metrics.STORED.add(packed.count, shape=metrics.shape(packed.sides), by=label)
            metrics.BATCH.observe(packed.count)
        for searched in self.result.searched:
            sizes = (self.items[work].size for work in searched.work)
            number = sum(sizes) if searched.rewritten is None else searched.rewritten.count
            metrics.SEARCHED.add(number, shape=metrics.shape(self.items[searched.work[0]].sides or ()), by=label)
            metrics.BATCHES_SEARCHED.add(len(searched.batches), by=label)
        metrics.REMEDIATIONS.add(len(self.waits))
        metrics.CONSULTED.add(sum(len(phrases) for _, _, phrases in self.waits.values()) // PHRASE_BYTES)
        metrics.DUE.add(due, found="storing")
        metrics.RESULT_LAG.observe(lag)
