"""The phrase index: a corpus' vocabulary and phrase tree as numpy arrays.

A phrase is a node of the tree: its prefix (`parent`) plus its last word. Node 0 is the empty
phrase. Node ids are handed out in the order of birth, so "the context at version v" is simply
`node < limit(v)`. An index is never changed: `extended` makes a new one that shares what it can,
and a search that holds the old one goes on undisturbed.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: the top bits of key * 2^64/phi are well mixed
_FREE = -1


class Additions(NamedTuple):
    """What a text (or a part of one) brings that an index does not hold yet, ids continuing the index'."""

    words: list[str]
    parent: Ints
    word: Ints


@dataclass(frozen=True)
class Lists:
    """A bundle of word lists, one per node: those of `node` lie at `start[node]`, `count[node]` of them."""

    start: Longs
    count: Ints
    word: Ints
    phrase: Ints
    """the phrase that the node's line makes with the word at the same place"""

    def expand(self, node: Ints) -> tuple[Longs, Longs]:
        """All entries of the nodes' lists, in order: (place in `word` and `phrase`, position in `node`)."""
        count = self.count.take(node)
        place = np.repeat(self.start.take(node) - (np.cumsum(count) - count), count)
        place += np.arange(len(place))
        return place, np.repeat(np.arange(len(node)), count)

    def union(self, bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Per node: `bits` of all words in its list, or-ed."""
        filled = np.flatnonzero(self.count)
        union = np.zeros(len(self.count), np.uint64)
        union[filled] = np.bitwise_or.reduceat(bits.take(self.word), self.start.take(filled))
        return union


class PhraseIndex:
    """The vocabulary and phrase tree of a corpus, ready to be searched.

    `parent`, `word`: int32 arrays over the nodes. `limits[v]`: how many nodes version v has (node 0
    included), so `limits[0] == 1`. There may be nodes past the last limit: those of a text that is
    being ingested and is not a version yet.
    """

    def __init__(self) -> None:
        self.vocabulary: list[str] = []
        self.parent: Ints = np.zeros(1, np.int32)
        self.word: Ints = np.full(1, -1, np.int32)
        self.limits: tuple[int, ...] = (1,)
        self._ids: dict[str, int] = {}
        self._key: Longs = np.empty(0, np.int64)  # parent << 32 | word of all nodes but 0, sorted …
        self._node: Ints = np.empty(0, np.int32)  # … and whose they are
        self._table = _HashTable.empty()

    @property
    def version(self) -> int:
        return len(self.limits) - 1

    @property
    def nodes(self) -> int:
        return len(self.parent)

    @property
    def bytes(self) -> int:
        """About what it takes: arrays of 8 bytes and the table (12 bytes in 4 to 8 slots) per phrase, words."""
        return 100 * self.nodes + 300 * len(self.vocabulary)

    @property
    def cell_type(self) -> type[np.uint16 | np.uint32]:
        """The type of word ids in cells: two bytes while the vocabulary fits."""
        return np.uint16 if len(self.vocabulary) <= 1 << 16 else np.uint32

    # ── growing ─────────────────────────────────────────────────────────────────────────────

    def additions(self, sentences: Iterable[Sequence[str]], max_side: int) -> Additions:
        """The words and the phrases of up to `max_side` words in `sentences` that are not in the index.

        Works length by length: all phrases of n words are looked up at once, and what is missing
        gets its ids before the phrases of n + 1 words are looked at.
        """
        words, ids = self._word_ids(sentences)
        after = np.concatenate([ids[1:], [_FREE]])  # the word that follows in the sentence, _FREE at its end
        following = np.flatnonzero(ids != _FREE)
        text = ids[following].astype(np.int64)
        node = np.zeros(len(following), np.int64)
        parents: list[Longs] = []
        lasts: list[Longs] = []
        next_node = self.nodes
        for _ in range(max_side):
            found = self._table.find(node, text)
            missing = found == _FREE
            keys, place = np.unique((node[missing] << 32) | text[missing], return_inverse=True)
            found[missing] = next_node + place
            parents.append(keys >> 32)
            lasts.append(keys & 0xFFFFFFFF)
            next_node += len(keys)
            going_on = after[following] != _FREE
            following = following[going_on] + 1
            node, text = found[going_on].astype(np.int64), ids[following].astype(np.int64)
            if not len(following):
                break
        parent = np.concatenate(parents) if parents else np.empty(0, np.int64)
        word = np.concatenate(lasts) if lasts else np.empty(0, np.int64)
        return Additions(words, parent.astype(np.int32), word.astype(np.int32))

    def _word_ids(self, sentences: Iterable[Sequence[str]]) -> tuple[list[str], Longs]:
        """The new words, and the ids of all words in reading order with a `_FREE` after every sentence."""
        known, new = self._ids, dict[str, int]()
        first = len(self.vocabulary)
        ids: list[int] = []
        for sentence in sentences:
            for word in sentence:
                found = known.get(word)
                ids.append(new.setdefault(word, first + len(new)) if found is None else found)
            ids.append(_FREE)
        return list(new), np.array(ids, np.int64)

    def extended(self, added: Additions, limits: Sequence[int] | None = None, *, sharing: bool = False) -> PhraseIndex:
        """This index and `added`; `limits`, where given, replaces the limits (one more version, say).

        With `sharing` the table in which phrases are found is not copied but grown, where there is room: from then on
        this index finds those of the later one, too, numbered from its own `nodes` on. That is for who asks for the
        phrases of a version only, and leaves out what its limit says; threads may do so meanwhile.
        """
        index = PhraseIndex()
        index.vocabulary = self.vocabulary + added.words
        index._ids = self._ids if not added.words else {word: i for i, word in enumerate(index.vocabulary)}
        index.limits = self.limits if limits is None else tuple(limits)
        index.parent = np.concatenate([self.parent, added.parent])
        index.word = np.concatenate([self.word, added.word])
        if len(index.vocabulary) == len(self.vocabulary):  # nothing to sort or hash again
            index.__dict__.update({k: self.__dict__[k] for k in ("rank", "hashes") if k in self.__dict__})
        key = (added.parent.astype(np.int64) << 32) | added.word
        node = np.arange(self.nodes, index.nodes, dtype=np.int32)
        order = np.argsort(key)
        place = np.searchsorted(self._key, key[order])
        index._key = np.insert(self._key, place, key[order])
        index._node = np.insert(self._node, place, node[order])
        index._table = self._table.with_keys(key, node, index._key, index._node, sharing=sharing)
        return index

    def closed(self) -> PhraseIndex:
        """This index with everything in it made a version."""
        nothing = Additions([], np.empty(0, np.int32), np.empty(0, np.int32))
        return self.extended(nothing, (*self.limits, self.nodes))

    # ── reading ─────────────────────────────────────────────────────────────────────────────

    def number(self, word: str) -> int:
        """The id of a word; -1 where it is none of the vocabulary."""
        return self._ids.get(word, _FREE)

    def find(self, node: npt.NDArray[np.integer], word: npt.NDArray[np.integer]) -> Ints:
        """The phrase made of the phrase `node` and then `word`, elementwise; -1 where there is none."""
        return self._table.find(node.astype(np.int64), word.astype(np.int64))

    def hits(self, node: Ints, word: Ints) -> tuple[Longs, Ints]:
        """Where `node` + `word` is a phrase, and which one: (positions, phrases)."""
        return self._table.hits(node, word)

    @functools.cached_property
    def after(self) -> Lists:
        """Per node: the words that continue its phrase, sorted by word id."""
        return _lists(self._key >> 32, self._key & 0xFFFFFFFF, self._node, self.nodes)

    @functools.cached_property
    def before(self) -> Lists:
        """Per word: the words that it follows, sorted by word id (pairs only)."""
        pair = np.flatnonzero((self.parent > 0) & (self.parent[self.parent] == 0))
        first, last = self.word[self.parent[pair]].astype(np.int64), self.word[pair].astype(np.int64)
        order = np.argsort((last << 32) | first)
        return _lists(last[order], first[order], pair[order].astype(np.int32), len(self.vocabulary))

    @functools.cached_property
    def length(self) -> npt.NDArray[np.int16]:
        """Per node: how many words its phrase has."""
        length = np.zeros(self.nodes, np.int16)
        going_on = self.parent.copy()
        going_on[0] = -1
        while (more := going_on >= 0).any():
            length[more] += 1
            going_on[more] = np.where(going_on[more] > 0, self.parent[going_on[more]], -1)
        return length

    @functools.cached_property
    def single(self) -> Ints:
        """Per word: the phrase of that one word."""
        lists = self.after
        single = np.empty(len(self.vocabulary), np.int32)
        ones = slice(int(lists.start[0]), int(lists.start[0]) + int(lists.count[0]))
        single[lists.word[ones]] = lists.phrase[ones]
        return single

    @functools.cached_property
    def rank(self) -> Ints:
        """Per word: its place in code-point order."""
        rank = np.empty(len(self.vocabulary), np.int32)
        rank[sorted(range(len(self.vocabulary)), key=self.vocabulary.__getitem__)] = np.arange(len(rank))
        return rank

    @functools.cached_property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """Per word: 128 bits of its UTF-8 form (BLAKE2b) as two numbers, shape (2, words)."""
        digests = b"".join(hashlib.blake2b(word.encode(), digest_size=16).digest() for word in self.vocabulary)
        return np.frombuffer(digests, "<u8").reshape(-1, 2).T.copy()

    def phrase(self, node: int) -> tuple[str, ...]:
        """The words of one phrase, for people and messages."""
        words: list[str] = []
        while node:
            words.append(self.vocabulary[self.word[node]])
            node = int(self.parent[node])
        return tuple(reversed(words))


def index_of(texts: Iterable[Iterable[Sequence[str]]], max_side: int) -> PhraseIndex:
    """The index of a corpus whose versions are `texts`, each given as its sentences."""
    return functools.reduce(
        lambda index, text: index.extended(index.additions(text, max_side)).closed(), texts, PhraseIndex()
    )


def _lists(owner: Longs, word: Longs, phrase: Ints, owners: int) -> Lists:
    """Lists over entries that are sorted by owner."""
    count = np.bincount(owner, minlength=owners).astype(np.int32)
    return Lists(np.cumsum(count, dtype=np.int64) - count, count, word.astype(np.int32), phrase)


@dataclass(frozen=True)
class _HashTable:
    """Open addressing with linear probing, filled and asked a whole array at a time.

    A binary search over 10^5 keys costs 126 ns a look-up in numpy, this table 8 to 18 (docs/adr/0003).
    `seen` has a byte per slot of a wider table: most look-ups of a search fail, and one byte says so.
    """

    key: Longs
    node: Ints
    seen: Bools

    @classmethod
    def empty(cls) -> _HashTable:
        return cls(np.full(64, _FREE, np.int64), np.full(64, _FREE, np.int32), np.zeros(128, np.bool_))

    def with_keys(
        self, key: Longs, node: Ints, all_keys: Longs, all_nodes: Ints, *, sharing: bool = False
    ) -> _HashTable:
        """A table that also holds `key`; made anew from `all_keys` where it would become too full.

        With `sharing` it is this one otherwise. Who looks for an earlier key meanwhile finds it: its slot does not
        change, and the slots before it were taken already.
        """
        if 2 * len(all_keys) <= len(self.key):
            table = self if sharing else _HashTable(self.key.copy(), self.node.copy(), self.seen.copy())
            table.fill(key, node)
        else:
            slots = 1 << (4 * len(all_keys)).bit_length()
            table = _HashTable(
                np.full(slots, _FREE, np.int64), np.full(slots, _FREE, np.int32), np.zeros(2 * slots, np.bool_)
            )
            table.fill(all_keys, all_nodes)
        return table

    def fill(self, key: Longs, node: Ints) -> None:
        slot = _slots(key, len(self.key))
        self.seen[_slots(key, len(self.seen))] = True
        todo = np.arange(len(key))
        while len(todo):
            free = todo[self.key[slot[todo]] == _FREE]
            self.key[slot[free]] = key[free]  # of several keys for one slot the last one stays …
            self.node[slot[free]] = node[free]
            todo = todo[self.key[slot[todo]] != key[todo]]  # … and the others move on
            slot[todo] = (slot[todo] + 1) & (len(self.key) - 1)

    def find(self, node: Longs, word: Longs) -> Ints:
        key = (node << 32) | word
        slot = _slots(key, len(self.key))
        there = self.key.take(slot)
        found = np.where(there == key, self.node.take(slot), np.int32(_FREE))
        left = np.flatnonzero((there != key) & (there != _FREE))
        while len(left):
            slot[left] = (slot[left] + 1) & (len(self.key) - 1)
            there = self.key.take(slot[left])
            hit = there == key[left]
            found[left[hit]] = self.node.take(slot[left[hit]])
            left = left[~hit & (there != _FREE)]
        return found

    def hits(self, node: Ints, word: Ints) -> tuple[Longs, Ints]:
        key = (node.astype(np.int64) << 32) | word
        likely = np.flatnonzero(self.seen.take(_slots(key, len(self.seen))))
        key = key.take(likely)
        found = self.find(key >> 32, key & 0xFFFFFFFF)
        real = np.flatnonzero(found != _FREE)
        return likely.take(real), found.take(real)


def _slots(key: Longs, slots: int) -> Longs:
    """Per key: its slot in a table of `slots` (a power of two) slots."""
    return ((key.view(np.uint64) * _GOLDEN) >> np.uint64(65 - slots.bit_length())).view(np.int64)
