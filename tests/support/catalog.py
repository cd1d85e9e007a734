"""What tests of reading share: a corpus that is closed, the catalog that reads it, and what the oracle says of it."""

from __future__ import annotations

import hashlib
import random
import uuid
from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import Connection

from crochet_tasks.db import batches, corpora, tally, windows
from crochet_tasks.db import texts as texts_
from crochet_tasks.db.batches import NewBatch
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine import runs
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.engine.text import sentences
from crochet_tasks.engine.tree import Tree
from crochet_tasks.query.answers import Checks, Page
from crochet_tasks.query.catalog import Catalog
from crochet_tasks.query.pages import EVERY, FoundOrtho, OrthoQuery
from tests.support import oracle, packed
from tests.support.oracle import Ortho
from tests.support.steps import TEXTS, new_corpus

SECRET = b"s" * 32
MORE = "b c, e f, h i, j k l, m n, a b c d, x y z, p q r, d k, c j"


@pytest.fixture
def closed(process: Process) -> Corpus:
    return in_runs(process, TEXTS, 3)


@pytest.fixture
def catalog(process: Process) -> Catalog:
    return Catalog(process, SECRET)


class Snapshot:
    """One snapshot, and the corpus as it shows it."""

    def __init__(self, connection: Connection, corpus: Corpus) -> None:
        self.connection = connection
        self.corpus = corpora.numbered(connection, corpus.id)
        self.args = self.connection, self.corpus


@pytest.fixture
def snapshot(process: Process, closed: Corpus) -> Iterator[Snapshot]:
    with process.database.snapshot() as connection:
        yield Snapshot(connection, closed)


def in_runs(process: Process, texts: Sequence[str], most: int, seed: int = 0) -> Corpus:
    """A closed corpus whose orthos lie in up to `most` runs of each shape, at random, as no search makes them."""
    corpus, random_ = new_corpus(process), random.Random(seed)
    with process.database.transaction() as connection:
        index = PhraseIndex()
        for version, body in enumerate(texts, start=1):
            text = texts_.accept(connection, corpus.id, body[:20], body)
            added = index.additions(sentences(body), corpus.limits.max_side)
            texts_.add(connection, corpus.id, index, added, version)
            texts_.ingested(connection, text.id, 1, whole=True)
            texts_.make_version(connection, text)
            index = index.extended(added).closed()
            windows.add(connection, corpus.id, windows.Window(version, version - 1, None, 0))
    orthos = oracle.closure(texts)
    assigned = {ortho: (random_.randrange(most), random_.randrange(len(texts))) for ortho in orthos}
    made = packed.Batches.of(index, orthos, assigned)
    with process.database.transaction() as connection:
        for batch in made.stored:
            tree, rows = Tree.of(index, batch.numbering), made.packed[batch.id]
            new = NewBatch(
                uuid.uuid4(),
                batch.sides,
                batch.count,
                batch.first,
                batch.last,
                runs.pack(rows, tree.levels[batch.sides[-1] - 1]),
                runs.pack_set(runs.line_set(tree, batch.sides, rows)),
            )
            batches.add(connection, corpus.id, [new], by=uuid.uuid4(), born=batch.numbering)
        for batch in made.stored:
            tally.count(connection, corpus.id, {batch.sides: tally.Change(batch.count, 1)})
    return corpus


def id_of(ortho: Ortho) -> str:
    """An id from its definition: half of it a hash of the first line, the other of the sides and all words."""
    sides, words = ortho
    return f"{_hash(0, (), words[: sides[-1]]):016x}{_hash(1, (len(sides), *sides), words):016x}"


def _hash(half: int, numbers: Sequence[int], words: Sequence[str]) -> int:
    state = 0x9E3779B97F4A7C15
    digests = [hashlib.blake2b(word.encode(), digest_size=16).digest() for word in words]
    for value in [*numbers, *(int.from_bytes(digest[8 * half : 8 * half + 8], "little") for digest in digests)]:
        state ^= value
        for shift, factor in ((33, 0xFF51AFD7ED558CCD), (29, 0xC4CEB9FE1A85EC53), (32, 1)):
            state = (state ^ state >> shift) * factor & (1 << 64) - 1
    return state


def best_first(texts: list[str], limits: tuple[int, ...] = ()) -> list[FoundOrtho]:
    """All orthos of texts as pages must show them."""
    orthos = oracle.closure(texts, *limits)
    return [FoundOrtho(id_of(ortho), *ortho, orthos[ortho]) for ortho in packed.in_order(orthos)]


ALL = best_first(TEXTS)


def pages(catalog: Catalog, snapshot: Snapshot, limit: int, query: OrthoQuery = EVERY) -> list[Page]:
    read: list[Page] = []
    while not read or read[-1].next_cursor is not None:
        cursor = read[-1].next_cursor if read else None
        read.append(catalog.page(*snapshot.args, query, limit=limit, cursor=cursor))
    return read


def pages_back(catalog: Catalog, snapshot: Snapshot, limit: int, query: OrthoQuery, cursor: str | None) -> list[Page]:
    """The pages before a previous cursor, in order."""
    read: list[Page] = []
    while cursor is not None:
        read.insert(0, catalog.page(*snapshot.args, query, limit=limit, cursor=cursor))
        cursor = read[0].previous_cursor
    return read


def stored(result: Checks) -> list[bool]:
    return [checked.stored for checked in result.results]


def joined(read: list[Page]) -> list[FoundOrtho]:
    return [ortho for page in read for ortho in page.orthos]


def all_waiting(catalog: Catalog, snapshot: Snapshot) -> list[list[int]]:
    """Per word the batches that wait on a phrase that begins with it and has two words."""
    words = [each.word for each in catalog.vocabulary(*snapshot.args).words]
    pairs = [each.words for word in words for each in catalog.phrases(*snapshot.args, [word]).phrases]
    return [[batch.id for batch in catalog.waiting_on(*snapshot.args, pair).batches] for pair in pairs]
