"""What a process keeps in memory is bounded."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, text

from crochet_tasks.db import corpora, removal
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import WAITED_SHARE, Process, here, open_process
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import metrics
from tests.support import steps
from tests.support.waiting import SECONDS

pytestmark = pytest.mark.integration


def read(process: Process, *used: Corpus) -> None:
    for corpus in used:
        with process.database.transaction() as connection:
            process.index(connection, corpus.id, corpora.version(connection, corpus.id))


def index_of(process: Process, corpus: Corpus) -> PhraseIndex:
    index = process.indexes.get(corpus.id)
    assert index is not None
    return index


def wait_for_phrases(process: Process, corpus: Corpus) -> None:
    with process.database.transaction() as connection:
        tree = process.tree(connection, corpus.id, corpora.version(connection, corpus.id))
        process.waited(connection, corpus.id, tree)


def made(process: Process, number: int) -> list[Corpus]:
    found = [steps.new_corpus(process) for _ in range(number)]
    for corpus in found:
        steps.ingest_all(corpus, [steps.TEXTS[0]])
    return found


def test_indexes_used_last_are_kept_within_the_bytes_of_the_setting(process: Process, database: str) -> None:
    """Half of them, as trees have the other half. Room for two of three: the one that was not used for longest goes."""
    three = made(process, 3)
    size = index_of(process, three[0]).bytes
    with open_process(Settings(worker_cache_bytes=4 * size), database) as small:
        read(small, *three[:2], three[0], three[2])
        assert set(small.indexes) == {three[0].id, three[2].id}
        assert small.indexes.bytes <= 2 * size


def test_tasks_find_the_process_that_was_opened_last_and_is_still_open(process: Process, database: str) -> None:
    with open_process(Settings(), database) as inner:
        assert here() is inner
    assert here() is process


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
        assert small.trees.bytes <= sum(sizes)


def test_what_is_waited_on_is_read_once(process: Process) -> None:
    """Of batches that came since the last time only; the phrases are those of the newest version."""
    (corpus,) = made(process, 1)
    found = []
    for body in steps.TEXTS[1:]:
        with process.database.transaction() as connection:
            tree = process.tree(connection, corpus.id, corpora.version(connection, corpus.id))
            waited = process.waited(connection, corpus.id, tree)
            assert waited is not None
            found.append(waited)
            connection.execute(text("UPDATE remediations SET phrases = ''"))  # what has been read is not read again
        steps.ingest_all(corpus, [body])
    assert [len(waited) for waited in found] == sorted({len(waited) for waited in found})
    assert all(found[1][: len(found[0])] >= found[0])


def test_what_was_waited_on_in_a_newer_version(process: Process) -> None:
    """Its transaction was rolled back, and an older version is next: what is known is that one's, too."""
    (corpus,) = made(process, 1)
    steps.ingest_all(corpus, steps.TEXTS[1:])
    with process.database.transaction() as connection:
        newest = corpora.version(connection, corpus.id)
        trees = [process.tree(connection, corpus.id, version) for version in (newest, 1)]
        later, before = (process.waited(connection, corpus.id, tree) for tree in trees)
    assert later is not None
    assert before is not None
    assert (len(later), len(before)) == tuple(tree.size + 1 for tree in trees)
    assert (before == later[: len(before)]).all()


def test_an_index_without_room_is_kept_alone(process: Process, database: str) -> None:
    """Else it would be read again for every task."""
    two = made(process, 2)
    with open_process(Settings(worker_cache_bytes=1), database) as small:
        read(small, *two)
        assert set(small.indexes) == {two[1].id}


def test_what_is_waited_on_is_kept_within_its_share_of_the_setting(
    process: Process, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte per phrase; the corpus that was not used for longest goes, and the metric says how much there is."""
    three = made(process, 3)
    size = index_of(process, three[0]).nodes
    measured: dict[str, float] = {}
    monkeypatch.setattr(metrics.CACHE_BYTES, "set", lambda value, cache: measured.update({cache: value}))
    with open_process(Settings(worker_cache_bytes=2 * size * WAITED_SHARE), database) as small:
        for corpus in (*three[:2], three[0], three[2]):
            wait_for_phrases(small, corpus)
        assert set(small.waits) == {three[0].id, three[2].id}
        assert small.waits.bytes == 2 * size
        assert measured["waited"] == 2 * size


def test_what_is_cached_of_a_deleted_corpus_goes(process: Process) -> None:
    """Index, trees, what is waited on, and its tenant, when the index of another one is next brought forward."""
    gone, other = made(process, 2)
    wait_for_phrases(process, gone)
    assert process.tenant(gone.id) == process.tenant(other.id) == 1
    with process.database.transaction() as connection:
        removal.hide(connection, gone.id)
    steps.ingest_all(other, [steps.TEXTS[1]])
    assert set(process.indexes) == {other.id}
    assert {corpus for corpus, _ in process.trees} == {other.id}
    assert set(process.waits) == {other.id}
    assert set(process._tenants) == {other.id}


def test_trees_of_different_corpora_are_made_at_the_same_time(process: Process, database: str) -> None:
    """While one is read from the database, threads that need another one do not wait."""
    slow, other = made(process, 2)
    with (
        open_process(Settings(), database) as fresh,
        ThreadPoolExecutor(1) as pool,
        fresh.database.transaction() as blocked,
    ):
        entered, going_on = threading.Event(), threading.Event()
        read_index = fresh.index

        def index(connection: Connection, corpus: int, version: int) -> PhraseIndex:
            if corpus == slow.id:
                entered.set()
                assert going_on.wait(SECONDS)
            return read_index(connection, corpus, version)

        fresh.index = index  # type: ignore[method-assign]
        first = pool.submit(fresh.tree, blocked, slow.id, 1)
        assert entered.wait(SECONDS)
        with fresh.database.transaction() as connection:
            assert fresh.tree(connection, other.id, 1).version == 1
        assert not first.done()
        going_on.set()
        assert first.result(SECONDS).version == 1
