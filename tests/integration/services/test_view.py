"""`crochet view` does the work of all corpora in turns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from crochet_tasks.db import tally
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.embedded import pipeline
from crochet_tasks.schemas.progress import Outcome
from crochet_tasks.services import view
from tests.support import steps
from tests.support.steps import TEXTS

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("seconds", [0.0, 10_000.0])
def test_no_corpus_waits_for_all_the_work_of_another(
    process: Process, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """With a turn that is over at once, each gives way behind a piece of work; one that lasts closes its corpus."""
    monkeypatch.setattr(view, "TURN_SECONDS", seconds)
    monkeypatch.setattr(view, "PAUSE_SECONDS", 0.0)
    both = [steps.new_corpus(process) for _ in range(2)]
    for corpus in both:
        steps.accept(corpus, *TEXTS)
    stopped, turns = threading.Event(), []
    close: Callable[..., Outcome] = pipeline.close

    def closing(process_: Process, corpus: Corpus, **how: Any) -> Outcome:
        outcome = close(process_, corpus, **how)
        turns.append(corpus.id)
        with process.database.snapshot() as connection:
            if not any(tally.any_open(connection, each.id) for each in both):
                stopped.set()
        return outcome

    monkeypatch.setattr(pipeline, "close", closing)
    view._work(process, stopped)
    for corpus in both:
        assert steps.stored(process, corpus) == steps.expected(TEXTS)
    mine = [each for each in turns if each in {corpus.id for corpus in both}]
    if seconds:
        assert mine == [corpus.id for corpus in both]
    else:
        assert len(mine) > 2
        assert mine[0] != mine[1]
