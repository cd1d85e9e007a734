"""Pages of orthos, best first: volume, then cells, then id; merged from batches that are each sorted by id."""

from __future__ import annotations

import functools
import itertools
import math
import struct
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from crochet_tasks.db import Connection
from crochet_tasks.engine import geometry
from crochet_tasks.engine.geometry import Cells, Halves, Sides, volume
from crochet_tasks.engine.phrases import Longs, PhraseIndex
from crochet_tasks.errors import InvalidCursor
from crochet_tasks.query.batches_cache import BatchList, Ref, Sorted, Store
from crochet_tasks.reporting import export

SCANNED_AT_ONCE = 1 << 22
"""about so many orthos are scanned for one page: a rare word takes several pages, some of them empty"""
TOP = (1 << 64) - 1


class FoundOrtho(NamedTuple):
    """One ortho: its words in canonical form, row-major, and the version since which it exists."""

    id: str
    sides: Sides
    words: tuple[str, ...]
    born: int

    @property
    def volume(self) -> int:
        return _volume(self.sides)


_volume = functools.lru_cache(4096)(volume)


class Rank(NamedTuple):
    """Rank of a shape: orthos of a larger rank come first."""

    volume: int
    cells: int

    @classmethod
    def of(cls, sides: Sides) -> Rank:
        return cls(volume(sides), math.prod(sides))


class Position(NamedTuple):
    """A page begins behind this position: a rank and an id in two halves. There need be no such ortho."""

    rank: Rank
    first: int
    second: int

    def packed(self) -> bytes:
        return _POSITION.pack(*self.rank, self.first, self.second)

    @classmethod
    def unpacked(cls, value: bytes) -> Position:
        try:
            volume, cells, first, second = _POSITION.unpack(value)
        except struct.error:
            raise InvalidCursor from None
        return cls(Rank(volume, cells), first, second)


_POSITION = struct.Struct(">IIQQ")


class BatchSlice(NamedTuple):
    """Some orthos of one batch; `first`: the first halves of their ids."""

    sides: Sides
    first: Halves
    cells: Cells


class OrthoQuery(NamedTuple):
    """Which orthos a page may contain."""

    shape: Sides | None = None
    word: int | None = None
    """the id of a word that the orthos must contain"""
    min_volume: int | None = None

    def shapes(self, every: Sequence[Sides]) -> list[Sides]:
        least = self.min_volume or 0
        return [sides for sides in every if self.shape in (None, sides) and volume(sides) >= least]


class Reader:
    """Reads the pages of one snapshot."""

    def __init__(self, store: Store, connection: Connection, batch_list: BatchList, index: PhraseIndex) -> None:
        self.store = store
        self.connection = connection
        self.batches = batch_list
        self.index = index

    def page(self, query: OrthoQuery, limit: int, after: Position | None) -> tuple[list[FoundOrtho], Position | None]:
        """Up to `limit` orthos behind a position, and where the next page begins: None when nothing is left.

        With a word the page may have fewer or none although more are left: it scans SCANNED_AT_ONCE orthos at most.
        """
        found: list[FoundOrtho] = []
        budget = SCANNED_AT_ONCE
        done = after
        ranked = itertools.groupby(query.shapes(list(self.batches.shapes)), Rank.of)
        for rank, shapes in ranked:
            if after is not None and rank > after.rank:
                continue
            position = after if after is not None and rank == after.rank else None
            refs = [ref for sides in shapes for ref in self.batches.shapes[sides]]
            room = limit + 1 - len(found)
            if budget <= 0 and query.word is not None:
                return found, done
            some, scanned, end = self._of_rank(refs, query.word, position, room, budget)
            budget -= scanned
            found += some
            if len(found) > limit:
                return found[:limit], _position_of(found[limit - 1])
            if end is not None:
                return found, Position(rank, end, TOP)
            done = Position(rank, TOP, TOP)
        return found, None

    def _of_rank(
        self, refs: list[Ref], word: int | None, after: Position | None, most: int, budget: int
    ) -> tuple[list[FoundOrtho], int, int | None]:
        """The first `most` orthos of one rank behind a position, how many were scanned, and up to which id.

        The id is None if the whole rank was scanned.
        """
        size = sum(ref.size for ref in refs)
        low = 0 if after is None else after.first
        end = None
        if word is not None and size * (TOP - low) > budget * TOP:  # ids are spread evenly, so this many lie below it
            end = low + budget * TOP // size
            end = None if end >= TOP else end
        parts: list[BatchSlice] = []
        lowest = TOP if end is None else end
        number = scanned = 0
        for _, batch in self.store.sorted(self.connection, refs, self.index):
            begin = self._begin(batch, after)
            stop = int(np.searchsorted(batch.first, np.uint64(lowest), side="right"))
            part = _slice(batch, begin, stop, word, most)
            scanned += max(0, stop - begin)
            if len(part.first):
                parts.append(part)
                number += len(part.first)
            if number > 4 * most:
                parts, number = _lowest(parts, most)
                lowest = int(max(part.first.max() for part in parts))
        parts, _ = _lowest(parts, most)
        return self._orthos(parts)[:most], scanned, end

    def _begin(self, batch: Sorted, after: Position | None) -> int:
        """The place of the first ortho behind a position."""
        if after is None:
            return 0
        first = np.uint64(after.first)
        begin = int(np.searchsorted(batch.first, first))
        end = int(np.searchsorted(batch.first, first, side="right"))
        if begin == end:
            return begin
        second = batch.ids(slice(begin, end), self.index.hashes)[:, 1]
        return begin + int(np.searchsorted(second, np.uint64(after.second), side="right"))

    def _orthos(self, parts: list[BatchSlice]) -> list[FoundOrtho]:
        """The orthos of all parts, ascending by id."""
        found: list[FoundOrtho] = []
        for sides, same in itertools.groupby(sorted(parts, key=lambda part: part.sides), lambda part: part.sides):
            cells = np.concatenate([part.cells for part in same], axis=1)
            found += orthos(self.index, sides, cells)
        return sorted(found, key=lambda ortho: ortho.id)


def orthos(index: PhraseIndex, sides: Sides, cells: Cells) -> Iterator[FoundOrtho]:
    """Orthos of one shape, with words instead of word ids."""
    ids = geometry.id_texts(geometry.ids(sides, cells, index.hashes))
    versions = export.born(index, sides, cells).tolist()
    vocabulary = index.vocabulary
    for id_, box, born in zip(ids, cells.T.tolist(), versions, strict=True):
        # A box has several words, so itemgetter gives a tuple; it takes a third of the time of a loop.
        yield FoundOrtho(id_, sides, itemgetter(*box)(vocabulary), born)


def _slice(batch: Sorted, begin: int, stop: int, word: int | None, most: int) -> BatchSlice:
    """The first `most` orthos of a batch in [begin, stop) that contain the word."""
    stop = max(begin, stop)
    if word is None:
        places: Longs = np.arange(begin, min(stop, begin + most))
    else:
        places = begin + np.flatnonzero((batch.cells[:, begin:stop] == word).any(axis=0))[:most]
    return BatchSlice(batch.sides, batch.first[places], batch.cells[:, places])  # copies, so the batch can be evicted


def _lowest(parts: list[BatchSlice], most: int) -> tuple[list[BatchSlice], int]:
    """The orthos with the `most` lowest first halves, and those that share the last of them; and how many they are."""
    number = sum(len(part.first) for part in parts)
    if number <= most:
        return parts, number
    first = np.concatenate([part.first for part in parts])
    last = np.partition(first, most - 1)[most - 1]
    kept = [
        BatchSlice(sides, first[:end], cells[:, :end])
        for sides, first, cells in parts
        if (end := int(np.searchsorted(first, last, side="right")))
    ]
    return kept, sum(len(part.first) for part in kept)


def _position_of(ortho: FoundOrtho) -> Position:
    return Position(Rank.of(ortho.sides), int(ortho.id[:16], 16), int(ortho.id[16:], 16))
