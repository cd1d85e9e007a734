"""Reads batches and phrases for readers, and caches them. What is cached is bounded, whatever the store holds."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from crochet_tasks.db import Connection, batches, tally, texts
from crochet_tasks.db.batches import Span, Stored
from crochet_tasks.db.cache import Cache, Locks
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine import geometry, runs
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.engine.tree import Tree
from crochet_tasks.errors import StoreCorrupt
from crochet_tasks.query import ranges

OVERHEAD_BYTES = 600
"""what the objects around the arrays of a small batch take"""
BATCHES_SHARE, LINES_SHARE, PHRASES_SHARE, TEXTS_SHARE = 0.35, 0.1, 0.4, 0.15
"""of the bytes of the cache"""
SCANS = 8
"""phrases that are found by their hashes without a table of these"""
LISTED_AT_ONCE = 8
"""batches that are listed first for a page; then always four times as many"""


class Phrases:
    """The phrases of a corpus at a version. `index` numbers words alike in all versions."""

    def __init__(self, index: PhraseIndex, tree: Tree) -> None:
        self.index, self.tree = index, tree
        self._asked = 0

    @property
    def bytes(self) -> int:
        """About what it takes."""
        return self.index.bytes + self.tree.bytes + 12 * self.tree.size

    @functools.cached_property
    def _by_hash(self) -> tuple[Ids, npt.NDArray[np.intp]]:
        """All phrases by the first 16 bits of their hashes, and per such bits where those that have them begin."""
        tops = (self.tree.hashes >> np.uint64(48)).astype(np.uint16)  # a radix sort: ten times as fast as of the whole
        order = np.argsort(tops, kind="stable").astype(np.uint32)
        return order, np.concatenate([[0], np.cumsum(np.bincount(tops, minlength=1 << 16))])

    def with_hashes(self, halves: npt.NDArray[np.uint64]) -> list[list[int]]:
        """Per first half of an id: the phrases that such ids can begin with, one, or none."""
        found: list[list[int]] = [[] for _ in halves]
        if self._asked + len(halves) <= SCANS and "_by_hash" not in self.__dict__:  # a table takes as long as some
            self._asked += len(halves)
            for phrases, half in zip(found, halves, strict=True):
                phrases.extend(np.flatnonzero(self.tree.hashes == half).tolist())
            return found
        order, begin = self._by_hash
        tops = (halves >> np.uint64(48)).astype(np.intp)
        first, number = begin[tops], begin[tops + 1] - begin[tops]
        asked = np.repeat(np.arange(len(halves)), number)
        alike = order[np.arange(len(asked)) + np.repeat(first - (np.cumsum(number) - number), number)]
        same = self.tree.hashes[alike] == halves[asked]
        for place, phrase in zip(asked[same].tolist(), alike[same].tolist(), strict=True):
            found[place].append(phrase)
        return found


class Numbered(NamedTuple):
    """Phrase ids as the tree of a version has them: what is cached follows the version when it is read again."""

    version: int
    ids: Ids


class Store:
    """The caches of one process. Threads may share it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        most = process.settings.api_cache_bytes
        self.batches: Cache[int, Numbered] = Cache("batches", int(most * BATCHES_SHARE))
        self.lines: Cache[int, Numbered] = Cache("lines", int(most * LINES_SHARE))
        self.indexes: Cache[int, Phrases] = Cache("index", int(most * PHRASES_SHARE), keeps_last=True)
        self._reading, self._indexing = Locks(), Locks()

    def phrases(self, connection: Connection, corpus: Corpus) -> Phrases:
        """The phrases of the version of `corpus`."""
        cached = self.indexes.get(corpus.id)
        hit = cached is not None and cached.tree.version == corpus.version
        self.indexes.looked_up(hits=hit, misses=not hit)
        if cached is not None and hit:
            return cached
        with self._indexing.of(corpus.id):
            cached = self.indexes.get(corpus.id)
            if cached is not None and cached.tree.version == corpus.version:
                return cached
            index = self.process.indexes.get(corpus.id) or PhraseIndex() if cached is None else cached.index
            index = texts.bring_forward(connection, corpus.id, index)
            tree = self.process.trees.get((corpus.id, corpus.version))  # where this process searches, too
            if tree is None:
                older = cached.tree if cached is not None and cached.tree.version < corpus.version else None
                tree = Tree.of(index, corpus.version, older)
            phrases = Phrases(index, tree)
            if cached is None or cached.tree.version < corpus.version:  # else for an older snapshot, which ends soon
                self.indexes.put(corpus.id, phrases, phrases.bytes)
            return phrases

    def rows(self, reader: Reader, wanted: Sequence[Stored]) -> list[Ids]:
        """The orthos of each batch, as the reader's tree numbers phrases.

        A batch never changes under its id. Those that are not cached are read at once. Raises StoreCorrupt where they
        are not what their rows say.
        """
        found = {batch.id: self.cached(self.batches, reader, batch) for batch in wanted}
        missing = sorted(number for number, rows in found.items() if rows is None)
        self.batches.looked_up(hits=len(found) - len(missing), misses=len(missing))
        with contextlib.ExitStack() as stack:  # one thread reads a batch; others that need it find it cached
            for number in missing:  # ascending: no two threads wait for each other
                stack.enter_context(self._reading.of(number))
            found |= {batch.id: self.cached(self.batches, reader, batch) for batch in wanted if batch.id in missing}
            left = {batch.id: batch for batch in wanted if found[batch.id] is None}
            if left:
                packed = dict(batches.packed(reader.connection, left))
                for number, batch in left.items():
                    found[number] = self.keep(self.batches, reader, batch, _read(reader, batch, packed[number]))
        return [cached for batch in wanted if (cached := found[batch.id]) is not None]

    def cached(self, cache: Cache[int, Numbered], reader: Reader, batch: Stored) -> Ids | None:
        """What is cached of a batch, as the reader's tree numbers phrases; None where only a newer tree's is."""
        kept = cache.get(batch.id)
        if kept is None or kept.version > reader.tree.version:
            return None
        if kept.version == reader.tree.version:
            return kept.ids
        return self.keep(cache, reader, batch, reader.numbering(kept.version).take(kept.ids))

    def keep(self, cache: Cache[int, Numbered], reader: Reader, batch: Stored, ids: Ids) -> Ids:
        ids = np.asfortranarray(ids)  # orthos are looked for in their columns
        cache.put(batch.id, Numbered(reader.tree.version, ids), ids.nbytes + OVERHEAD_BYTES)
        return ids

    def forget(self, corpus: int) -> None:
        """Drop the phrases of a corpus; its batches are evicted as others are used."""
        self.indexes.forget(corpus)


class Reader:
    """The orthos of a corpus as one snapshot has them: the Source of ranges.py."""

    def __init__(self, store: Store, connection: Connection, corpus: Corpus) -> None:
        self.store, self.connection, self.corpus = store, connection, corpus
        self.phrases = store.phrases(connection, corpus)
        self.tree = self.phrases.tree
        self.numbering = functools.lru_cache(NUMBERINGS)(self.tree.numbering)
        self._ahead: dict[Span, list[Stored]] = {}
        self._listed: list[Stored] = []
        self._lines: dict[int, bytes] = {}

    def shapes(self) -> list[Sides]:
        """The shapes that there are orthos of, best first."""
        counted = tally.counted(self.connection, self.corpus.id)
        return geometry.best_first(sides for sides, change in counted.items() if change.orthos)

    def list_ahead(self, spans: Sequence[Span]) -> None:
        if not spans:
            return
        listed = batches.covering(self.connection, self.corpus.id, spans, most=LISTED_AT_ONCE)
        self._ahead = dict(zip(spans, listed, strict=True))

    def batches(self, span: Span, *, back: bool = False) -> Iterator[Stored]:
        at_once, skip = LISTED_AT_ONCE, 0
        known = None if back else self._ahead.pop(span, None)
        while True:
            if known is None:
                (listed,) = batches.covering(
                    self.connection, self.corpus.id, [span], most=at_once, skip=skip, back=back
                )
            else:
                listed, known = known, None
            self._listed = listed
            yield from listed
            if len(listed) < at_once:
                return
            skip += at_once
            at_once *= 4

    def oldest(self, most: int) -> list[Stored]:
        """The oldest batches of the corpus, so many at the most."""
        self._listed = batches.oldest(self.connection, self.corpus.id, most)
        return self._listed

    def rows(self, wanted: Sequence[Stored]) -> list[Ids]:
        return self.store.rows(self, wanted)

    def lines(self, batch: Stored) -> Ids:
        """Raises StoreCorrupt where its remediation is missing or damaged."""
        lines = self.store.cached(self.store.lines, self, batch)
        self.store.lines.looked_up(hits=lines is not None, misses=lines is None)
        if lines is None:
            lines = self.store.keep(self.store.lines, self, batch, self._read_lines(batch))
        return lines

    def _read_lines(self, batch: Stored) -> Ids:
        if batch.id not in self._lines:  # of some of those that are asked for next, too
            known = {*self.store.lines}
            begin = next((at for at, each in enumerate(self._listed) if each.id == batch.id), 0)
            following = [each.id for each in self._listed[begin : begin + LINES_AT_ONCE] if each.id not in known]
            self._lines = dict(batches.lines(self.connection, {batch.id, *following}))
        try:
            if batch.numbering == self.tree.version:
                return runs.unpack_set(self._lines.pop(batch.id), self.tree.size)
            numbering = self.numbering(batch.numbering)
            return numbering.take(runs.unpack_set(self._lines.pop(batch.id), len(numbering)))
        except (KeyError, runs.DamagedRun) as error:
            raise StoreCorrupt(
                problem=f"the remediation of batch {batch.id} of corpus '{self.corpus.name}' is "
                f"{'missing' if isinstance(error, KeyError) else 'damaged'}; see 'crochet verify'"
            ) from error


LINES_AT_ONCE = 64
"""remediations that are read together, of batches that are listed: some kilobytes each, as they are packed"""
NUMBERINGS = 4
"""tables of older versions that are kept for a request: each takes 4 bytes per phrase, and a moment to make"""


def _read(reader: Reader, batch: Stored, packed: bytes) -> Ids:
    tree = reader.tree
    levels = [*tree.levels]
    numbering = None
    if batch.numbering != tree.version:
        numbering = reader.numbering(batch.numbering)
        levels = numbering.searchsorted(np.array(levels, np.uint32)).tolist()
    base, limit = levels[batch.sides[-1] - 1 : batch.sides[-1] + 1]
    try:
        rows = runs.unpack(packed, batch.count, runs.height(batch.sides), base, limit)
    except runs.DamagedRun as error:
        raise _damaged(reader, batch, str(error)) from error
    if numbering is not None:
        rows = numbering.take(rows)
    if [ranges.key(tree, rows[end]) for end in (0, -1)] != [batch.first, batch.last]:
        raise _damaged(reader, batch, "its first and last ortho are not those that its row names")
    return rows


def _damaged(reader: Reader, batch: Stored, why: str) -> StoreCorrupt:
    name = reader.corpus.name
    return StoreCorrupt(problem=f"batch {batch.id} of corpus '{name}' is damaged ({why}); see 'crochet verify'")
