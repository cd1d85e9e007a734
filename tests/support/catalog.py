"""What tests of reading share: a corpus that is closed, the catalog that reads it, and what the oracle says of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection

from crochet_tasks.db import corpora
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine import geometry
from crochet_tasks.engine.geometry import volume
from crochet_tasks.query.answers import Checks, Page
from crochet_tasks.query.catalog import Catalog
from crochet_tasks.query.pages import FoundOrtho
from tests.support import oracle
from tests.support.oracle import Ortho
from tests.support.steps import TEXTS, ingest_all, new_corpus

SECRET = b"s" * 32
MORE = "b c, e f, h i, j k l, m n, a b c d, x y z, p q r, d k, c j"


@pytest.fixture
def closed(process: Process) -> Corpus:
    corpus = new_corpus(process)
    ingest_all(corpus, TEXTS)
    return corpus


@pytest.fixture
def catalog(process: Process) -> Catalog:
    return Catalog(process, SECRET)


class Look:
    """One snapshot, and the corpus as it shows it."""

    def __init__(self, connection: Connection, corpus: Corpus) -> None:
        self.connection = connection
        self.corpus = corpora.numbered(connection, corpus.id)
        self.args = self.connection, self.corpus


@pytest.fixture
def look(process: Process, closed: Corpus) -> Iterator[Look]:
    with process.database.snapshot() as connection:
        yield Look(connection, closed)


def id_of(ortho: Ortho) -> str:
    """An id from its definition: of the sides and the words alone."""
    sides, words = ortho
    hashes = [hashlib.blake2b(word.encode(), digest_size=16).digest() for word in words]
    table = np.frombuffer(b"".join(hashes), "<u8").reshape(-1, 2).T.copy()
    return geometry.id_text(geometry.ids(sides, np.arange(len(words)).reshape(-1, 1), table)[0])


def best_first(texts: list[str], limits: tuple[int, ...] = ()) -> list[FoundOrtho]:
    """All orthos of texts as pages must show them."""
    found = [FoundOrtho(id_of((s, w)), s, w, born) for (s, w), born in oracle.closure(texts, *limits).items()]
    return sorted(found, key=lambda ortho: (-volume(ortho.sides), -math.prod(ortho.sides), ortho.id))


ALL = best_first(TEXTS)


def pages(catalog: Catalog, look: Look, limit: int, **filters: Any) -> list[Page]:
    read, cursor = [], None
    while True:
        read.append(catalog.page(*look.args, limit=limit, cursor=cursor, **filters))
        cursor = read[-1].next_cursor
        if cursor is None:
            return read


def stored(result: Checks) -> list[bool]:
    return [checked.stored for checked in result.results]


def joined(read: list[Page]) -> list[FoundOrtho]:
    return [ortho for page in read for ortho in page.orthos]


def all_waiting(catalog: Catalog, look: Look) -> list[list[tuple[int, int]]]:
    """Per word the batches that wait on it, and up to where they were searched."""
    words = [word for word, _ in catalog.vocabulary(*look.args).words]
    each = [catalog.waiting_on(*look.args, [word]).batches for word in words]
    return [[(batch.id, batch.searched) for batch in batches] for batches in each]
