"""Work and texts that fail as a test wants them to, and what operators see of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from crochet_tasks import app, publish
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine.phrases import Additions, PhraseIndex
from crochet_tasks.intake import admission
from crochet_tasks.operate import inspection
from crochet_tasks.reporting import reports
from crochet_tasks.schemas.names import text_name
from crochet_tasks.schemas.reports import CorpusStatus, WorkLine
from tests.support import steps
from tests.support.waiting import SECONDS


class Bug(Exception):
    """In a stage."""


class Poison(Exception):
    """A bug that texts with one word meet."""


def poison(patch: pytest.MonkeyPatch) -> None:
    """From now on the word "poison" is a bug in the program."""
    additions = PhraseIndex.additions

    def poisoned(index: PhraseIndex, sentences: list[list[str]], max_side: int) -> Additions:
        if any("poison" in sentence for sentence in sentences):
            raise Poison("cannot be swallowed")
        return additions(index, sentences, max_side)

    patch.setattr(PhraseIndex, "additions", poisoned)


def accepted(corpus: Corpus, *texts: str) -> list[str]:
    """Accept texts; what they are called."""
    return [text_name(admission.accept(corpus, body[:20], body)[0].id) for body in texts]


def run_on(corpus: Corpus) -> None:
    """Do all work that can be done; what fails is noted with it."""
    while True:
        with contextlib.suppress(Bug):
            if not publish.publish_next(corpus.id):
                return


def failing(patch: pytest.MonkeyPatch, stage: str) -> None:
    def bug(*args: object, **kwargs: object) -> NoReturn:
        raise Bug("a bug")

    patch.setattr(app.app.tasks[stage], "run", bug)


def with_failed(process: Process, corpus: Corpus, patch: pytest.MonkeyPatch, stage: str, *texts: str) -> list[WorkLine]:
    """Accept texts and have a stage fail on them; the work that failed."""
    with patch.context() as broken:
        failing(broken, stage)
        accepted(corpus, *texts or steps.TEXTS)
        run_on(corpus)
    return inspection.listed(process, corpus=corpus.name, state="failed").work


def with_bug(corpus: Corpus, patch: pytest.MonkeyPatch, stage: str) -> None:
    """Accept a text and have a stage fail on it for good, with an error that tenants may not read."""

    def bug(*args: object, **kwargs: object) -> NoReturn:
        raise ValueError("of the inside")

    steps.accept(corpus, *steps.TEXTS[:1])
    with patch.context() as broken:
        broken.setattr(app.app.tasks[stage], "run", bug)
        with pytest.raises(ValueError, match="inside"):
            steps.run(corpus)


def status(process: Process, corpus: Corpus) -> CorpusStatus:
    return next(each for each in reports.status(process).corpora if each.corpus == corpus.name)


def states(process: Process, corpus: Corpus, **wanted: Any) -> list[str]:
    return [line.state for line in inspection.listed(process, corpus=corpus.name, **wanted).work]


def texts(process: Process, corpus: Corpus) -> list[tuple[object, ...]]:
    return steps.sql(process, "SELECT state, version FROM texts WHERE corpus = :corpus ORDER BY seq", corpus=corpus.id)


@contextlib.contextmanager
def running(step: Callable[[], object]) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=step)
    thread.start()
    yield thread
    thread.join(SECONDS)
    assert not thread.is_alive()
