"""A store that an earlier version made is migrated: its texts and phrases stay, and its orthos are found again."""

from __future__ import annotations

import contextlib
import uuid

import pytest
from sqlalchemy import Connection, text

from crochet_tasks.db import corpora, outbox, schema
from crochet_tasks.db.process import open_process
from crochet_tasks.db.sessions import Database
from crochet_tasks.engine.phrases import Additions, PhraseIndex
from crochet_tasks.engine.text import READING, sentences
from crochet_tasks.settings import Settings
from crochet_tasks.verify import verify
from tests.support import steps

pytestmark = pytest.mark.integration

WORK = """
INSERT INTO work (id, corpus, kind, subject, part, since, version, priority, sides, state, upto,
                  finished_at, published_at)
VALUES (:id, 1, :kind, :subject, CAST(:part AS int4range), :since, :version, 0, CAST(:sides AS smallint[]), :state,
        :upto, CASE WHEN :state = 'done' THEN now() END, CASE WHEN :state = 'open' THEN now() END)
"""


OLD_CORPUS = "INSERT INTO corpora (name, max_axes, max_side, max_cells, reading) VALUES ('old', 3, 8, 64, :reading)"
"""as the schema of that time had it"""


@pytest.fixture
def old(empty: str) -> str:
    """A database as version 0008 of the schema had it, with three texts; the search of the second is begun."""
    with contextlib.closing(Database(empty, Settings())) as database:
        with database.transaction() as connection:
            schema.upgrade(connection, "0008")
        with database.transaction() as connection:
            connection.execute(text(OLD_CORPUS), {"reading": READING})
            index = PhraseIndex()
            for version, body in enumerate(steps.TEXTS, start=1):
                added = index.additions(sentences(body), 8)
                _add(connection, index, added, version)
                index = index.extended(added).closed()
                accept = """
                INSERT INTO texts (corpus, seq, title, body, sha256, state, version, phrases, sentences)
                VALUES (1, :v, 'a text', :body, sha256(convert_to(:body, 'UTF8')), 'current', :v, :limit, 9)
                """
                connection.execute(text(accept), {"v": version, "body": body, "limit": index.limits[-1]})
                connection.execute(text("UPDATE corpora SET version = :v"), {"v": version})
                for item, state in (
                    (outbox.ingest(1, version), "done"),
                    (outbox.context(1, version), "done"),
                    (outbox.remediations(1, version), "open" if version == 3 else "done"),
                ):
                    values = {"id": item.id, "kind": item.kind, "subject": item.subject, "version": item.version}
                    connection.execute(text(WORK), values | _ELSE | {"state": state})
            cells = bytes(32)  # whatever they are: they go
            batch = """
            INSERT INTO batches (key, corpus, sides, count, width, cells, found_by, born)
            VALUES (gen_random_uuid(), 1, '{2,2}', 2, 4, :cells, gen_random_uuid(), 1)
            """
            connection.execute(text(batch), {"cells": cells})
            connection.execute(text("INSERT INTO remediations VALUES (1, 1, '')"))
            connection.execute(text("INSERT INTO counts VALUES (1, '{2,2}', 2, 1)"))
            for kind, more in (
                ("seed", {"part": "[0,9)", "version": 1, "state": "done", "upto": 1}),
                ("grow", {"sides": [2, 2], "since": 1, "version": 2, "state": "open"}),
            ):
                connection.execute(text(WORK), _ELSE | {"id": uuid.uuid4(), "kind": kind, "subject": 1} | more)
    return empty


def _add(connection: Connection, index: PhraseIndex, added: Additions, version: int) -> None:
    """Words and phrases as version 0008 stored them."""
    words = [
        {"id": number, "v": version, "word": word} for number, word in enumerate(added.words, len(index.vocabulary))
    ]
    if words:
        connection.execute(text("INSERT INTO words VALUES (1, :id, :v, :word)"), words)
    phrases = (
        "INSERT INTO phrases (corpus, first, count, born, parent, word) VALUES (1, :first, :count, :v, :parent, :word)"
    )
    parent, word = (array.astype("<i4").tobytes() for array in (added.parent, added.word))
    values = {"first": index.nodes, "count": len(added.parent), "v": version, "parent": parent, "word": word}
    connection.execute(text(phrases), values)


_ELSE: dict[str, object] = {"part": None, "since": 0, "sides": None, "upto": None}


def test_orthos_of_an_earlier_version_are_found_again(old: str) -> None:
    """In one window up to the newest version; afterwards the corpus is what it would be if made now."""
    with open_process(Settings(), old) as process:
        assert schema.migrate(process.database) == ("0008", schema.HEAD)
        with process.database.transaction() as connection:
            corpus = corpora.named(connection, "old")
        assert steps.stored(process, corpus) == {}
        open_work = steps.sql(process, "SELECT kind, subject, attempts FROM work WHERE state = 'open'")
        assert open_work == [("remediations", 3, 0)]
        steps.run(corpus)
        assert steps.sql(process, "SELECT since, version FROM windows") == [(0, 3)]
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)
        assert verify(process, corpus, closure=True) == []
        steps.ingest_all(corpus, ["a b c d, x a"])
        assert steps.stored(process, corpus) == steps.expected([*steps.TEXTS, "a b c d, x a"])
        assert verify(process, corpus, closure=True) == []


def test_a_corpus_without_a_version_has_nothing_to_find(empty: str) -> None:
    """Its text that waits is ingested after the upgrade as it would have been before."""
    with open_process(Settings(), empty) as process:
        with process.database.transaction() as connection:
            schema.upgrade(connection, "0008")
            connection.execute(text(OLD_CORPUS), {"reading": READING})
        schema.migrate(process.database)
        with process.database.transaction() as connection:
            corpus = corpora.named(connection, "old")
        steps.ingest_all(corpus, steps.TEXTS)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def test_the_pipeline_works_on_the_oldest_schema_that_it_names(empty: str) -> None:
    """A service of this release may start before `crochet migrate`; migrated afterwards, the corpus goes on."""
    with open_process(Settings(), empty) as process:
        with process.database.transaction() as connection:
            schema.upgrade(connection, schema.OLDEST)
        schema.check(process.database)
        corpus = steps.new_corpus(process)
        steps.ingest_all(corpus, steps.TEXTS[:2])
        assert schema.migrate(process.database) == (schema.OLDEST, schema.HEAD)
        steps.ingest_all(corpus, steps.TEXTS[2:])
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)
        assert verify(process, corpus, closure=True) == []
