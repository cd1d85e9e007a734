"""Reads for the API: pages of orthos, one ortho, checks, remediations, words and phrases.

Every call reads from one snapshot, `connection`, and a `corpus` row that was read in it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from cachetools import LRUCache

from crochet_tasks.db import Connection, tally, windows
from crochet_tasks.db.cache import Cache
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine import geometry
from crochet_tasks.engine.tree import Tree
from crochet_tasks.query import checks, export, holding, ranges, relatives
from crochet_tasks.query.answers import Checked, Checks, CorpusView, Growth, OrthoDetail, Page
from crochet_tasks.query.checks import CheckItem, Grid, Reason
from crochet_tasks.query.cursor import opened, sealed
from crochet_tasks.query.pages import (
    EVERY,
    FoundOrtho,
    OrthoQuery,
    Position,
    behind,
    find,
    looked_through,
    orthos,
    page,
)
from crochet_tasks.query.provenance import Around, Concordance, Line, Sources
from crochet_tasks.query.store import Reader, Store
from crochet_tasks.query.vocabulary import Branch, born, branch, phrase_of, phrases, vocabulary, waiting_on
from crochet_tasks.schemas.answers import LineSeen, PhrasePage, ShapeLine, Vocabulary, WaitingOn

MOST_AT_ONCE = 1000
"""orthos of a page, items of a check"""
HOLDINGS = 4
"""corpora of which is kept in how many orthos each word stands: 8 bytes per word"""


class Catalog:
    """The reads of one process of the API. Threads may share it; `secret` signs its cursors."""

    def __init__(self, process: Process, secret: bytes) -> None:
        self.store = Store(process)
        self.sources = Sources(self.store)
        self._secret = secret
        self._holding: LRUCache[tuple[int, int, int], holding.Holding] = LRUCache(HOLDINGS)
        self._holding_lock = threading.Lock()

    @property
    def caches(self) -> list[Cache[Any, Any]]:
        return [self.store.batches, self.store.lines, self.store.indexes, self.sources.parsed]

    # ── orthos ──────────────────────────────────────────────────────────────────────────────

    def view(self, connection: Connection, corpus: Corpus) -> CorpusView:
        """The state of a corpus. Orthos are only ever added, so their number identifies their set."""
        number = tally.total(connection, corpus.id)
        return CorpusView(corpus.version, number, f"{corpus.id}-{corpus.version}-{number}")

    def shapes(self, connection: Connection, corpus: Corpus) -> list[ShapeLine]:
        """How many orthos there are of each shape, best shape first."""
        counted = tally.counted(connection, corpus.id)
        return [
            ShapeLine(shape=list(sides), orthos=counted[sides].orthos, batches=counted[sides].batches)
            for sides in geometry.best_first(counted)
            if counted[sides].orthos
        ]

    def page(
        self,
        connection: Connection,
        corpus: Corpus,
        query: OrthoQuery = EVERY,
        *,
        limit: int = 100,
        cursor: str | None = None,
        after: str | None = None,
        budget: int | None = None,
    ) -> Page:
        """Orthos, best shape first and each shape in alphabetical order, from a cursor on, or those before a previous
        one; without one, those `after` the ortho of this id. Raises InvalidCursor, InvalidOrthoId and NotFound.

        Orthos found between two pages are on a later page or left out; none comes twice, and all that were stored at
        the first page come. For a page about `budget` orthos are filtered (by default half a million): where those that
        fit are rare, it is short or empty, still has a cursor, and says how far it came.
        """
        if not 1 <= limit <= MOST_AT_ONCE:
            raise ValueError(f"a page has 1 to {MOST_AT_ONCE} orthos, not {limit}")
        question = ["orthos", corpus.id, *query.question]
        packed = None if cursor is None else opened(self._secret, question, cursor)
        reader = Reader(self.store, connection, corpus)
        position = None if after is None else behind(reader, after)
        if packed is not None:
            position = Position.unpacked(reader.tree, packed)
        part = page(reader, query, limit, position, budget)
        following, previous = (
            None if then is None else sealed(self._secret, question, then.packed(reader.tree))
            for then in (part.behind, part.before)
        )
        looked = looked_through(reader, query, part.behind) if part.cut and part.behind is not None else None
        return Page(part.orthos, following, corpus.version, previous, looked)

    def best(self, connection: Connection, corpus: Corpus, most: int) -> list[FoundOrtho]:
        return self.page(connection, corpus, limit=most).orthos

    def by_id(self, connection: Connection, corpus: Corpus, id: str) -> OrthoDetail | None:  # noqa: A002
        """The ortho with that id, if it is stored; raises InvalidOrthoId."""
        reader = Reader(self.store, connection, corpus)
        if (found := find(reader, id)) is None:
            return None
        sides, row = found
        (ortho,) = orthos(reader.tree, sides, row.reshape(1, -1))
        grid = np.array(ortho.words, object).reshape(sides).tolist()
        return OrthoDetail(*ortho, grid=grid, lines=_lines(reader.tree, ortho))

    def export(
        self,
        connection: Connection,
        corpus: Corpus,
        form: export.Format = export.Format.JSONL,
        query: OrthoQuery = EVERY,
        after: str | None = None,
    ) -> Iterator[bytes]:
        """All orthos as UTF-8, some thousands at a time, in order; the snapshot has to stay open meanwhile.

        `after`: only those behind the one of this id. Raises InvalidOrthoId and NotFound.
        """
        reader = Reader(self.store, connection, corpus)
        return export.written(reader, form, query, position=None if after is None else behind(reader, after))

    def provenance(self, connection: Connection, corpus: Corpus, lines: Sequence[Line]) -> list[LineSeen]:
        """Per line of an ortho the sentences that it was read from, a few at the most."""
        return self.sources.of(connection, corpus, self.store.phrases(connection, corpus).index, lines)

    def concordance(self, connection: Connection, corpus: Corpus, words: Sequence[str], most: int) -> Concordance:
        """Where a phrase was read, `most` places; raises PhraseUnknown."""
        phrases = self.store.phrases(connection, corpus)
        phrase = phrase_of(phrases.tree, words)
        if phrase is None:
            return Concordance([], more=False)
        line = Line(0, phrases.tree.phrase(phrase), born(phrases.tree, phrase))
        return self.sources.concordance(connection, corpus, phrases.index, line, most)

    def around(self, connection: Connection, corpus: Corpus, text: int, sentence: int, wide: int) -> Around | None:
        """A sentence of a text that is a version, from 1, with `wide` of those before and behind it; None: no such."""
        return self.sources.around(connection, self.store.phrases(connection, corpus).index, text, sentence, wide)

    # ── families and words ──────────────────────────────────────────────────────────────────

    def parent(self, connection: Connection, corpus: Corpus, ortho: OrthoDetail) -> Checked | None:
        """The ortho that this one was lengthened from; None for a seed."""
        before = relatives.parent(ortho.sides, ortho.words)
        if before is None:
            return None
        sides, words = before
        return self.check(connection, corpus, [np.array(words, object).reshape(sides).tolist()]).results[0]

    def children(self, connection: Connection, corpus: Corpus, ortho: OrthoDetail, most: int) -> relatives.Children:
        """Up to `most` orthos that are this one, lengthened along their leading axis."""
        return relatives.children(Reader(self.store, connection, corpus), ortho.sides, ortho.words, most)

    def growth(self, connection: Connection, corpus: Corpus) -> list[Growth]:
        """The words, phrases and orthos of each version, the first one first."""
        phrases = self.store.phrases(connection, corpus)
        tree, versions = phrases.tree, range(1, corpus.version + 1)
        words = np.searchsorted(np.sort(tree.born[: len(tree.words)]), versions, side="right").tolist()
        known = np.searchsorted(np.sort(tree.born[: tree.size]), versions, side="right").tolist()
        orthos = windows.growth(connection, corpus.id, tally.total(connection, corpus.id))
        return [Growth(*each, orthos.get(each[0])) for each in zip(versions, words, known, strict=True)]

    def holding(self, connection: Connection, corpus: Corpus) -> tuple[Tree, holding.Holding]:
        """The phrases of the corpus, and in how many of its best orthos each of its words stands."""
        reader = Reader(self.store, connection, corpus)
        key = corpus.id, corpus.version, tally.total(connection, corpus.id)
        with self._holding_lock:
            found = self._holding.get(key)
        if found is None:
            found = holding.holding(reader)
            with self._holding_lock:
                self._holding[key] = found
        return reader.tree, found

    # ── checks ──────────────────────────────────────────────────────────────────────────────

    def check(
        self, connection: Connection, corpus: Corpus, items: Sequence[str | Grid], *, exact: bool = True
    ) -> Checks:
        """Which of these ids and boxes are stored. Stored orthos are always found.

        A box with a line that is no phrase, and an id whose first half is no phrase's, cost no read. Checks that are
        not `exact` read no batch at all and report every other item as stored: other ids by the chance that their first
        half is a phrase's, other boxes only while searches are still to be done, as the rest reads and so is an ortho.
        """
        if len(items) > MOST_AT_ONCE:
            raise ValueError(f"{MOST_AT_ONCE} items at the most")
        reader = Reader(self.store, connection, corpus)
        parsed = checks.read(items, reader.phrases, corpus.limits)
        possible = [each for each in parsed if each.reason is None]
        if exact and possible:
            there = ranges.find(reader, checks.ranges(possible, reader.tree, reader.shapes()))
            results = [_checked(one, stored=one.id in there) for one in parsed]
        else:
            results = [_checked(one, stored=True) for one in parsed]
        rate: float | None = 0.0
        if not exact and any(each.sides is None for each in possible):
            rate = reader.tree.size / 2**64
        elif not exact and possible and _searching(connection, corpus):
            rate = None
        return Checks(results, rate, corpus.version, exact or not possible)

    # ── the context ─────────────────────────────────────────────────────────────────────────

    def waiting_on(self, connection: Connection, corpus: Corpus, words: Sequence[str], limit: int = 100) -> WaitingOn:
        """What waits on a phrase, `limit` batches of it one by one; raises PhraseUnknown."""
        return waiting_on(Reader(self.store, connection, corpus), words, limit)

    def vocabulary(
        self, connection: Connection, corpus: Corpus, prefix: str = "", limit: int = 100, cursor: str | None = None
    ) -> Vocabulary:
        """The words that begin so, in code-point order; raises InvalidCursor."""
        question: list[object] = ["words", corpus.id, prefix]
        after = None if cursor is None else opened(self._secret, question, cursor).decode()
        tree = self.store.phrases(connection, corpus).tree
        words, more = vocabulary(tree, prefix, after, limit)
        following = sealed(self._secret, question, words[-1].word.encode()) if more else None
        return Vocabulary(version=corpus.version, words=words, next_cursor=following)

    def phrases(
        self,
        connection: Connection,
        corpus: Corpus,
        prefix: Sequence[str] = (),
        limit: int = 100,
        cursor: str | None = None,
    ) -> PhrasePage:
        """The phrases one word longer than `prefix`, in code-point order; raises PhraseUnknown and InvalidCursor."""
        question: list[object] = ["phrases", corpus.id, *prefix]
        after = None if cursor is None else opened(self._secret, question, cursor).decode()
        tree = self.store.phrases(connection, corpus).tree
        phrase = phrase_of(tree, prefix)
        found, more = phrases(tree, phrase, after, limit)
        following = sealed(self._secret, question, found[-1].words[-1].encode()) if more else None
        return PhrasePage(
            version=corpus.version,
            prefix=[] if phrase is None else list(tree.phrase(phrase)),
            born=born(tree, phrase),
            phrases=found,
            next_cursor=following,
        )

    def branches(
        self, connection: Connection, corpus: Corpus, every: Iterable[Sequence[str]], widths: Sequence[int]
    ) -> list[Branch]:
        """How each of these phrases goes on, `widths[0]` words each, of each of them `widths[1]`, and so on; raises
        PhraseUnknown.
        """
        tree = self.store.phrases(connection, corpus).tree
        numbers = [phrase_of(tree, words) for words in every]
        return [branch(tree, number, widths) for number in numbers if number is not None]

    def forget(self, corpus: int) -> None:
        """Drop a deleted corpus from the caches at once, before it is evicted."""
        self.store.forget(corpus)


def _lines(tree: Tree, ortho: FoundOrtho) -> list[Line]:
    every = [tuple(ortho.words[cell] for cell in cells) for cells in geometry.lines(ortho.sides)]
    axes = [axis for axis, side in enumerate(ortho.sides) for _ in range(len(ortho.words) // side)]
    return [Line(axis, words, born(tree, tree.find(words))) for axis, words in zip(axes, every, strict=True)]


def _searching(connection: Connection, corpus: Corpus) -> bool:
    """Whether there may be orthos that are not stored."""
    return not tally.left(connection, corpus.id, 1).closed


def _checked(item: CheckItem, *, stored: bool) -> Checked:
    reason = item.reason or (None if stored else _NOT_FOUND)
    name = None if item.id is None else checks.id_text(item.id)
    return Checked(reason is None, name, item.sides, item.words, reason)


_NOT_FOUND = Reason.NOT_FOUND
"""a constant: looking up an enum member takes as long as the rest of `_checked`"""
