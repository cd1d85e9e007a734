"""What a search between two versions sees of the phrases, and how it leaves behind what nothing new can come of."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crochet_tasks.engine.phrases import Bools, Ints, PhraseIndex

Signature = npt.NDArray[np.uint64]
Slots = npt.NDArray[np.uint32]

SIGNATURES = 4  # with 256 bits the filter was exact for what 2 % of Genesis brings (docs/adr/0003)
SKETCH_BITS = 17  # a table of 64-bit words that stays in the processor's second-level cache


class Window:
    """The phrases as a search since one version up to another sees them: >= `low` is new, >= `high` is hidden."""

    def __init__(self, index: PhraseIndex, since: int, upto: int) -> None:
        self.index = index
        self.low = index.limits[since]
        self.high = index.limits[upto]
        self.everything_new = since == 0
        self.hides = self.high < index.nodes
        self.continued: Bools = np.zeros(index.nodes, np.bool_)
        """per phrase: has a continuation born in the window"""
        if not self.everything_new:
            self.continued[index.parent[self.low : self.high]] = True
        self._signatures: dict[int, list[list[Signature]]] = {}
        self._sketches: dict[int, Sketch] = {}

    def signatures(self, length: int) -> list[list[Signature]]:
        """Which new phrases of `length` words could be put together from the continuations of given phrases.

        Every new phrase gets a bit. `signatures(length)[k][q][line]`, uint64, has the bits of those new phrases
        whose word number q continues `line`: lines a, b, c can be continued by the words of one new phrase only
        if signatures[k][0][a] & signatures[k][1][b] & signatures[k][2][c] is not 0 for some k. Two phrases may
        share a bit, so this is a filter (superimposed coding; Mooers 1948), and a sharp one.
        """
        if length not in self._signatures:
            self._signatures[length] = self._new_signatures(length)
        return self._signatures[length]

    def _new_signatures(self, length: int) -> list[list[Signature]]:
        new = self.low + np.flatnonzero(self.index.length[self.low : self.high] == length).astype(np.int32)
        groups = np.array_split(new, max(1, min(SIGNATURES, -(-len(new) // 64))))
        return [[self._signature(word) for word in _words(self.index, group, length)] for group in groups]

    def _signature(self, words: Ints) -> Signature:
        bits = np.zeros(len(self.index.vocabulary), np.uint64)
        np.bitwise_or.at(bits, words, np.uint64(1) << (np.arange(len(words)) % 64).astype(np.uint64))
        return self.index.after.union(bits)

    def sketch(self, length: int) -> Sketch:
        """What can be said of lines of `length` words without looking them up."""
        if length not in self._sketches:
            self._sketches[length] = Sketch(self, length)
        return self._sketches[length]


class Sketch:
    """`continued` and `signatures` of all lines of one length, by a hash of their words instead of their number.

    Lines that share a slot share what is true of any of them: a sketch never denies what is there.
    """

    def __init__(self, window: Window, length: int) -> None:
        self._window = window
        lines = np.flatnonzero((window.index.length == length) & (window.index.after.count > 0))
        slots = self.slots(_words(window.index, lines, length))
        order = np.argsort(slots)
        self._lines = lines[order]  # by slot: those of one slot stand together
        self._slots, self._first = np.unique(slots[order], return_index=True)
        self.continued: Bools = np.zeros(1 << SKETCH_BITS, np.bool_)
        self.continued[slots[window.continued[lines]]] = True
        self._signatures: dict[int, list[Signature]] = {}

    def slots(self, words: Sequence[npt.NDArray[np.integer]]) -> Slots:
        """Per line, given its first words, its second words, ...: its slot.

        Multiply-shift hashing (Dietzfelbinger et al., "A reliable randomized algorithm for the closest-pair
        problem", 1997).
        """
        total = np.zeros(len(words[0]), np.uint32)
        for place, column in enumerate(words):
            total += column.astype(np.uint32) * np.uint32(pow(0x9E3779B1, place + 1, 1 << 32))
        return total >> np.uint32(32 - SKETCH_BITS)

    def signatures(self, length: int) -> list[Signature]:
        """`Window.signatures`, its bits laid over each other, per slot."""
        if length not in self._signatures:
            groups = self._window.signatures(length)
            self._signatures[length] = [
                self._by_slot(np.bitwise_or.reduce([group[q] for group in groups])) for q in range(length)
            ]
        return self._signatures[length]

    def _by_slot(self, signature: Signature) -> Signature:
        table = np.zeros(1 << SKETCH_BITS, np.uint64)
        if len(self._lines):
            table[self._slots] = np.bitwise_or.reduceat(signature.take(self._lines), self._first)
        return table


def _words(index: PhraseIndex, nodes: npt.NDArray[np.integer], length: int) -> list[Ints]:
    """The words of phrases of one length: all first words, all second words, ..."""
    words: list[Ints] = []
    for _ in range(length):
        words.append(index.word[nodes])
        nodes = index.parent[nodes]
    return words[::-1]


@functools.lru_cache(maxsize=2)
def window(index: PhraseIndex, since: int, upto: int) -> Window:
    """A window on an index; the last ones are kept, because many batches in a row are searched through the same."""
    return Window(index, since, upto)
