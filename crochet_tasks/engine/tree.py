"""The phrases of one version, numbered by length and then by alphabet: what a search reads and a batch refers to.

Numbered so (order.py), comparing ids of phrases of one length compares their words. The numbering of one version is
translated to the next by one table that keeps the order (`numbering`), so what is sorted stays sorted.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crochet_tasks.engine import kernel, packing
from crochet_tasks.engine.kernel import Index
from crochet_tasks.engine.order import EMPTY, Ids, Inserted, Order, Refs, each, insert, sort
from crochet_tasks.engine.phrases import Ints, PhraseIndex

Hashes = npt.NDArray[np.uint64]

FEW = 8
"""to translate ids one by one takes less than a table of all, for one in so many of them"""
YOUNGER = 16
"""versions of which is kept what is younger: batches that are read together are of few versions"""
HASH_SEED = np.uint64(0x9E3779B97F4A7C15)


class Tree:
    """The phrases of a version.

    A word's id is its place among the `words` of the version in code-point order. `parent`, `word`, `first` and
    `levels` are those of its Order. `node` (int32, per phrase): its number in the PhraseIndex, by which the database
    knows it. `limits`: those of the PhraseIndex up to the version.
    """

    def __init__(self, limits: tuple[int, ...], words: list[str], order: Order, node: Ints) -> None:
        self.version, self.limits, self.words, self.order, self.node = len(limits) - 1, limits, words, order, node
        self.levels, self.parent, self.word, self.first = order.levels, order.parent, order.word, order.first
        self._older: tuple[Backward, Inserted] | None = None
        self._younger: dict[int, Ids] = {}

    @classmethod
    def of(cls, index: PhraseIndex, version: int, older: Tree | None = None) -> Tree:
        """The tree of a version that the index has; in less time with the tree of an `older` version of it."""
        old = older or cls((1,), [], EMPTY, np.empty(0, np.int32))
        began, limit = old.size + 1, index.limits[version]
        prefix, last = index.parent[began:limit], index.word[began:limit]
        refs = np.zeros(len(index.vocabulary), np.int64)
        refs[index.word[old.node[: len(old.words)]]] = np.arange(len(old.words))
        known = (prefix > 0) & (prefix < began)
        there = old.some_ids_of(prefix[known], index, refs)
        given, ends = _by_length(old, prefix, known, there)
        words = [index.vocabulary[word] for word in last[given[: ends[1]]].tolist()] if len(ends) > 1 else []
        alphabet = sorted(range(len(words)), key=words.__getitem__)
        words, given[: len(words)] = [words[at] for at in alphabet], given[alphabet]
        limits, number = index.limits[: version + 1], np.empty(len(given), np.uint32)
        number[given] = np.arange(len(given), dtype=np.uint32)
        refs[last[given[: len(words)]]] = ~np.arange(len(words))
        if not old.size:
            order, place = sort(ends, number[prefix[given] - began], (~refs).astype(np.uint32)[last[given]])
            return cls(limits, words, order, (given[place] + began).astype(np.int32))
        parent = np.zeros(len(prefix), np.int64)  # of words it is ignored
        parent[known] = there
        brought = prefix >= began
        parent[brought] = ~number[prefix[brought] - began].astype(np.int64)
        before = np.array([bisect.bisect(old.words, word) for word in words], np.int64)
        inserted = insert(old.order, ends, parent[given], refs[last[given]], before)
        node = inserted.merged(old.node, (given + began).astype(np.int32))
        tree = cls(limits, sorted(old.words + words) if words else old.words, inserted.order, node)
        if "backward" in old.__dict__:
            tree._older = old.backward, inserted
        return tree

    @property
    def size(self) -> int:
        """How many phrases there are."""
        return len(self.node)

    @property
    def bytes(self) -> int:
        """About what it takes in memory, its indexes for the kernel included."""
        return 60 * self.size + 200 * len(self.words) + self.ahead.bytes

    # ── for the kernel ──────────────────────────────────────────────────────────────────────

    @property
    def ahead(self) -> Index:
        """Which words come after a phrase."""
        return self.order.index

    @functools.cached_property
    def pairs_before(self) -> Index:
        """Which words come before a word."""
        words = len(self.words)
        low, high = self.levels[1:3] if len(self.levels) > 2 else (words, words)
        pairs = np.stack([self.word[low:high], self.parent[low:high]], axis=1)
        pairs = pairs[packing.ordered(pairs)]
        alone = self.parent[:words]
        order = Order((0, words, high), np.concatenate([alone, pairs[:, 0]]), np.concatenate([alone, pairs[:, 1]]))
        return order.index

    @functools.cached_property
    def backward(self) -> Backward:
        """Which words come before a phrase."""
        older, self._older = self._older, None
        return Backward.of(self, *older) if older else Backward.of(self)

    # ── for readers ─────────────────────────────────────────────────────────────────────────

    @functools.cached_property
    def born(self) -> Ints:
        """Per phrase, int32: the version that brought it."""
        return np.searchsorted(np.array(self.limits, np.int32), self.node, side="right").astype(np.int32)

    def born_after(self, version: int) -> npt.NDArray[np.bool_]:
        """Per phrase: whether a later version than this one brought it."""
        return self.node >= self.limits[version]

    def numbering(self, version: int) -> Ids:
        """Per phrase of an older version's tree, in its order: the id here. Ascending."""
        if version == self.version:
            return np.arange(self.size, dtype=np.uint32)
        return np.flatnonzero(self.node < self.limits[version]).astype(np.uint32)

    def renumbered(self, version: int, ids: Ids) -> Ids:
        """The ids here of some phrases, given by those of an older version's tree; in an array of any shape."""
        younger = self.younger(version)
        return ids + np.searchsorted(younger, ids, side="right").astype(np.uint32)

    def younger(self, version: int) -> Ids:
        """Of each phrase that an older version lacks: how many of those that it has come before. Ascending."""
        found = self._younger.get(version)
        if found is None:
            if len(self._younger) == YOUNGER:
                self._younger.clear()
            ids = np.flatnonzero(self.born_after(version))
            found = self._younger[version] = (ids - np.arange(len(ids))).astype(np.uint32)
        return found

    def levels_at(self, version: int) -> tuple[int, ...]:
        """`levels` of an older version's tree."""
        if version == self.version:
            return self.levels
        levels = np.array(self.levels)
        ids = np.arange(len(younger := self.younger(version))) + younger
        return tuple((levels - np.searchsorted(ids, levels)).tolist())

    def id_of(self, node: npt.NDArray[np.integer]) -> Ids:
        """The ids of nodes of the PhraseIndex, all of this version."""
        ids: Ids = self._id_of[node]
        return ids

    @functools.cached_property
    def _id_of(self) -> Ids:
        ids = np.zeros(self.size + 1, np.uint32)
        ids[self.node] = np.arange(self.size, dtype=np.uint32)
        return ids

    def some_ids_of(self, node: Ints, index: PhraseIndex, refs: Refs) -> Ids:
        """As `id_of`, of some nodes of an index: word by word where they are few. `refs`: the ids of its words."""
        if len(node) > self.size // FEW or "_id_of" in self.__dict__:
            return self.id_of(node)
        ids, prefixes = np.zeros(len(node), np.uint32), [node]
        while (before := index.parent[prefixes[-1]]).any():
            prefixes.append(before)
        for phrase in reversed(prefixes):
            goes_on = index.parent[phrase] > 0
            word = refs[index.word[phrase]].astype(np.uint32)
            begins = (phrase > 0) & ~goes_on
            ids[begins] = word[begins]
            ids[goes_on] = kernel.places(self.ahead, ids[goes_on], word[goes_on])
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
        return bisect.bisect_right(self.levels, number)

    @functools.cached_property
    def word_hashes(self) -> Hashes:
        """Per word: 128 bits of its UTF-8 form (BLAKE2b) as two numbers, shape (2, words)."""
        return hashes_of_words(self.words).T.copy()

    @functools.cached_property
    def hashes(self) -> Hashes:
        """Per phrase: 64 bits of its words, one after the other: the first half of ids (runs.py)."""
        return packing.stirred(self.parent, self.word, len(self.words), self.word_hashes[0], int(HASH_SEED))


class Backward:
    """The phrases read from their last word to their first, in order: which words come before a phrase.

    In `order` the parent of a phrase is itself without its first word, and its word is its first one. `ids[p]`: the
    number here of phrase p; `phrases[b]`: the phrase with number b. These two are tables of all phrases, made when many
    are asked for: a small text asks for few, by `ids_of` and `phrases_of`.
    """

    def __init__(self, order: Order, ahead: Index) -> None:
        self.order, self._ahead = order, ahead
        self._asked = 0

    @classmethod
    def of(cls, tree: Tree, old: Backward | None = None, inserted: Inserted | None = None) -> Backward:
        """Of a tree; of one that was made from an older one, with what that one had."""
        old = old or cls(EMPTY, EMPTY.index)
        moved = inserted.moved if inserted else np.empty(0, np.uint32)
        new = np.sort(inserted.new) if inserted else np.arange(tree.size, dtype=np.uint32)
        ends = np.searchsorted(new, tree.levels).tolist()

        def refs(phrases: Ids) -> Refs:
            if len(new) == tree.size:
                return ~phrases.astype(np.int64)
            number = np.searchsorted(new, phrases)
            known = new[np.minimum(number, len(new) - 1)] != phrases
            found = ~number
            found[known] = old.ids_of((phrases[known] - number[known]).astype(np.uint32))
            return found

        suffix, start = new.astype(np.int64), new.astype(np.int64)  # without the first word; the first word
        for n, (low, high) in enumerate(itertools.pairwise(ends[1:]), 2):
            parent, last = tree.parent[new[low:high]], tree.word[new[low:high]]
            known = refs(parent)
            start[low:high] = each(known, lambda b: moved[old.order.word[b]], start.take)
            if n == 2:
                suffix[low:high] = last
            else:
                shorter = each(known, lambda b: moved[old.phrases_of(old.order.parent[b])], suffix.take)
                suffix[low:high] = kernel.places(tree.ahead, shorter.astype(np.uint32), last)
        if inserted is None:
            order, given = sort((*ends,), suffix.astype(np.uint32), start.astype(np.uint32))
            found = cls(order, tree.ahead)
            found.phrases = given
            return found
        words = ends[1] if len(ends) > 1 else 0
        before = new[:words].astype(np.int64) - np.arange(words)
        done = insert(old.order, tuple(ends), refs(suffix.astype(np.uint32)), refs(start.astype(np.uint32)), before)
        return cls(done.order, tree.ahead)

    @property
    def index(self) -> Index:
        return self.order.index

    @functools.cached_property
    def phrases(self) -> Ids:
        return kernel.turned(self.index, self._ahead, np.arange(len(self.order.parent), dtype=np.uint32))

    @functools.cached_property
    def ids(self) -> Ids:
        ids = np.empty(len(self.phrases), np.uint32)
        ids[self.phrases] = np.arange(len(ids), dtype=np.uint32)
        return ids

    def ids_of(self, phrases: Ids) -> Ids:
        """The numbers here of some phrases, in an array of any shape."""
        if self._many(phrases.size):
            return self.ids[phrases]
        return kernel.turned(self._ahead, self.index, phrases.ravel()).reshape(phrases.shape)

    def phrases_of(self, ids: Ids) -> Ids:
        """The phrases with some of the numbers here, in an array of any shape."""
        if self._many(ids.size):
            return self.phrases[ids]
        return kernel.turned(self.index, self._ahead, ids.ravel()).reshape(ids.shape)

    def _many(self, number: int) -> bool:
        self._asked += number
        return self._asked > len(self.order.parent) // FEW

    def suffix(self, phrases: Ids) -> Ids:
        """These phrases without their first words; of words, themselves."""
        return self.phrases_of(self.order.parent[self.ids_of(phrases)])


def _by_length(
    old: Tree, prefix: Ints, known: npt.NDArray[np.bool_], there: Ids
) -> tuple[npt.NDArray[np.intp], tuple[int, ...]]:
    """The phrases that come after those of a tree, shortest first, and per length how many have no more words.

    They are given by their prefixes as nodes of the index; `known`: which of these the tree has, `there`: under which
    ids. Raises ValueError where a phrase comes before its prefix.
    """
    length = np.zeros(len(prefix), np.uint16)
    length[prefix == 0] = 1
    length[known] = np.searchsorted(old.levels, there, side="right") + 1
    packing.add_lengths(prefix, old.size + 1, length)
    return np.argsort(length, kind="stable"), tuple(np.cumsum(np.bincount(length, minlength=1)).tolist())


def word_hash(word: str) -> Hashes:
    """128 bits of a word's UTF-8 form (BLAKE2b) as two numbers."""
    hashes: Hashes = hashes_of_words([word])[0]
    return hashes


def hashes_of_words(words: list[str]) -> Hashes:
    """Those of many, shape (words, 2)."""
    digests = b"".join(hashlib.blake2b(word.encode(), digest_size=16).digest() for word in words)
    return np.frombuffer(digests, "<u8").astype(np.uint64).reshape(-1, 2)


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
