"""What a process keeps in memory is bounded."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from crochet_tasks.db import corpora, removal
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.settings import Settings
from tests.support import steps

pytestmark = pytest.mark.integration


def read(process: Process, *used: Corpus) -> None:
    for corpus in used:
        with process.database.transaction() as connection:
            process.index(connection, corpus.id, corpora.version(connection, corpus.id))


def made(process: Process, number: int) -> list[Corpus]:
    found = [steps.new_corpus(process) for _ in range(number)]
    for corpus in found:
        steps.ingest_all(corpus, [steps.TEXTS[0]])
    return found


def test_indexes_used_last_are_kept_within_the_bytes_of_the_setting(process: Process, database: str) -> None:
    """Half of them, as trees have the other half. Room for two of three: the one that was not used for longest goes."""
    three = made(process, 3)
    size = process.indexes[three[0].id].bytes
    with open_process(Settings(worker_cache_bytes=4 * size), database) as small:
        read(small, *three[:2], three[0], three[2])
        assert set(small.indexes) == {three[0].id, three[2].id}
        assert small.indexes.currsize <= 2 * size


def test_trees_used_last_are_kept_within_the_bytes_of_the_setting(process: Process, database: str) -> None:
    """Of versions as of corpora; one that is cached is not made again."""
    (corpus,) = made(process, 1)
    steps.ingest_all(corpus, steps.TEXTS[1:])
    with process.database.transaction() as connection:
        sizes = [process.tree(connection, corpus.id, version).bytes for version in (2, 3)]
    with open_process(Settings(worker_cache_bytes=2 * sum(sizes)), database) as small:
        with small.database.transaction() as connection:
            trees = [small.tree(connection, corpus.id, version) for version in (2, 1, 2, 3)]
        assert trees[0] is trees[2]
        assert [tree.version for tree in trees] == [2, 1, 2, 3]
        assert set(small.trees) == {(corpus.id, 2), (corpus.id, 3)}
        assert small.trees.currsize <= sum(sizes)


def test_what_is_waited_on_is_read_once(process: Process) -> None:
    """Of batches that came since the last time only; the phrases are those of the newest version."""
    (corpus,) = made(process, 1)
    found = []
    for body in steps.TEXTS[1:]:
        with process.database.transaction() as connection:
            tree = process.tree(connection, corpus.id, corpora.version(connection, corpus.id))
            found.append(process.waited(connection, corpus.id, tree))
            connection.execute(text("UPDATE remediations SET phrases = ''"))  # what has been read is not read again
        steps.ingest_all(corpus, [body])
    assert [len(waited) for waited in found] == sorted({len(waited) for waited in found})
    assert all(found[1][: len(found[0])] >= found[0])


def test_an_index_without_room_is_kept_alone(process: Process, database: str) -> None:
    """Else it would be read again for every task."""
    two = made(process, 2)
    with open_process(Settings(worker_cache_bytes=1), database) as small:
        read(small, *two)
        assert set(small.indexes) == {two[1].id}


def test_the_index_of_a_deleted_corpus_goes(process: Process) -> None:
    """When the index of another one is next brought forward."""
    gone, other = made(process, 2)
    with process.database.transaction() as connection:
        removal.hide(connection, gone.id)
    steps.ingest_all(other, [steps.TEXTS[1]])
    assert set(process.indexes) == {other.id}
