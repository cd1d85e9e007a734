"""Phrases in order: by length, then by prefix, then by word; and how new ones are put between those that are there.

So the children of a phrase are contiguous and sorted, and the id of a child is its place. New phrases push others on
but never past each other: what is sorted by ids stays sorted. What an insertion costs follows the new phrases, but for
some passes of copying over all of them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from crochet_tasks.engine import kernel, packing
from crochet_tasks.engine.kernel import Index

Ids = npt.NDArray[np.uint32]
"""Phrase ids"""
Refs = npt.NDArray[np.int64]
"""References to phrases while some are inserted: the id of an old one, or ~i: the i-th new one"""


class Order:
    """Phrases in order.

    `levels[n - 1]` is the first id of the phrases of n words; the last level is the number of all phrases. Arrays over
    the phrases, uint32: `parent` (the prefix; of a word itself), `word` (the last word; the id of a word is that of the
    phrase of this one word). `first` (uint32) has one entry more: the children of p are first[p] to first[p + 1] - 1.
    """

    def __init__(self, levels: tuple[int, ...], parent: Ids, word: Ids, first: Ids | None = None) -> None:
        self.levels, self.parent, self.word = levels, parent, word
        self.words = levels[1] if len(levels) > 1 else 0
        self.first: Ids = packing.firsts(parent, self.words) if first is None else first

    @functools.cached_property
    def index(self) -> Index:
        """The same for the kernel."""
        return Index(self.words, self.first, self.word, self.parent)


EMPTY = Order((0,), np.empty(0, np.uint32), np.empty(0, np.uint32))


class Inserted(NamedTuple):
    """An order with new phrases, and where phrases are in it: per old one, and per new one as they were given."""

    order: Order
    moved: Ids
    new: Ids
    places: Places

    def merged(self, old: npt.NDArray[np.int32], new: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Values per phrase, from those per old one and those per new one."""
        return self.places.merged(old.view(np.uint32), new.view(np.uint32)).view(np.int32)


class Places(NamedTuple):
    """Where new phrases are put, in their order: before which old one, and which of the given ones each is."""

    before: Ids
    given: npt.NDArray[np.intp]

    def merged(self, old: Ids, new: Ids, table: Ids | None = None) -> Ids:
        """Values per phrase, as `packing.merged`; those of the new ones as they were given."""
        return packing.merged(old, self.before, new[self.given], table)


def insert(old: Order, ends: tuple[int, ...], parent: Refs, word: Refs, before: Refs) -> Inserted:
    """Put new phrases, given by length, into an order. `ends[n]`: how many of them have n words at most.

    `parent` and `word`: per new phrase; those of words are ignored. The new words are given in their order; `before`:
    how many old words are before each.
    """
    at = np.empty(len(parent), np.int64)  # the old phrase before which each is put
    at[: len(before)] = before
    passed = at.copy()  # the same in the order of the new ones, where …
    place = np.arange(len(parent))  # … they have this place, and are these of the given ones
    given = place.copy()

    def ids(refs: Refs, shorter: int) -> Refs:
        """The ids after the insertion, of phrases among the `shorter` ones: they have their place already."""
        return each(
            refs,
            lambda known: known + np.searchsorted(passed[:shorter], known, side="right"),
            lambda new: at[new] + place[new],
        )

    for low, high in itertools.pairwise(ends[1:]):
        prefix, last = parent[low:high], word[low:high]
        known = prefix >= 0
        following = each(last[known], lambda word: word, at.take)
        level = np.empty(high - low, np.int64)
        level[known] = kernel.places(old.index, prefix[known].astype(np.uint32), following.astype(np.uint32))
        level[~known] = old.first[at[~prefix[~known]]]
        order = packing.ordered(np.stack([ids(prefix, low), ids(last, low)], axis=1).astype(np.uint32))
        place[low + order] = np.arange(low, high)
        given[low:high] = low + order
        at[low:high], passed[low:high] = level, level[order]
    words, places = len(before), Places(passed.astype(np.uint32), given)
    moved = packing.moved(len(old.parent), places.before)
    new = (at + place).astype(np.uint32)
    levels = (_at(old.levels, n) + _at(ends, n) for n in range(max(len(old.levels), len(ends))))

    def brought(refs: Refs) -> Ids:
        values = new.copy()  # of a word: itself
        values[words:] = each(refs[words:], moved.take, new.take)
        return values

    prefixes = brought(parent)
    first = packing.firsts_merged(old.first, places.before, prefixes[given], words)
    parents = places.merged(old.parent, prefixes, moved)
    lasts = places.merged(old.word, brought(word), moved if words else None)
    return Inserted(Order((*levels,), parents, lasts, first), moved, new, places)


def sort(ends: tuple[int, ...], parent: Ids, word: Ids) -> tuple[Order, Ids]:
    """Phrases that are given by length in their order, and which of the given ones each is.

    `ends[n]`: how many have n words at most. `parent`: per phrase, which of the given ones is its prefix (of words it
    is ignored); `word`: which is its last word. The words are given in their order.
    """
    place = np.arange(len(parent), dtype=np.uint32)
    parents, lasts, given = place.copy(), place.copy(), place.copy()
    for low, high in itertools.pairwise(ends[1:]):
        rows = np.stack([place[parent[low:high]], word[low:high], given[low:high]], axis=1)
        parents[low:high], lasts[low:high], given[low:high] = packing.ascending(rows).T
        place[given[low:high]] = np.arange(low, high, dtype=np.uint32)
    return Order(ends, parents, lasts), given


def each(refs: Refs, of_old: Callable[[Refs], Any], of_new: Callable[[Refs], Any]) -> Refs:
    """Elementwise what `of_old` gives for the ids of old phrases and `of_new` for the numbers of new ones."""
    old = refs >= 0
    if not old.any():  # a first text
        return np.asarray(of_new(~refs), np.int64)
    values = np.empty(len(refs), np.int64)
    values[old], values[~old] = of_old(refs[old]), of_new(~refs[~old])
    return values


def _at(levels: tuple[int, ...], n: int) -> int:
    return levels[min(n, len(levels) - 1)]
