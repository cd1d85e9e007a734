"""The phrases of one version, numbered by length and then by alphabet: what a search reads and a batch refers to.

Numbered so, the children of a phrase are contiguous and sorted, the id of a child is its place, and comparing ids of
phrases of one length compares their words. The numbering of one version is renumbered in the next by one table that
keeps the order (`numbering`), so what is sorted stays sorted.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crochet_tasks.engine.kernel import Index
from crochet_tasks.engine.phrases import PhraseIndex

Ids = npt.NDArray[np.uint32]
"""Phrase ids"""
Hashes = npt.NDArray[np.uint64]

HASH_SEED = np.uint64(0x9E3779B97F4A7C15)


class Tree:
    """The phrases of a version.

    A word's id is its place among the `words` of the version in code-point order, and the id of the phrase of that one
    word. Arrays over the phrases: `parent` (uint32, the prefix; of a word itself), `word` (uint32, the last word),
    `node` (int32, its number in the PhraseIndex, which is how the database knows it), `born` (int32, the version that
    brought it). `first` (uint32) has one entry more: the children of p are first[p] to first[p + 1] - 1.
    `levels[n - 1]` is the first id of the phrases of n words; the last level is the number of all phrases.
    """

    def __init__(
        self, words: list[str], node: npt.NDArray[np.int32], levels: tuple[int, ...], index: PhraseIndex
    ) -> None:
        self.words, self.node, self.levels = words, node, levels
        id_of = np.zeros(int(node.max(initial=0)) + 1, np.uint32)
        id_of[node] = np.arange(len(node), dtype=np.uint32)
        self._id_of = id_of
        self.parent: Ids = id_of[index.parent[node]]
        self.word: Ids = np.empty(len(node), np.uint32)
        self.word[: len(words)] = self.parent[: len(words)] = np.arange(len(words))
        place = np.empty(len(index.vocabulary), np.uint32)
        place[index.word[node[: len(words)]]] = np.arange(len(words))
        self.word[len(words) :] = place[index.word[node[len(words) :]]]
        children = np.bincount(self.parent[len(words) :], minlength=len(node))
        self.first: Ids = np.empty(len(node) + 1, np.uint32)
        self.first[0] = len(words)
        np.cumsum(children, out=self.first[1:], dtype=np.uint32)
        self.first[1:] += np.uint32(len(words))
        limits = np.array(index.limits)
        self.born = np.searchsorted(limits, node, side="right").astype(np.int32)

    @classmethod
    def of(cls, index: PhraseIndex, version: int) -> Tree:
        """The tree of a version that the index has."""
        limit = index.limits[version]
        parent, word = index.parent[:limit], index.word[:limit]
        depth = index.length[:limit]
        id_of = np.zeros(limit, np.int64)
        by_depth = np.argsort(depth, kind="stable")[1:]  # without node 0, the empty phrase
        ends = np.searchsorted(depth[by_depth], np.arange(1, depth.max(initial=0) + 1), side="right")
        nodes: list[npt.NDArray[np.int32]] = []
        begin = 0
        for end in ends.tolist():
            level = by_depth[begin:end]
            order = np.argsort((id_of[parent[level]] << 32) | index.rank[word[level]])
            nodes.append(level[order].astype(np.int32))
            id_of[nodes[-1]] = np.arange(begin, end)
            begin = end
        node = np.concatenate(nodes) if nodes else np.empty(0, np.int32)
        words = [index.vocabulary[index.word[one]] for one in nodes[0]] if nodes else []
        tree = cls(words, node, (0, *ends.tolist()), index)
        tree.version = version
        return tree

    version: int = 0

    @property
    def size(self) -> int:
        """How many phrases there are."""
        return len(self.node)

    @property
    def bytes(self) -> int:
        """About what it takes in memory, its indexes for the kernel included."""
        return 60 * self.size + 200 * len(self.words) + self.ahead.bytes

    # ── for the kernel ──────────────────────────────────────────────────────────────────────

    @functools.cached_property
    def ahead(self) -> Index:
        """Which words come after a phrase."""
        return Index(len(self.words), self.first, self.word, self.parent)

    @functools.cached_property
    def pairs_before(self) -> Index:
        """Which words come before a word."""
        words = len(self.words)
        low, high = self.levels[1:3] if len(self.levels) > 2 else (words, words)
        order = np.argsort((self.word[low:high].astype(np.int64) << 32) | self.parent[low:high])
        last, word = self.word[low:high][order], self.parent[low:high][order]
        singles = self.parent[:words]
        first = np.concatenate([[0], np.cumsum(np.bincount(last, minlength=high))]) + words
        return Index(words, first.astype(np.uint32), np.concatenate([singles, word]), np.concatenate([singles, last]))

    @functools.cached_property
    def suffix(self) -> Ids:
        """Per phrase: the phrase without its first word; of a word itself."""
        suffix = np.arange(self.size, dtype=np.uint32)
        for n in range(1, len(self.levels) - 1):
            level = slice(self.levels[n], self.levels[n + 1])
            if n == 1:
                suffix[level] = self.word[level]
            else:
                suffix[level] = self.children(suffix[self.parent[level]], self.word[level])
        return suffix

    def children(self, phrases: Ids, words: Ids) -> Ids:
        """The phrases that continue these by these words, elementwise; all of one length; 0 where there is none."""
        if not len(phrases):
            return phrases
        n = int(np.searchsorted(self.levels, phrases[0], side="right"))
        if n + 1 >= len(self.levels):
            return np.zeros(len(phrases), np.uint32)
        low, high = self.levels[n], self.levels[n + 1]
        keys = self._keys[low:high]
        wanted = (phrases.astype(np.int64) << 32) | words
        at = np.minimum(np.searchsorted(keys, wanted), high - low - 1)
        return np.where(keys[at] == wanted, at + low, 0).astype(np.uint32)

    @functools.cached_property
    def _keys(self) -> npt.NDArray[np.int64]:
        """Per phrase its prefix and last word as one number; ascending within a length."""
        keys: npt.NDArray[np.int64] = (self.parent.astype(np.int64) << 32) | self.word
        return keys

    @functools.cached_property
    def backward(self) -> Backward:
        return Backward(self)

    # ── for readers ─────────────────────────────────────────────────────────────────────────

    def numbering(self, version: int) -> Ids:
        """Per phrase of an older version's tree, in its order: the id here. Ascending."""
        if version == self.version:
            return np.arange(self.size, dtype=np.uint32)
        return np.flatnonzero(self.born <= version).astype(np.uint32)

    def levels_at(self, version: int) -> tuple[int, ...]:
        """`levels` of an older version's tree."""
        if version == self.version:
            return self.levels
        before = np.concatenate([[0], np.cumsum(self.born <= version)])
        return tuple(before[list(self.levels)].tolist())

    def id_of(self, node: npt.NDArray[np.integer]) -> Ids:
        """The ids of nodes of the PhraseIndex, all of this version."""
        ids: Ids = self._id_of[node]
        return ids

    def number(self, word: str) -> int:
        """The id of a word; -1 where the version has no such word."""
        return self._numbers.get(word, -1)

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def find(self, words: Sequence[str]) -> int:
        """The id of a phrase; -1 where there is no such phrase."""
        numbers = [self.number(word) for word in words]
        if not numbers or -1 in numbers:
            return -1
        phrase = numbers[0]
        for word in numbers[1:]:
            low, high = int(self.first[phrase]), int(self.first[phrase + 1])
            phrase = low + int(np.searchsorted(self.word[low:high], word))
            if phrase == high or self.word[phrase] != word:
                return -1
        return phrase

    def phrase(self, number: int) -> tuple[str, ...]:
        """The words of a phrase."""
        words: list[str] = []
        while number >= len(self.words):
            words.append(self.words[self.word[number]])
            number = int(self.parent[number])
        return (*reversed([*words, self.words[number]]),)

    def length(self, number: int) -> int:
        """How many words a phrase has."""
        return int(np.searchsorted(self.levels, number, side="right"))

    @functools.cached_property
    def word_hashes(self) -> Hashes:
        """Per word: 128 bits of its UTF-8 form (BLAKE2b) as two numbers, shape (2, words)."""
        return np.array([word_hash(word) for word in self.words], np.uint64).reshape(-1, 2).T.copy()

    @functools.cached_property
    def hashes(self) -> Hashes:
        """Per phrase: 64 bits of its words, one after the other: the first half of ids (runs.py)."""
        hashes = np.empty(self.size, np.uint64)
        for n, low in enumerate(self.levels[:-1]):
            level = slice(low, self.levels[n + 1])
            state = np.full(self.levels[n + 1] - low, HASH_SEED) if n == 0 else hashes[self.parent[level]]
            hashes[level] = stir(state, self.word_hashes[0].take(self.word[level]))
        return hashes


class Backward:
    """The phrases read from their last word to their first, numbered in the same way: which words come before a phrase.

    `ids[p]`: the number here of phrase p; `phrases[b]`: the phrase with number b.
    """

    def __init__(self, tree: Tree) -> None:
        words = len(tree.words)
        first_word = np.arange(tree.size, dtype=np.uint32)
        self.ids: Ids = np.arange(tree.size, dtype=np.uint32)
        self.phrases: Ids = np.arange(tree.size, dtype=np.uint32)
        for n in range(1, len(tree.levels) - 1):
            low, high = tree.levels[n], tree.levels[n + 1]
            first_word[low:high] = first_word[tree.parent[low:high]]
            before = self.ids[tree.suffix[low:high]].astype(np.int64)
            order = np.argsort((before << 32) | first_word[low:high])
            self.phrases[low:high] = low + order
            self.ids[low + order] = np.arange(low, high)
        parent = self.ids[tree.suffix[self.phrases]]
        word = first_word[self.phrases]
        children = np.bincount(parent[words:], minlength=tree.size)
        first = np.concatenate([[words], words + np.cumsum(children)]).astype(np.uint32)
        self.index = Index(words, first, word, parent)


def word_hash(word: str) -> Hashes:
    """128 bits of a word's UTF-8 form (BLAKE2b) as two numbers."""
    return np.frombuffer(hashlib.blake2b(word.encode(), digest_size=16).digest(), "<u8").astype(np.uint64)


def stir(state: Hashes, value: Hashes | np.uint64) -> Hashes:
    """Mix a value into hashes: multiply-xor-shift steps (the finaliser of MurmurHash3's 64-bit mix, after Appleby).

    It is made to tell orthos apart, not to withstand an attacker who looks for a collision.
    """
    state = state ^ value
    state ^= state >> np.uint64(33)
    state *= np.uint64(0xFF51AFD7ED558CCD)
    state ^= state >> np.uint64(29)
    state *= np.uint64(0xC4CEB9FE1A85EC53)
    state ^= state >> np.uint64(32)
    return state
