"""Submitting texts, and waiting for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from crochet_tasks import publish
from crochet_tasks.cli import accepting
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.errors import SettingMissing
from crochet_tasks.operate import actions
from crochet_tasks.schemas.names import text_name
from crochet_tasks.schemas.progress import RunProgress
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.failing_work import SECONDS, accepted, failing, run_on, running, status, with_failed

pytestmark = pytest.mark.integration


@pytest.fixture
def corpus(process: Process) -> Corpus:
    return steps.new_corpus(process)


def test_handing_in_needs_a_shared_database() -> None:
    """A private one has no workers beside the command."""
    with pytest.raises(SettingMissing, match="CROCHET_DATABASE_URL"):
        accepting.ingest_texts(Settings(), accepting.Request([], "main", {}, wait=False), lambda _: None)


def test_waiting_ends_when_all_is_done(process: Process, corpus: Corpus) -> None:
    """The texts are versions, and what they made due is searched; progress is shown meanwhile."""
    ids = [int(name[5:]) for name in accepted(corpus, *steps.TEXTS)]
    seen: list[RunProgress] = []
    with running(lambda: accepting.until_done(process, corpus.id, ids, seen.append, lambda _: None)) as waiting:
        while not seen:
            time.sleep(0.01)
        for _ in iter(lambda: publish.publish_next(corpus.id), None):
            assert waiting.is_alive()
    assert (seen[0].version, seen[-1].version, seen[-1].work.open) == (0, 3, 0)
    assert seen[-1].total == sum(steps.expected(steps.TEXTS).values())


def test_waiting_ends_for_texts_that_fail_and_are_cancelled(
    process: Process, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed is reported as by a run: the text first."""
    failing(monkeypatch, "ingest.text")
    one, other = (int(name[5:]) for name in accepted(corpus, *steps.TEXTS[:2]))
    actions.cancel(process, [text_name(other)])
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


def test_waiting_survives_a_database_that_restarts(tmp_path: Any, migrated: str) -> None:
    """Each outage is reported once, and the waiting goes on."""
    from crochet_tasks.db import schema
    from crochet_tasks.db.sessions import Database

    notes: list[str] = []
    seen: list[RunProgress] = []
    server = EmbeddedPostgres(tmp_path / "state")
    with server as started:
        url = started.url
        database = Database(url, Settings())
        schema.migrate(database)
        database.close()
    with open_process(Settings(), url) as process:
        with EmbeddedPostgres(tmp_path / "state"):
            corpus = steps.new_corpus(process)
            (number,) = (int(name[5:]) for name in accepted(corpus, steps.TEXTS[0]))
            thread = threading.Thread(
                target=lambda: accepting.until_done(process, corpus.id, [number], seen.append, notes.append)
            )
            thread.start()
            _until(lambda: bool(seen))
        _until(lambda: bool(notes))
        time.sleep(1.0)
        with EmbeddedPostgres(tmp_path / "state"):
            before = len(seen)
            _until(lambda: len(seen) > before)
            steps.run(corpus)
            thread.join(SECONDS)
            assert not thread.is_alive()
    assert len(notes) == 1
    assert "does not answer" in notes[0]


def _until(met: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not met():
        assert time.monotonic() < end
        time.sleep(0.01)
