"""What somebody damaged in the database is refused where the pipeline reads it: no search goes on from it unnoticed."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

import numpy as np
import pytest
from sqlalchemy import Connection

from crochet_tasks import merging, publish
from crochet_tasks.db import batches, best, corpora
from crochet_tasks.db.batches import NewBatch
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.engine import runs, search
from crochet_tasks.errors import StoreCorrupt
from crochet_tasks.settings import Settings
from tests.support import steps

pytestmark = pytest.mark.integration

CONTEXT = {
    "phrases gone": (
        "DELETE FROM phrases WHERE first = (SELECT max(first) FROM phrases)",
        r"version 2 of corpus \d+ has \d+ phrases, and \d+ are stored",
    ),
    "limit moved": ("UPDATE texts SET phrases = phrases + 1 WHERE version = 2", "phrases, and"),
    "a word gone": ("DELETE FROM words WHERE id = 1", r"\d+ words, and \d+ phrases of one word"),
    "a word too many": ("INSERT INTO words SELECT corpus, 99, 1, 'new' FROM words LIMIT 1", "words, and"),
    "a version gone": ("UPDATE texts SET version = 7 WHERE version = 1", r"versions \[2, 7\] follow on version 0"),
}


@pytest.mark.parametrize("damage", CONTEXT)
def test_a_context_that_lacks_something_is_not_read(process: Process, database: str, damage: str) -> None:
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS[:2])
    statement, message = CONTEXT[damage]
    steps.sql(process, statement)
    with (
        open_process(Settings(), database) as other,
        other.database.snapshot() as connection,
        pytest.raises(StoreCorrupt, match=message),
    ):
        other.tree(connection, corpus.id, 2)


def test_a_text_that_was_rewritten_is_not_ingested(process: Process) -> None:
    corpus = steps.new_corpus(process)
    steps.accept(corpus, steps.TEXTS[0])
    steps.sql(process, "UPDATE texts SET body = body || ' more'")
    with pytest.raises(StoreCorrupt, match="is not the one that was accepted"):
        steps.run(corpus)
    assert steps.sql(process, "SELECT state, error->>'code' FROM texts") == [("failed", "store_corrupt")]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM remediations WHERE batch = (SELECT min(batch) FROM remediations)", "is missing"),
        ("UPDATE remediations SET phrases = substr(phrases, 1, 12)", "is damaged"),
    ],
)
def test_what_is_due_is_not_derived_from_less(
    process: Process, monkeypatch: pytest.MonkeyPatch, statement: str, message: str
) -> None:
    """Without a batch's remediation phrases would not be due, and orthos be missed."""
    monkeypatch.setattr(search, "ENUMERATE_FROM", 2.0)
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS[:1])
    steps.sql(process, statement)
    with pytest.raises(StoreCorrupt, match=rf"the remediation of batch \d+ {message}"):
        steps.ingest_all(corpus, steps.TEXTS[1:2])
    assert steps.sql(process, "SELECT kind FROM work WHERE state = 'failed'") == [("remediations",)]


SEARCHES = {
    "due phrases damaged": ("UPDATE windows SET due = substr(due, 1, 12)", "the window of version 1 is damaged"),
    "starts forgotten": ("UPDATE windows SET starts = starts - 1", r"records \d+ starts, and has \d+"),
    "window gone": ("DELETE FROM windows", "version 1 has no window"),
    "boxes of another search": (
        "UPDATE work SET boxes = set_byte(boxes, 20, get_byte(boxes, 20) # 1) WHERE state = 'open'",
        "is not what was left over",
    ),
}


@pytest.mark.parametrize("damage", SEARCHES)
def test_nothing_else_is_searched_than_was_written(database: str, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    """The due phrases, the starts and the boxes that another search left over."""
    monkeypatch.setattr(search, "ENUMERATE_FROM", 2.0)
    monkeypatch.setattr(search, "CHILDREN", 1)
    with open_process(Settings(result_orthos=1), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, steps.TEXTS[0])
        waiting = "SELECT FROM work WHERE kind = 'search' AND state = 'open'"
        if "boxes" in damage:
            waiting += " AND boxes IS NOT NULL"
        while not steps.sql(process, waiting):
            assert publish.publish_next(corpus.id), "there is no such work"
        statement, message = SEARCHES[damage]
        steps.sql(process, statement)
        with pytest.raises(StoreCorrupt, match=message):
            steps.run(corpus)


def test_merging_loses_no_batch(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one of those to be merged cannot be read nothing is written and nothing deleted."""
    monkeypatch.setattr(merging, "MOST", 2)
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS)
    before = steps.sql(process, "SELECT id FROM batches ORDER BY id")
    whole = batches.packed

    def packed(connection: Connection, ids: Iterable[int]) -> list[tuple[int, bytes]]:
        return list(whole(connection, ids))[1:]

    monkeypatch.setattr(batches, "packed", packed)
    with pytest.raises(StoreCorrupt, match=r"hold \d+ orthos, and \d+ are recorded"):
        merging.merge_all(corpus.id)
    assert steps.sql(process, "SELECT id FROM batches ORDER BY id") == before


def test_no_batch_is_stored_that_cannot_be_read(process: Process) -> None:
    """What a message carried is stored as it was packed or not at all."""
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS[:1])
    with process.database.transaction() as connection:
        stored = next(batches.every(connection, corpus.id))
    assert stored.phrases is not None
    row = stored.stored
    good = NewBatch(uuid.uuid4(), row.sides, row.count, row.first, row.last, stored.packed, stored.phrases)
    for bad in (
        good._replace(packed=good.packed[:-1]),
        good._replace(phrases=good.phrases[:-1]),
        good._replace(count=good.count + 1),
    ):
        with (
            pytest.raises(StoreCorrupt, match="a batch that is to be stored is damaged"),
            process.database.transaction() as connection,
        ):
            batches.add(connection, corpus.id, [bad], by=uuid.uuid4(), born=1)


def test_damaged_faces_are_not_stacked(process: Process) -> None:
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS[:1])
    steps.sql(process, "INSERT INTO best (corpus, version, max_side) VALUES (:corpus, 1, 8)", corpus=corpus.id)
    packed = runs.pack(np.array([[0, 1, 2, 3]], np.uint32), 0)
    put = "INSERT INTO best_faces SELECT max(id), '{2,2}', 0, 1, :packed FROM best RETURNING job"
    ((job,),) = steps.sql(process, put, packed=packed[:-1])
    assert isinstance(job, int)
    with process.database.transaction() as connection:
        words = len(process.tree(connection, corpus.id, corpora.version(connection, corpus.id)).words)
        with pytest.raises(StoreCorrupt, match="the 2x2 of job"):
            best.faces(connection, job, (2, 2), words)
