"""Reads for the API: pages of orthos, one ortho, checks, remediations, words and phrases. Fast once warm.

Every call reads from one snapshot, `connection`, and a `corpus` row that was read in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from crochet_tasks.db import Connection, batches, corpora, tally
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine import geometry
from crochet_tasks.engine.geometry import Cells, Sides
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.engine.text import normalised
from crochet_tasks.query.answers import Checked, Checks, CorpusView, OrthoDetail, Page, Phrases, Words
from crochet_tasks.query.batches_cache import Store
from crochet_tasks.query.checks import CheckItem, Grid, Reason, halves, halves_of, in_runs, read, stored
from crochet_tasks.query.cursor import opened, sealed
from crochet_tasks.query.pages import FoundOrtho, OrthoQuery, Position, Reader, orthos
from crochet_tasks.query.provenance import Line, LineSources, Sources
from crochet_tasks.query.runs import FEW, NO_RUNS, RunsCache
from crochet_tasks.query.vocabulary import Remediations, Waiting, born, node_of, phrases, vocabulary
from crochet_tasks.reporting import export
from crochet_tasks.schemas.answers import ShapeLine

MOST_AT_ONCE = 1000
"""orthos of a page, items of a check"""


class Catalog:
    """The reads of one process of the API. Threads may share it; `secret` signs its cursors."""

    def __init__(self, process: Process, secret: bytes) -> None:
        self.store = Store(process)
        self.runs = RunsCache(self.store)
        self.sources = Sources(self.store)
        self.remediations = Remediations(process)
        self._secret = secret

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
            for sides in batches.shapes_by_rank(counted)
            if counted[sides].orthos
        ]

    def page(
        self,
        connection: Connection,
        corpus: Corpus,
        *,
        shape: Sides | None = None,
        contains: str | None = None,
        min_volume: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """Orthos, best first, from where the cursor's page ended. Raises InvalidCursor.

        Orthos found between two pages are on a later page or left out; none comes twice, and all that were stored at
        the first page come. A page scans a few million orthos at the most: where those with the word are rare, it is
        short or empty and still has a cursor.
        """
        if not 1 <= limit <= MOST_AT_ONCE:
            raise ValueError(f"a page has 1 to {MOST_AT_ONCE} orthos, not {limit}")
        word = None if contains is None else normalised(contains)
        question: list[object] = ["orthos", corpus.id, shape, word, min_volume]
        after = None if cursor is None else Position.unpacked(opened(self._secret, question, cursor))
        index = self.store.index(connection, corpus)
        number = None if word is None else index.number(word)
        if number == -1:
            return Page([], None, corpus.version)
        reader = Reader(self.store, connection, self.store.batch_list(connection, corpus.id), index)
        found, then = reader.page(OrthoQuery(shape, number, min_volume), limit, after)
        following = None if then is None else sealed(self._secret, question, then.packed())
        return Page(found, following, corpus.version)

    def best(self, connection: Connection, corpus: Corpus, most: int) -> list[FoundOrtho]:
        return self.page(connection, corpus, limit=most).orthos

    def by_id(self, connection: Connection, corpus: Corpus, id: str) -> OrthoDetail | None:  # noqa: A002
        """The ortho with that id, if it is stored; raises InvalidOrthoId."""
        ids = halves_of(id)
        index = self.store.index(connection, corpus)
        refs = self.store.batch_list(connection, corpus.id).refs
        found = stored(self.store, connection, refs, index, ids, self.runs.of(corpus.id))
        if not found.there.all():
            return None
        batch, place = found.batches[int(found.batch[0])], int(found.place[0])
        ortho = next(orthos(index, batch.sides, batch.cells[:, place : place + 1]))
        grid = np.array(ortho.words, object).reshape(ortho.sides).tolist()
        return OrthoDetail(*ortho[:4], grid=grid, lines=_lines(index, ortho))

    def export(
        self,
        connection: Connection,
        corpus: Corpus,
        form: export.Format = export.Format.JSONL,
        *,
        shape: Sides | None = None,
        contains: str | None = None,
        min_volume: int | None = None,
    ) -> Iterator[bytes]:
        """All orthos as UTF-8, a batch at a time, best shape first; the snapshot has to stay open meanwhile."""
        index = self.store.index(connection, corpus)
        number = None if contains is None else index.number(normalised(contains))
        query = OrthoQuery(shape, number, min_volume)
        shapes = [] if number == -1 else query.shapes(export.stored_shapes(connection, corpus.id))

        def keep(cells: Cells) -> Cells:
            return cells if number is None else cells[:, (cells == number).any(axis=0)]

        return export.written(connection, index, corpus.id, form, shapes, keep)

    def provenance(self, connection: Connection, corpus: Corpus, lines: Sequence[Line]) -> list[LineSources]:
        """Per line of an ortho the sentences that it was read from, a few at the most."""
        return self.sources.of(connection, corpus, self.store.index(connection, corpus), lines)

    # ── checks ──────────────────────────────────────────────────────────────────────────────

    def check(
        self, connection: Connection, corpus: Corpus, items: Sequence[str | Grid], *, exact: bool = True
    ) -> Checks:
        """Which of these ids and boxes are stored.

        Stored orthos are always found. Checks that are not `exact` compare only the part of an id that the runs have:
        they read no batch that is in a run, and report less than 1 % of what is not stored as stored. A box with a
        line that is no phrase costs no read.
        """
        if len(items) > MOST_AT_ONCE:
            raise ValueError(f"{MOST_AT_ONCE} items at the most")
        index = self.store.index(connection, corpus)
        items_read = read(items, index, corpus.version, corpus.limits)
        names = sorted({one.id for one in items_read if one.id is not None and one.reason is None})
        if not names:
            return Checks([_checked(one, there=False) for one in items_read], exact=True, version=corpus.version)
        ids = halves(names)
        refs = self.store.batch_list(connection, corpus.id).refs
        runs = self.runs.of(corpus.id)
        in_run = np.zeros(len(ids), np.bool_) if exact else in_runs(runs, refs, ids)
        there = in_run.copy()
        left, others = ids[~in_run], refs if exact else runs.lacks(refs)
        there[~in_run] = stored(self.store, connection, others, index, left, runs if exact else NO_RUNS).there
        found_ids = set(itertools.compress(names, there.tolist()))
        slow = len(runs.lacks(refs)) >= FEW
        return Checks(
            [_checked(one, there=one.id in found_ids) for one in items_read], not in_run.any(), corpus.version, slow
        )

    # ── the context ─────────────────────────────────────────────────────────────────────────

    def waiting_on(self, connection: Connection, corpus: Corpus, words: Sequence[str], limit: int = 100) -> Waiting:
        """What waits on a phrase, `limit` batches of it one by one; raises PhraseUnknown."""
        return self.remediations.on(connection, corpus, self.store.index(connection, corpus), words, limit)

    def vocabulary(
        self, connection: Connection, corpus: Corpus, prefix: str = "", limit: int = 100, cursor: str | None = None
    ) -> Words:
        """The words that begin so, in code-point order; raises InvalidCursor."""
        question: list[object] = ["words", corpus.id, prefix]
        after = None if cursor is None else opened(self._secret, question, cursor).decode()
        index = self.store.index(connection, corpus)
        words, more = vocabulary(index, self.store.alphabet(index), corpus.version, prefix, after, limit)
        following = sealed(self._secret, question, words[-1].word.encode()) if more else None
        return Words(words, following, corpus.version)

    def phrases(
        self,
        connection: Connection,
        corpus: Corpus,
        prefix: Sequence[str] = (),
        limit: int = 100,
        cursor: str | None = None,
    ) -> Phrases:
        """The phrases one word longer than `prefix`, in code-point order; raises PhraseUnknown and InvalidCursor."""
        question: list[object] = ["phrases", corpus.id, *prefix]
        after = None if cursor is None else opened(self._secret, question, cursor).decode()
        index = self.store.index(connection, corpus)
        node = node_of(index, corpus.version, prefix)
        found, more = phrases(index, node, corpus.version, after, limit)
        following = sealed(self._secret, question, found[-1].words[-1].encode()) if more else None
        return Phrases(index.phrase(node), born(index, node), found, following, corpus.version)

    # ── caches ──────────────────────────────────────────────────────────────────────────────

    def warm(self, corpus: Corpus, stopped: Callable[[], bool] = lambda: False) -> None:
        """Fill the caches for a corpus, best shape first, as far as they have room; for a background thread.

        Call it again now and then: it reads only what is not cached. Raises database errors, and NoResultFound for a
        corpus that was deleted.
        """
        with self.store.process.database.snapshot() as connection:
            corpus = corpora.numbered(connection, corpus.id)
            index = self.store.index(connection, corpus)
            self.store.alphabet(index)
            batch_list = self.store.batch_list(connection, corpus.id)
            for _ in self.store.sorted(connection, self.store.fitting(batch_list.refs, index), index):
                if stopped():
                    return
            self.runs.bring_forward(connection, batch_list, index, stopped)

    def forget(self, corpus: int) -> None:
        """Drop a deleted corpus from the caches at once, before it is evicted."""
        self.store.forget(corpus)
        self.runs.forget(corpus)


def _lines(index: PhraseIndex, ortho: FoundOrtho) -> list[Line]:
    every = [tuple(ortho.words[cell] for cell in cells) for cells in geometry.lines(ortho.sides)]
    axes = [axis for axis, side in enumerate(ortho.sides) for _ in range(len(ortho.words) // side)]
    newest = len(index.limits) - 1
    return [
        Line(axis, words, born(index, node_of(index, newest, words))) for axis, words in zip(axes, every, strict=True)
    ]


def _checked(item: CheckItem, *, there: bool) -> Checked:
    is_stored = there and item.reason is None
    return Checked(is_stored, item.id, item.sides, item.words, None if is_stored else item.reason or _NOT_FOUND)


_NOT_FOUND = Reason.NOT_FOUND
"""a constant: looking up an enum member takes as long as the rest of `_checked`"""
