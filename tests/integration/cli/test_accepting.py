"""Submitting texts, and waiting for them."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from crochet_tasks import publish
from crochet_tasks.cli import accepting
from crochet_tasks.db import tally
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.errors import SettingMissing
from crochet_tasks.operate import cancelling
from crochet_tasks.schemas.names import text_name
from crochet_tasks.schemas.progress import RunProgress
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.failing_work import accepted, failing, run_on, running, status, with_failed
from tests.support.waiting import SECONDS, eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def corpus(process: Process) -> Corpus:
    return steps.new_corpus(process)


def test_ingesting_needs_a_shared_database() -> None:
    """A private one has no workers beside the command."""
    with pytest.raises(SettingMissing, match="CROCHET_DATABASE_URL"):
        accepting.ingest_texts(Settings(), accepting.Request([], "main", {}, wait=False), lambda _: None)


def test_waiting_ends_when_all_is_done(process: Process, corpus: Corpus) -> None:
    """The texts are versions, and what they made due is searched; progress is shown meanwhile."""
    ids = [int(name[5:]) for name in accepted(corpus, *steps.TEXTS)]
    seen: list[RunProgress] = []
    with running(lambda: accepting.until_done(process, corpus.id, ids, seen.append, lambda _: None)) as waiting:
        eventually(lambda: seen)
        while has_open_work(process, corpus):
            assert waiting.is_alive()
            publish.publish_next(corpus.id)
    assert (seen[0].version, seen[-1].version, seen[-1].work.open) == (0, 3, 0)
    assert seen[-1].total == sum(steps.expected(steps.TEXTS).values())


def has_open_work(process: Process, corpus: Corpus) -> bool:
    with process.database.transaction() as connection:
        return tally.states(connection, corpus.id).open > 0


def test_waiting_ends_for_texts_that_fail_and_are_cancelled(
    process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed is reported as by a run: the text first."""
    failing(monkeypatch, "ingest.text")
    one, other = (int(name[5:]) for name in accepted(corpus, *steps.TEXTS[:2]))
    cancelling.cancel(process, [text_name(other)])
    run_on(corpus)
    accepting.until_done(process, corpus.id, [one, other], lambda _: None, lambda _: None)
    with process.database.transaction() as connection:
        error = accepting.failure(connection, corpus, {one: "one.txt", other: "other.txt"})
    assert (error.code, str(error)) == ("text_failed", "one.txt could not be ingested: a bug") if error else False


def test_waiting_ends_behind_work_that_failed(
    process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a later version makes due stays open while that of an older one has failed: `--wait` goes on."""
    with_failed(process, corpus, monkeypatch, "remediations.due", steps.TEXTS[0])
    ids = [int(name[5:]) for name in accepted(corpus, steps.TEXTS[1])]
    steps.run(corpus)
    assert status(process, corpus).work["open"] == 1
    accepting.until_done(process, corpus.id, ids, lambda _: None, lambda _: None)
    with process.database.transaction() as connection:
        error = accepting.failure(connection, corpus, {})
    assert error is not None
    assert error.code == "work_failed"


def test_waiting_survives_a_database_that_restarts(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each outage is reported once, however many polls fail, and the waiting goes on."""
    from crochet_tasks.db import schema
    from crochet_tasks.db.sessions import Database

    state = tmp_path_factory.mktemp("db") / "state"  # a longer path has another socket after each start
    notes: list[str] = []
    seen: list[RunProgress] = []
    polls: list[None] = []
    backing_off = accepting.backing_off

    def counted() -> Generator[None]:
        for moment in backing_off():
            polls.append(moment)
            yield

    monkeypatch.setattr(accepting, "backing_off", counted)
    server = EmbeddedPostgres(state)
    with server as started:
        url = started.url
        database = Database(url, Settings())
        schema.migrate(database)
        database.close()
    with open_process(Settings(), url) as process:
        with EmbeddedPostgres(state):
            corpus = steps.new_corpus(process)
            (number,) = (int(name[5:]) for name in accepted(corpus, steps.TEXTS[0]))
            thread = threading.Thread(
                target=lambda: accepting.until_done(process, corpus.id, [number], seen.append, notes.append)
            )
            thread.start()
            eventually(lambda: seen)
        eventually(lambda: notes)
        failed = len(polls)
        eventually(lambda: len(polls) > failed + 2)
        with EmbeddedPostgres(state):
            before = len(seen)
            eventually(lambda: len(seen) > before)
            steps.run(corpus)
            thread.join(SECONDS)
            assert not thread.is_alive()
    assert len(notes) == 1
    assert "does not answer" in notes[0]
