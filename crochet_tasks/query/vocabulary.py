"""What a corpus' context holds at a version: words, phrases, and what waits on a phrase."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from crochet_tasks.db import Connection, batches, bulk
from crochet_tasks.db.batches import Waits
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.engine.text import normalised
from crochet_tasks.errors import PhraseUnknown
from crochet_tasks.query.batches_cache import OVERHEAD_BYTES, WAITS_SHARE, portions
from crochet_tasks.query.cache import Cache, Locks
from crochet_tasks.schemas.answers import ShapeLine


class WordEntry(NamedTuple):
    """A word, and the version that brought it."""

    word: str
    born: int


class PhraseEntry(NamedTuple):
    """A phrase, the version that brought it, and how many words continue it."""

    words: tuple[str, ...]
    born: int
    continuations: int


class WaitingBatch(NamedTuple):
    """A batch that waits; `searched`: the version up to which it was searched."""

    id: int
    sides: Sides
    orthos: int
    searched: int


class Waiting(NamedTuple):
    """What waits on a phrase: totals per shape, and the first batches; `more`: how many further batches."""

    phrase: tuple[str, ...]
    born: int
    shapes: list[ShapeLine]
    batches: list[WaitingBatch]
    more: int
    version: int


def node_of(index: PhraseIndex, version: int, words: Sequence[str]) -> int:
    """The node of a phrase born at `version` or before; 0 for no words. Raises PhraseUnknown."""
    node = 0
    for word in map(normalised, words):
        number = index.number(word)
        node = int(index.find(np.array([node]), np.array([number]))[0]) if number >= 0 else -1
        if not 0 <= node < index.limits[version]:
            raise PhraseUnknown(phrase=" ".join(words)[:200])
    return node


def born(index: PhraseIndex, node: int) -> int:
    """The version that brought a phrase."""
    return bisect.bisect_right(index.limits, node)


class Remediations:
    """Finds what waits on a phrase. Caches the phrases of each batch, which change only when it is searched again."""

    def __init__(self, process: Process) -> None:
        most = int(process.settings.api_cache_bytes * WAITS_SHARE)
        self._kept: Cache[tuple[int, int], bytes] = Cache("remediations", most)
        self._reading = Locks()

    def on(
        self, connection: Connection, corpus: Corpus, index: PhraseIndex, words: Sequence[str], limit: int
    ) -> Waiting:
        """The batches whose growth consulted a phrase, oldest first."""
        node = node_of(index, corpus.version, words)
        orthos: Counter[Sides] = Counter()
        number: Counter[Sides] = Counter()
        first: list[WaitingBatch] = []
        for each, packed in self._waits(connection, corpus.id, batches.waiting(connection, corpus.id)):
            phrases = bulk.ints(packed)
            place = int(phrases.searchsorted(node))
            if place < len(phrases) and phrases[place] == node:
                orthos[each.sides] += each.size
                number[each.sides] += 1
                if len(first) < limit:
                    first.append(WaitingBatch(*each[:4]))
        shapes = [
            ShapeLine(shape=list(sides), orthos=orthos[sides], batches=number[sides])
            for sides in batches.shapes_by_rank(orthos)
        ]
        phrase = index.phrase(node)
        return Waiting(phrase, born(index, node), shapes, first, number.total() - len(first), corpus.version)

    def _waits(self, connection: Connection, corpus: int, listed: list[Waits]) -> Iterator[tuple[Waits, bytes]]:
        """The phrases each batch waits on, in order; reads those that are not cached, some megabytes at once."""
        at = 0
        for end in portions([each.bytes for each in listed]):
            some = {(each.id, each.searched): each for each in listed[at:end]}
            kept = self._kept.several(some)
            if len(kept) < len(some):
                with self._reading.of(corpus):  # threads that need the same wait here and find it cached
                    kept = self._kept.several(some)
                    kept |= self._read(connection, [each for key, each in some.items() if key not in kept])
            yield from ((each, kept[key]) for key, each in some.items())
            at = end

    def _read(self, connection: Connection, listed: list[Waits]) -> dict[tuple[int, int], bytes]:
        read = batches.waited(connection, [each.id for each in listed]) if listed else {}
        for key, packed in read.items():
            self._kept.put(key, packed, len(packed) + OVERHEAD_BYTES)
        return read


def vocabulary(
    index: PhraseIndex, order: list[int], version: int, prefix: str, after: str | None, limit: int
) -> tuple[list[WordEntry], bool]:
    """The words that begin with `prefix` behind the word `after`, in code-point order; and whether there are more.

    `order`: the ids of all words in that order.
    """
    prefix = normalised(prefix)
    begin = bisect.bisect_left(order, prefix, key=index.vocabulary.__getitem__)
    if after is not None:
        begin = max(begin, bisect.bisect_right(order, after, key=index.vocabulary.__getitem__))
    found: list[WordEntry] = []
    for place in range(begin, len(order)):
        word = index.vocabulary[order[place]]
        if not word.startswith(prefix):
            break
        since = born(index, int(index.single[order[place]]))
        if since <= version:
            if len(found) == limit:
                return found, True
            found.append(WordEntry(word, since))
    return found, False


def phrases(
    index: PhraseIndex, node: int, version: int, after: str | None, limit: int
) -> tuple[list[PhraseEntry], bool]:
    """The phrases one word longer than that of `node`, behind the one that ends with the word `after`, in code-point
    order of their last words; and whether there are more.
    """
    most = index.limits[version]
    lists = index.after
    children = slice(int(lists.start[node]), int(lists.start[node]) + int(lists.count[node]))
    word, phrase = lists.word[children], lists.phrase[children]
    word, phrase = word[phrase < most], phrase[phrase < most]
    order = np.argsort(index.rank[word])
    word, phrase = word[order], phrase[order]
    begin = 0 if after is None else bisect.bisect_right(word.tolist(), after, key=index.vocabulary.__getitem__)
    prefix = index.phrase(node)
    found = [
        PhraseEntry((*prefix, index.vocabulary[last]), born(index, child), _continuations(index, child, most))
        for last, child in zip(
            word[begin : begin + limit].tolist(), phrase[begin : begin + limit].tolist(), strict=True
        )
    ]
    return found, len(word) > begin + limit


def _continuations(index: PhraseIndex, node: int, most: int) -> int:
    start = int(index.after.start[node])
    return int((index.after.phrase[start : start + int(index.after.count[node])] < most).sum())
