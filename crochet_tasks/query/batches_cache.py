"""Caches batches (sorted by id) and phrase indexes of the API, and reads them from the database.

A batch never changes under its id, so a cached batch stays valid in every snapshot that lists it.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from crochet_tasks.db import Connection, batches, texts
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine import geometry
from crochet_tasks.engine.geometry import Cells, Halves, Sides
from crochet_tasks.engine.phrases import Longs, PhraseIndex
from crochet_tasks.errors import StoreCorrupt
from crochet_tasks.query.cache import Cache, Locks
from crochet_tasks.telemetry import metrics

OVERHEAD_BYTES = 600
"""what the objects around the arrays of a small batch take"""
BATCHES_SHARE, RUNS_SHARE, INDEXES_SHARE, TEXTS_SHARE, WAITS_SHARE = 0.4, 0.2, 0.15, 0.15, 0.1
"""of the bytes of the cache"""
READ_BYTES = 4_000_000
"""of cells, read at once"""


@dataclass(frozen=True)
class Sorted:
    """The orthos of a batch, ascending by id. `first`: the first halves of the ids; `cells`: shape (cells, orthos);
    `twins`: whether some of `first` are equal.
    """

    sides: Sides
    first: Halves
    cells: Cells
    twins: bool

    @classmethod
    def of(cls, sides: Sides, cells: Cells, hashes: Halves) -> Sorted:
        """`hashes`: those of the words, as PhraseIndex has them."""
        ids = geometry.ids(sides, cells, hashes)
        order = np.argsort(ids[:, 0])
        first = ids[order, 0]
        twins = bool((first[1:] == first[:-1]).any())
        if twins:
            order = np.lexsort((ids[:, 1], ids[:, 0]))
        return cls(sides, first, np.ascontiguousarray(cells[:, order]), twins)

    @property
    def size(self) -> int:
        return len(self.first)

    @property
    def bytes(self) -> int:
        return self.first.nbytes + self.cells.nbytes + OVERHEAD_BYTES

    def ids(self, places: slice | Longs, hashes: Halves) -> Halves:
        """The ids of some of the orthos, shape (orthos, 2)."""
        return geometry.ids(self.sides, self.cells[:, places], hashes)


class Ref(NamedTuple):
    """A batch in a snapshot."""

    id: int
    sides: Sides
    size: int


class BatchList(NamedTuple):
    """The batches of a corpus in a snapshot."""

    corpus: int
    shapes: dict[Sides, list[Ref]]
    """best shape first"""

    @property
    def refs(self) -> list[Ref]:
        return list(itertools.chain.from_iterable(self.shapes.values()))


class Store:
    """The batches and indexes of all corpora, as far as they fit into memory."""

    def __init__(self, process: Process) -> None:
        self.process = process
        most = process.settings.api_cache_bytes
        self.batches: Cache[int, Sorted] = Cache("batches", int(most * BATCHES_SHARE))
        self._indexes: Cache[int, PhraseIndex] = Cache("index", int(most * INDEXES_SHARE), keeps_last=True)
        self._alphabets: weakref.WeakKeyDictionary[PhraseIndex, list[int]] = weakref.WeakKeyDictionary()
        self._reading, self._indexing = Locks(), Locks()

    def index(self, connection: Connection, corpus: Corpus) -> PhraseIndex:
        """The corpus' phrase index; it may include later versions than the snapshot has."""
        index = self._indexes.get(corpus.id)
        stale = index is None or index.version < corpus.version
        metrics.CACHE.add(cache="index", outcome="miss" if stale else "hit")
        if index is None or stale:
            with self._indexing.of(corpus.id):
                index = self._indexes.get(corpus.id) or PhraseIndex()
                if index.version < corpus.version:
                    # All readers of the new version wait for this; copying the index took 150 of 200 ms.
                    index = texts.bring_forward(connection, corpus.id, index, sharing=True)
                    self._indexes.put(corpus.id, index, index.bytes)
        return index

    def batch_list(self, connection: Connection, corpus: int) -> BatchList:
        """List the batches of a corpus. One statement, 12 bytes per batch."""
        listed: dict[Sides, list[Ref]] = {}
        for shape, ids, sizes in batches.listed(connection, corpus):
            listed[shape] = [Ref(batch, shape, size) for batch, size in zip(ids, sizes, strict=True)]
        return BatchList(corpus, {sides: listed[sides] for sides in batches.shapes_by_rank(listed)})

    def sorted(self, connection: Connection, refs: Sequence[Ref], index: PhraseIndex) -> Iterator[tuple[Ref, Sorted]]:
        """These batches, in any order. Reads those that are not cached from the database, a few at once."""
        kept = self.batches.several(ref.id for ref in refs)
        metrics.CACHE.add(len(kept), cache="batches", outcome="hit")
        metrics.CACHE.add(len(refs) - len(kept), cache="batches", outcome="miss")
        missing = []
        for ref in refs:
            if ref.id in kept:
                yield ref, kept[ref.id]
            else:
                missing.append(ref)
        while missing:
            some = _some(missing)
            # One thread reads a batch; others that need it wait for the lock and find it cached.
            with self._reading.of(some[0].id):
                there = self.batches.several(ref.id for ref in some)
                there.update(self._read(connection, [ref for ref in some if ref.id not in there], index))
            yield from ((ref, there[ref.id]) for ref in some)
            missing = missing[len(some) :]

    def _read(self, connection: Connection, refs: list[Ref], index: PhraseIndex) -> dict[int, Sorted]:
        sides = {ref.id: ref.sides for ref in refs}
        read = {}
        for batch, cells in batches.cells(connection, list(sides)) if refs else ():
            read[batch] = Sorted.of(sides[batch], cells, index.hashes)
            self.batches.put(batch, read[batch], read[batch].bytes)
        if len(read) < len(refs):
            raise StoreCorrupt(problem="a snapshot lists batches that it does not hold")
        return read

    def alphabet(self, index: PhraseIndex) -> list[int]:
        """The ids of all words in code-point order."""
        order = self._alphabets.get(index)
        if order is None:
            order = self._alphabets[index] = np.argsort(index.rank).tolist()
        return order

    def fitting(self, refs: Sequence[Ref], index: PhraseIndex) -> Sequence[Ref]:
        """The first of these batches, as many as fit into the cache."""
        width = index.cell_type().itemsize
        sizes = [OVERHEAD_BYTES + ref.size * (8 + width * math.prod(ref.sides)) for ref in refs]
        return refs[: int(np.searchsorted(np.cumsum(sizes), self.batches.most, side="right"))]

    def forget(self, corpus: int) -> None:
        """Drop the index of a corpus; its batches are evicted as others are used."""
        self._indexes.forget(corpus)


def _some(refs: list[Ref]) -> list[Ref]:
    """The first of these batches, at least one, whose cells have about READ_BYTES."""
    sizes = np.cumsum([4 * ref.size * int(np.prod(ref.sides)) for ref in refs])
    return refs[: max(1, int(np.searchsorted(sizes, READ_BYTES)))]


def portions(sizes: Sequence[int]) -> Iterator[int]:
    """Where portions of about READ_BYTES end, each of them with one item at least."""
    total = 0
    for end, size in enumerate(sizes):
        if total and total + size > READ_BYTES:
            yield end
            total = 0
        total += size
    if sizes:
        yield len(sizes)
