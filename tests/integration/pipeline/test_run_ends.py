"""What ends a run in one process: trouble that stays, a dead thread, a full disk; nothing is lost."""

from __future__ import annotations

import re
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import NoReturn

import pytest

from crochet_tasks.db.process import open_process
from crochet_tasks.embedded import pipeline, store
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.errors import (
    DatabaseConflict,
    DiskNearlyFull,
    ProcessExhausted,
)
from crochet_tasks.retry import Policy
from crochet_tasks.schemas.progress import EndReason
from crochet_tasks.settings import Settings
from tests.support import steps

pytestmark = pytest.mark.integration


def test_trouble_that_stays_is_reported(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may succeed later is tried a few times, by both threads together, and then raised."""
    tries: list[None] = []

    def unavailable(*_: object) -> NoReturn:
        tries.append(None)
        raise DatabaseConflict(reason="a test")

    monkeypatch.setattr(PhraseIndex, "additions", unavailable)
    monkeypatch.setattr(pipeline, "OUTAGE", Policy(first=0.001, attempts=6))
    with open_process(Settings(), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, *steps.TEXTS)
        with pytest.raises(DatabaseConflict):
            pipeline.close(process, corpus)
        assert 6 <= len(tries) <= 6 + pipeline.WORKERS
        monkeypatch.undo()
        pipeline.close(process, corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def test_the_death_of_a_thread_ends_the_run(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's pool loses the piece of a thread that dies outside of it, for want of memory say: nothing waits for it.

    The next run does the piece again.
    """
    monkeypatch.setattr(pipeline, "ALIVE_SECONDS", 0.05)
    with open_process(Settings(), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, *steps.TEXTS)
        with monkeypatch.context() as patch:
            patch.setattr(Future, "set_result", _out_of_memory)
            with pytest.raises(ProcessExhausted, match="nothing is lost"):
                pipeline.close(process, corpus)
        pipeline.close(process, corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def test_a_disk_that_fills_stops_the_run_before_postgres_fails(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is kept and can be read; with room again the next run closes the corpus."""
    settings = Settings(state_dir=state)
    free = iter([1 << 40, 1 << 40])
    with store.opened(settings) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, *steps.TEXTS)
        with monkeypatch.context() as patch:
            patch.setattr(store, "free_bytes", lambda folder: next(free, 5 << 20))
            outcome = pipeline.close(process, corpus)
            assert outcome.ended is EndReason.DISK
            assert isinstance(outcome.failure, DiskNearlyFull)
            says = r"5 MB are free at .*state, and 64 MB are kept in reserve.*make room.*run it again.*nothing is lost"
            assert re.search(says, str(outcome.failure))
        assert steps.stored(process, corpus) != steps.expected(steps.TEXTS)
        assert pipeline.close(process, corpus).ended is EndReason.CLOSED
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


@pytest.fixture
def state(ready_state: Path, tmp_path: Path) -> Path:
    return tmp_path / "state"


def _out_of_memory(*_: object) -> NoReturn:
    raise MemoryError


def test_a_thread_that_cannot_be_started_ends_the_run(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_process(Settings(), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, *steps.TEXTS)
        monkeypatch.setattr(threading.Thread, "start", _no_thread)
        with pytest.raises(ProcessExhausted):
            pipeline.close(process, corpus)


def _no_thread(*_: object) -> NoReturn:
    raise RuntimeError("can't start new thread")
