"""The phrase index: a corpus' vocabulary and phrase tree as numpy arrays, in the order in which they were born.

A phrase is a node of the tree: its prefix (`parent`) plus its last word. Node 0 is the empty phrase. Node ids grow with
the version, so "the context at version v" is simply `node < limit(v)`. An index is never changed: `extended` makes a
new one that shares what it can, and who holds the old one goes on undisturbed.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]

RECENT = 16
"""one in so many phrases is looked up beside the others"""
NOTHING = np.empty(0, np.int32), np.empty(0, np.int32), 1
_FREE = -1


class Additions(NamedTuple):
    """What a text (or a part of one) brings that an index does not hold yet, ids continuing the index'."""

    words: list[str]
    parent: Ints
    word: Ints


class Sorted(NamedTuple):
    """Nodes to be looked up by prefix and last word."""

    keys: Longs
    """parent << 32 | word, ascending"""
    nodes: Ints

    @classmethod
    def of(cls, parent: Ints, word: Ints, first: int) -> Sorted:
        """Nodes with following numbers, given the first one's."""
        keys = (parent.astype(np.int64) << 32) | word
        order = np.argsort(keys)
        return cls(keys[order], (order + first).astype(np.int32))

    def with_others(self, others: Sorted) -> Sorted:
        place = np.searchsorted(self.keys, others.keys)
        return Sorted(np.insert(self.keys, place, others.keys), np.insert(self.nodes, place, others.nodes))


class PhraseIndex:
    """The vocabulary and phrase tree of a corpus, as texts extend it. (A search reads a `Tree` made of it.)

    `parent`, `word`: int32 arrays over the nodes. `limits[v]`: how many nodes version v has (node 0
    included), so `limits[0] == 1`. There may be nodes past the last limit: those of a text that is
    being ingested and is not a version yet.
    """

    def __init__(self) -> None:
        self.vocabulary: list[str] = []
        self.parent: Ints = np.zeros(1, np.int32)
        self.word: Ints = np.full(1, -1, np.int32)
        self.limits: tuple[int, ...] = (1,)

    @property
    def version(self) -> int:
        return len(self.limits) - 1

    @property
    def nodes(self) -> int:
        return len(self.parent)

    @property
    def bytes(self) -> int:
        """About what it takes at most: 8 bytes per phrase, 12 more where phrases were looked up, and the words."""
        return 20 * self.nodes + 300 * len(self.vocabulary)

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
            found = self.find(node, text).astype(np.int64)
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

    def extended(self, added: Additions, limits: Sequence[int] | None = None) -> PhraseIndex:
        """This index and `added`; `limits`, where given, replaces the limits (one more version, say)."""
        index = PhraseIndex()
        index.vocabulary = self.vocabulary + added.words if added.words else self.vocabulary
        index.limits = self.limits if limits is None else tuple(limits)
        index.parent = np.concatenate([self.parent, added.parent])
        index.word = np.concatenate([self.word, added.word])
        kept = self.__dict__
        if not added.words:  # nothing to sort or hash again
            index.__dict__.update({name: kept[name] for name in ("rank", "_ids") if name in kept})
        elif "_ids" in kept:
            first = len(self.vocabulary)
            index.__dict__["_ids"] = self._ids | {word: first + number for number, word in enumerate(added.words)}
        if "_sorted" in kept:
            most, recent = self._sorted
            new = Sorted.of(added.parent, added.word, self.nodes)
            if len(recent.keys) + len(new.keys) <= index.nodes // RECENT:
                index.__dict__["_sorted"] = most, recent.with_others(new)
            else:
                index.__dict__["_sorted"] = most.with_others(recent.with_others(new)), Sorted.of(*NOTHING)
        return index

    def closed(self) -> PhraseIndex:
        """This index with everything in it made a version."""
        nothing = Additions([], np.empty(0, np.int32), np.empty(0, np.int32))
        return self.extended(nothing, (*self.limits, self.nodes))

    # ── reading ─────────────────────────────────────────────────────────────────────────────

    def number(self, word: str) -> int:
        """The id of a word; -1 where it is none of the vocabulary."""
        return self._ids.get(word, _FREE)

    def numbers(self, words: Sequence[str]) -> Ints:
        """The ids of many words; -1 as above."""
        return np.fromiter(map(self._ids.get, words, itertools.repeat(_FREE)), np.int32, len(words))

    def find(self, node: npt.NDArray[np.integer], word: npt.NDArray[np.integer]) -> Ints:
        """The phrase made of the phrase `node` and then `word`, elementwise; -1 where there is none."""
        key = (node.astype(np.int64) << 32) | word.astype(np.int64)
        found = np.full(len(node), _FREE, np.int32)
        for keys, nodes in self._sorted:
            if len(keys):
                place = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
                found = np.where(keys[place] == key, nodes[place], found)
        return found

    @functools.cached_property
    def _sorted(self) -> tuple[Sorted, Sorted]:
        """All nodes but 0, made when first needed, and recent ones beside them, so that few are copied per text."""
        return Sorted.of(self.parent[1:], self.word[1:], 1), Sorted.of(*NOTHING)

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.vocabulary)}

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
    def rank(self) -> Ints:
        """Per word: its place in code-point order."""
        rank = np.empty(len(self.vocabulary), np.int32)
        rank[sorted(range(len(self.vocabulary)), key=self.vocabulary.__getitem__)] = np.arange(len(rank))
        return rank

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
