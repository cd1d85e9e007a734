"""Where phrases were read: the sentences of the texts that hold them, the first of each text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from crochet_tasks.db import Connection, texts
from crochet_tasks.db.cache import Cache, Locks
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.texts import VersionText
from crochet_tasks.engine import packing
from crochet_tasks.engine.phrases import Ints, Longs, PhraseIndex
from crochet_tasks.engine.text import END, plain, portions
from crochet_tasks.query.store import OVERHEAD_BYTES, TEXTS_SHARE, Store
from crochet_tasks.schemas.answers import LineSeen, Source
from crochet_tasks.schemas.names import text_name

MOST_SOURCES = 5
"""the most texts that are listed for a line"""
PARSED_BYTES = 2_000_000
"""of texts that are parsed for one answer, beside those that brought its lines"""
BORN_BYTES = 8_000_000
"""of those that brought its lines; at least one is parsed, so that repeated requests get to all of them"""
PIECE = 1 << 19
"""characters of a text that are read at once"""


class Line(NamedTuple):
    """A line of an ortho along one axis of its canonical form, and the version that brought it as a phrase."""

    axis: int
    words: tuple[str, ...]
    born: int


@dataclass(frozen=True)
class Parsed:
    """A text as numbers. `word`: the ids of its words, with -1 behind every sentence; `start`: where sentences start;
    `order`: the places in `word`, sorted by word and then by place; `sorted`: the words in that order.
    """

    word: Ints
    start: Longs
    order: Ints
    sorted: Ints

    @classmethod
    def of(cls, body: str, index: PhraseIndex) -> Parsed:
        """`index` knows all words of the text."""
        # In pieces, because each step holds the GIL.
        word = np.concatenate([*(_numbers(piece, index) for piece in portions(body, PIECE)), _END])
        ends = word < 0
        word = word[~ends | ~np.concatenate([[True], ends[:-1]])]  # sentences without words are left out
        start = np.concatenate([[0], np.flatnonzero(word < 0) + 1])[:-1]
        order = packing.ordered((word + 1).astype(np.uint32)[:, None]).astype(np.int32)
        return cls(word, start, order, word[order])

    @property
    def bytes(self) -> int:
        return self.word.nbytes + self.start.nbytes + self.order.nbytes + self.sorted.nbytes + OVERHEAD_BYTES

    def first(self, phrase: Sequence[int]) -> int | None:
        """The first sentence, from 0, that contains a phrase."""
        at = self.places(phrase)
        return self.sentence_at(int(at[0])) if len(at) else None

    def sentence_at(self, place: int) -> int:
        """The sentence, from 0, that a place in `word` belongs to."""
        return int(np.searchsorted(self.start, place, side="right")) - 1

    def places(self, phrase: Sequence[int]) -> Longs:
        """Where in `word` a phrase begins, in order. Searches around the places of its rarest word."""
        words = np.array(phrase, np.int32)
        begin, end = (np.searchsorted(self.sorted, words, side) for side in ("left", "right"))
        rarest = int(np.argmin(end - begin))
        at = self.order[int(begin[rarest]) : int(end[rarest])].astype(np.int64) - rarest
        at = at[(at >= 0) & (at + len(phrase) <= len(self.word))]
        for place, number in enumerate(phrase):
            at = at[self.word[at + place] == number]
        return at

    def sentence(self, number: int, index: PhraseIndex) -> tuple[str, ...]:
        begin = int(self.start[number])
        end = int(self.start[number + 1]) if number + 1 < len(self.start) else len(self.word)
        return tuple(index.vocabulary[word] for word in self.word[begin : end - 1].tolist())


_END = np.array([-1], np.int32)


def _numbers(piece: str, index: PhraseIndex) -> Ints:
    """The words of a piece of a text, and -1 where a sentence ends."""
    tokens = plain(piece).split()
    number = index.numbers(tokens)
    unknown = np.flatnonzero(number < 0)
    keep = np.ones(len(tokens), np.bool_)
    keep[unknown] = [tokens[place] == END for place in unknown.tolist()]  # the others are no words
    return number[keep]


class Occurrence(NamedTuple):
    """A place where a phrase was read: a text, the sentence (from 1), and its words before and after the phrase."""

    text: str
    title: str
    version: int
    sentence: int
    before: list[str]
    after: list[str]


class Concordance(NamedTuple):
    """Places where a phrase was read; `more`: whether there are others, or may be in texts that were not read."""

    occurrences: list[Occurrence]
    more: bool


class Around(NamedTuple):
    """Sentences of a text that follow each other. `first`: the number of the first, from 1; `total`: of the text."""

    first: int
    sentences: list[list[str]]
    total: int


class _Budget:
    """Bytes that may still be parsed for an answer: of the texts that brought its lines, and of others."""

    def __init__(self, brought: int, others: int) -> None:
        self._brought, self._others = brought, others
        self._first = True

    def allows(self, size: int, *, brought: bool) -> bool:
        """Whether a text may be parsed; if so, its size is subtracted."""
        if not brought:
            allowed = size <= self._others
            self._others -= size if allowed else 0
            return allowed
        allowed = self._first or size <= self._brought
        self._brought -= size if allowed else 0
        self._first = False
        return allowed


class Sources:
    """Finds where phrases were read; caches parsed texts (LRU), some 12 bytes per word."""

    def __init__(self, store: Store) -> None:
        self.parsed: Cache[int, Parsed] = Cache(
            "texts", int(store.process.settings.api_cache_bytes * TEXTS_SHARE), keeps_last=True
        )
        self._parsing = Locks()

    def of(self, connection: Connection, corpus: Corpus, index: PhraseIndex, lines: Sequence[Line]) -> list[LineSeen]:
        """Per line its sources, in the order of the texts; where there is one, the first is that which brought it.

        If the texts that brought an ortho's lines are many and large, the first request may find no source yet.
        """
        if not lines:
            return []
        listed = texts.versions(connection, corpus.id, min(line.born for line in lines), corpus.version)
        budget = _Budget(BORN_BYTES, PARSED_BYTES)
        return [self._line(connection, index, line, listed, budget) for line in lines]

    def concordance(
        self, connection: Connection, corpus: Corpus, index: PhraseIndex, line: Line, most: int
    ) -> Concordance:
        """The first `most` places where a phrase was read, in the order of the texts; `line.axis` does not count."""
        phrase = [index.number(word) for word in line.words]
        budget, found = _Budget(BORN_BYTES, PARSED_BYTES), list[Occurrence]()
        skipped = False
        for text in texts.versions(connection, corpus.id, line.born, corpus.version):
            parsed = self.parsed.get(text.id)
            if parsed is not None:
                self.parsed.looked_up(hits=1)
            else:
                if not budget.allows(text.size, brought=text.version == line.born):
                    skipped = True
                    continue
                parsed = self._parse(connection, index, text.id)
            for place in parsed.places(phrase).tolist():
                if len(found) == most:
                    return Concordance(found, more=True)
                number = parsed.sentence_at(place)
                words, begin = parsed.sentence(number, index), place - int(parsed.start[number])
                where = text_name(text.id), text.title, text.version, number + 1
                found.append(Occurrence(*where, list(words[:begin]), list(words[begin + len(phrase) :])))
        return Concordance(found, more=skipped)

    def around(self, connection: Connection, index: PhraseIndex, text: int, sentence: int, wide: int) -> Around | None:
        """A sentence, from 1, with `wide` of those before and behind it. `index` knows all words of the text."""
        parsed = self._parse(connection, index, text)
        total = len(parsed.start)
        if not 1 <= sentence <= total:
            return None
        numbers = range(max(0, sentence - 1 - wide), min(total, sentence + wide))
        return Around(numbers[0] + 1, [list(parsed.sentence(number, index)) for number in numbers], total)

    def _line(
        self, connection: Connection, index: PhraseIndex, line: Line, listed: list[VersionText], budget: _Budget
    ) -> LineSeen:
        phrase = [index.number(word) for word in line.words]
        found: list[Source] = []
        skipped = False
        for text in listed:
            if text.version < line.born:
                continue
            parsed = self.parsed.get(text.id)
            if parsed is not None:
                self.parsed.looked_up(hits=1)
            else:
                if not budget.allows(text.size, brought=text.version == line.born):
                    if text.version == line.born:
                        return _seen(line, [], more=True)
                    skipped = True
                    continue
                parsed = self._parse(connection, index, text.id)
            sentence = parsed.first(phrase)
            if sentence is None:
                continue
            if len(found) == MOST_SOURCES:
                return _seen(line, found, more=True)
            source = Source(
                text=text_name(text.id),
                title=text.title,
                version=text.version,
                sentence=sentence + 1,
                words=list(parsed.sentence(sentence, index)),
            )
            found.append(source)
        return _seen(line, found, more=skipped)

    def _parse(self, connection: Connection, index: PhraseIndex, text: int) -> Parsed:
        with self._parsing.of(text):
            parsed = self.parsed.get(text)
            self.parsed.looked_up(hits=parsed is not None, misses=parsed is None)
            if parsed is None:
                parsed = Parsed.of(texts.body(connection, text), index)
                self.parsed.put(text, parsed, parsed.bytes)
        return parsed


def _seen(line: Line, sources: list[Source], *, more: bool) -> LineSeen:
    return LineSeen(axis=line.axis, words=list(line.words), born=line.born, sources=sources, more=more)
