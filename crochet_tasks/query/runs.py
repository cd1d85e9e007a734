"""Which batch an id may be in: the ids of many batches merged into a few runs, to look up at once.

As levels of a log-structured merge tree (O'Neil et al., 1996): new batches become a run, which is merged with those
that are not much larger, so there are few runs, and an id moves into another one about log2 (orthos) times. A run holds
of an id its first 32 bits, and where the ortho is. Hits are candidates to verify: false positives are possible, false
negatives are not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from crochet_tasks.db import Connection
from crochet_tasks.engine.geometry import Halves
from crochet_tasks.engine.phrases import Ints, Longs, PhraseIndex
from crochet_tasks.query.batches_cache import RUNS_SHARE, BatchList, Ref, Sorted, Store
from crochet_tasks.query.cache import Cache

BYTES = 12
"""per ortho"""
LARGER = 2
"""a run is merged with a new one unless it is more than so many times larger"""


class Candidate(NamedTuple):
    """Places in a batch that may hold ids of a lookup: `queried` says which ids, `places` where in the batch."""

    ref: Ref
    queried: Longs
    places: Longs


class Run(NamedTuple):
    """The orthos of some batches by the heads of their ids, ascending."""

    refs: list[Ref]
    heads: npt.NDArray[np.uint32]
    batch: Ints
    """per ortho: which of `refs` it is in"""
    place: Ints

    @classmethod
    def of(cls, batches: Iterable[tuple[Ref, Sorted]]) -> Run:
        every = [
            cls([ref], _heads(batch.first), np.zeros(batch.size, np.int32), np.arange(batch.size, dtype=np.int32))
            for ref, batch in batches
        ]
        return cls.merged([_NOTHING, *every])

    @classmethod
    def merged(cls, runs: Sequence[Run]) -> Run:
        begin = np.cumsum([0, *(len(run.refs) for run in runs)])
        heads = np.concatenate([run.heads for run in runs])
        order = np.argsort(heads, kind="stable")  # a stable sort is fast on sorted parts
        batch = np.concatenate([run.batch + np.int32(at) for run, at in zip(runs, begin[:-1], strict=True)])
        place = np.concatenate([run.place for run in runs])
        return cls([ref for run in runs for ref in run.refs], heads[order], batch[order], place[order])

    @property
    def size(self) -> int:
        return len(self.heads)

    def find(self, ids: Halves) -> list[Candidate]:
        """The batches, and where in them, that may hold these ids (shape (ids, 2))."""
        heads = _heads(ids[:, 0])
        begin = self.heads.searchsorted(heads)
        number = self.heads.searchsorted(heads, side="right") - begin
        queried = np.repeat(np.arange(len(ids)), number)
        at = np.arange(len(queried)) + np.repeat(begin - np.cumsum(number) + number, number)
        batch, place = self.batch[at], self.place[at]
        order = np.argsort(batch, kind="stable")
        batch = batch[order]
        ends = np.flatnonzero(np.diff(batch, append=-1)) + 1
        parts = zip(np.split(queried[order], ends), np.split(place[order].astype(np.int64), ends), strict=True)
        return [Candidate(self.refs[each], *part) for each, part in zip(batch[ends - 1].tolist(), parts, strict=False)]


def _heads(first: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
    return (first >> np.uint64(32)).astype(np.uint32)


_NOTHING = Run([], np.zeros(0, np.uint32), np.zeros(0, np.int32), np.zeros(0, np.int32))


class Runs(NamedTuple):
    """Those of one corpus, the largest first. It never changes: it is replaced."""

    every: tuple[Run, ...] = ()

    @property
    def size(self) -> int:
        return sum(run.size for run in self.every)

    def lacks(self, refs: Sequence[Ref]) -> list[Ref]:
        """The batches that are in none of them."""
        there = {ref.id for run in self.every for ref in run.refs}
        return [ref for ref in refs if ref.id not in there]

    def and_(self, run: Run) -> Runs:
        """With one more, merged with what is not much larger."""
        every = list(self.every)
        small = [run]
        size = run.size
        while every and every[-1].size <= LARGER * size:
            small.append(every.pop())
            size += small[-1].size
        return Runs((*every, Run.merged(small) if len(small) > 1 else run))


NO_RUNS = Runs()
FEW = 16
"""fewer batches than this get no run: searching each of them takes no longer"""


class RunsCache:
    """The runs of all corpora, as far as they fit into memory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: Cache[int, Runs] = Cache("runs", int(store.process.settings.api_cache_bytes * RUNS_SHARE))

    def of(self, corpus: int) -> Runs:
        return self._kept.get(corpus) or NO_RUNS

    def bring_forward(
        self, connection: Connection, batch_list: BatchList, index: PhraseIndex, stopped: Callable[[], bool]
    ) -> None:
        """Merge the batches that are in no run yet, best shape first, as many as there is room for; for one thread."""
        runs = self.of(batch_list.corpus)
        lacking = runs.lacks(batch_list.refs)
        room = self._kept.most // BYTES - runs.size
        refs = lacking[: int(np.searchsorted(np.cumsum([ref.size for ref in lacking]), room, side="right"))]
        if len(refs) >= FEW:
            batches = itertools.takewhile(lambda _: not stopped(), self._store.sorted(connection, refs, index))
            runs = runs.and_(Run.of(batches))
            self._kept.put(batch_list.corpus, runs, BYTES * runs.size)

    def forget(self, corpus: int) -> None:
        self._kept.forget(corpus)
