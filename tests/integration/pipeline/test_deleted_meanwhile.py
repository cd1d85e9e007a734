"""A corpus is deleted while a task reads it: the task reads all of it as it was, and what it found is dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from crochet_tasks.access import tenancy
from crochet_tasks.db import corpora, windows
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.db.sessions import Database
from crochet_tasks.settings import Settings
from tests.support import best, steps

pytestmark = pytest.mark.integration


def deleting(url: str, corpus: Corpus, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; before it is called another process deletes the corpus."""

    def called(*args: Any, **kwargs: Any) -> Any:
        database = Database(url, Settings())
        other = Process(Settings(), database)
        tenancy.remove(other, corpora.DEFAULT_TENANT, corpus.name, corpus.name)
        assert not tenancy.sweep(database, 60.0)
        database.close()
        return function(*args, **kwargs)

    return called


def test_during_a_search(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_process(Settings(), database) as process:
        corpus, broker = steps.new_corpus(process), steps.Broker(monkeypatch)
        steps.accept(corpus, steps.TEXTS[0])
        broker.deliver_all(corpus, "search.part")
        monkeypatch.setattr(windows, "read", deleting(database, corpus, windows.read))
        broker.deliver()
        assert [step.name for step, _ in broker.messages] == ["orthos.store"]
        broker.deliver()
        assert steps.sql(process, "SELECT FROM batches") == []


def test_while_the_best_are_planned(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_process(Settings(), database) as process:
        corpus, broker = steps.new_corpus(process), steps.Broker(monkeypatch)
        steps.accept(corpus, steps.TEXTS[0])
        broker.deliver_all(corpus)
        best.ask(process, corpus)
        broker.publish(corpus)
        process.indexes.forget(corpus.id)  # as in a worker that has not worked on it yet
        process.trees.forget((corpus.id, 1))
        monkeypatch.setattr(Process, "planner", deleting(database, corpus, Process.planner))
        broker.deliver()
        assert broker.messages == []
        assert steps.sql(process, "SELECT FROM best_faces") == []


def test_a_process_keeps_nothing_of_deleted_corpora(process: Process) -> None:
    """From when it reads the phrases of another one on: index, phrases as searches number them, state of a proof."""
    gone, other = steps.new_corpus(process), steps.new_corpus(process)
    steps.ingest_all(gone, steps.TEXTS[:1])
    best.ask(process, gone)
    steps.run(gone)

    def kept() -> list[set[int]]:
        return [{*process.indexes}, *({corpus for corpus, _ in each} for each in (process.trees, process.planners))]

    assert kept() == [{gone.id}] * 3
    tenancy.remove(process, corpora.DEFAULT_TENANT, gone.name, gone.name)
    assert not tenancy.sweep(process.database, 60.0)
    steps.ingest_all(other, steps.TEXTS[:1])
    assert kept() == [{other.id}, {other.id}, set()]
