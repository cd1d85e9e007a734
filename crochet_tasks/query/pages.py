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
from sqlalchemy import Connection

from crochet_tasks.engine import geometry
from crochet_tasks.engine.geometry import Cells, Halves, Sides, volume
from crochet_tasks.engine.phrases import Longs, PhraseIndex
from crochet_tasks.errors import InvalidCursor
from crochet_tasks.query.batches_cache import Ref, Shown, Sorted, Store
from crochet_tasks.reporting import export

SCANNED_AT_ONCE = 1 << 22
"""orthos that are looked at for one page, about: what is rare takes several pages, some of them empty"""
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
    """What is larger comes first."""

    volume: int
    cells: int

    @classmethod
    def of(cls, sides: Sides) -> Rank:
        return cls(volume(sides), math.prod(sides))


class Position(NamedTuple):
    """Behind which ortho a page begins: a rank and an id in two halves. There need be no such ortho."""

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


class Some(NamedTuple):
    """A few orthos of one shape; `first`: the first halves of their ids."""

    sides: Sides
    first: Halves
    cells: Cells


class Wanted(NamedTuple):
    """What a page is to hold."""

    shape: Sides | None = None
    word: int | None = None
    """the id of a word that the orthos must hold"""
    min_volume: int | None = None

    def shapes(self, every: Sequence[Sides]) -> list[Sides]:
        least = self.min_volume or 0
        return [sides for sides in every if self.shape in (None, sides) and volume(sides) >= least]


class Reader:
    """Reads the pages of one snapshot."""

    def __init__(self, store: Store, connection: Connection, shown: Shown, index: PhraseIndex) -> None:
        self.store = store
        self.connection = connection
        self.shown = shown
        self.index = index

    def page(self, wanted: Wanted, limit: int, after: Position | None) -> tuple[list[FoundOrtho], Position | None]:
        """Up to `limit` orthos behind a position, and where the next page begins: None when nothing is left.

        With a word the page may hold fewer, or none, though more are left: so many orthos are looked at and no more.
        """
        found: list[FoundOrtho] = []
        budget = SCANNED_AT_ONCE
        done = after
        ranked = itertools.groupby(wanted.shapes(list(self.shown.shapes)), Rank.of)
        for rank, shapes in ranked:
            if after is not None and rank > after.rank:
                continue
            position = after if after is not None and rank == after.rank else None
            refs = [ref for sides in shapes for ref in self.shown.shapes[sides]]
            room = limit + 1 - len(found)
            if budget <= 0 and wanted.word is not None:
                return found, done
            some, looked_at, end = self._of_rank(refs, wanted.word, position, room, budget)
            budget -= looked_at
            found += some
            if len(found) > limit:
                return found[:limit], _behind(found[limit - 1])
            if end is not None:
                return found, Position(rank, end, TOP)
            done = Position(rank, TOP, TOP)
        return found, None

    def _of_rank(
        self, refs: list[Ref], word: int | None, after: Position | None, most: int, budget: int
    ) -> tuple[list[FoundOrtho], int, int | None]:
        """The first `most` orthos of one rank behind a position, how many were looked at, and up to which id at most.

        That is None unless there may be more of them behind it.
        """
        size = sum(ref.size for ref in refs)
        low = 0 if after is None else after.first
        end = None
        if word is not None and size * (TOP - low) > budget * TOP:  # ids are spread evenly, so this many lie below it
            end = low + budget * TOP // size
            end = None if end >= TOP else end
        parts: list[Some] = []
        lowest = TOP if end is None else end
        held = looked_at = 0
        for _, batch in self.store.sorted(self.connection, refs, self.index):
            begin = self._begin(batch, after)
            stop = int(np.searchsorted(batch.first, np.uint64(lowest), side="right"))
            part = _taken(batch, begin, stop, word, most)
            looked_at += max(0, stop - begin)
            if len(part.first):
                parts.append(part)
                held += len(part.first)
            if held > 4 * most:
                parts, held = _pruned(parts, most)
                lowest = int(max(part.first.max() for part in parts))
        parts, _ = _pruned(parts, most)
        return self._orthos(parts)[:most], looked_at, end

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

    def _orthos(self, parts: list[Some]) -> list[FoundOrtho]:
        """All of them, ascending by id."""
        found: list[FoundOrtho] = []
        for sides, same in itertools.groupby(sorted(parts, key=lambda part: part.sides), lambda part: part.sides):
            cells = np.concatenate([part.cells for part in same], axis=1)
            found += orthos(self.index, sides, cells)
        return sorted(found, key=lambda ortho: ortho.id)


def orthos(index: PhraseIndex, sides: Sides, cells: Cells) -> Iterator[FoundOrtho]:
    """Orthos of one shape as people see them."""
    ids = geometry.id_texts(geometry.ids(sides, cells, index.hashes))
    versions = export.born(index, sides, cells).tolist()
    vocabulary = index.vocabulary
    for id_, box, born in zip(ids, cells.T.tolist(), versions, strict=True):
        # A box has several words, so itemgetter gives a tuple; it takes a third of the time of a loop.
        yield FoundOrtho(id_, sides, itemgetter(*box)(vocabulary), born)


def _taken(batch: Sorted, begin: int, stop: int, word: int | None, most: int) -> Some:
    """The first `most` orthos of a batch from `begin` on and before `stop` that hold the word."""
    stop = max(begin, stop)
    if word is None:
        places: Longs = np.arange(begin, min(stop, begin + most))
    else:
        places = begin + np.flatnonzero((batch.cells[:, begin:stop] == word).any(axis=0))[:most]
    return Some(batch.sides, batch.first[places], batch.cells[:, places])  # copies: the batch may be let go of


def _pruned(parts: list[Some], most: int) -> tuple[list[Some], int]:
    """The orthos with the `most` lowest first halves, and those that share the last of them; and how many they are."""
    held = sum(len(part.first) for part in parts)
    if held <= most:
        return parts, held
    first = np.concatenate([part.first for part in parts])
    last = np.partition(first, most - 1)[most - 1]
    kept = [
        Some(sides, first[:end], cells[:, :end])
        for sides, first, cells in parts
        if (end := int(np.searchsorted(first, last, side="right")))
    ]
    return kept, sum(len(part.first) for part in kept)


def _behind(ortho: FoundOrtho) -> Position:
    return Position(Rank.of(ortho.sides), int(ortho.id[:16], 16), int(ortho.id[16:], 16))
