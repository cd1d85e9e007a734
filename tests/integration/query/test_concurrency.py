"""Threads that read for different corpora do not wait for one another."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from crochet_tasks.db import texts
from crochet_tasks.db.process import Process
from crochet_tasks.query.catalog import Catalog
from tests.support import steps
from tests.support.catalog import SECRET, Snapshot, in_runs
from tests.support.waiting import SECONDS

pytestmark = pytest.mark.integration


def test_a_slow_read_of_one_corpus_holds_up_no_other(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """And threads that want the same corpus read it once."""
    slow, other = in_runs(process, steps.TEXTS[:1], 1), in_runs(process, steps.TEXTS[:1], 1)
    catalog = Catalog(process, SECRET)
    began, may_end = threading.Semaphore(0), threading.Event()
    read: list[int] = []
    bring_forward = texts.bring_forward

    def held(connection: Any, corpus: int, *args: Any, **named: Any) -> Any:
        read.append(corpus)
        if corpus == slow.id:
            began.release()
            assert may_end.wait(SECONDS)
        return bring_forward(connection, corpus, *args, **named)

    def orthos(corpus: Any) -> int:
        with process.database.snapshot() as connection:
            return len(catalog.best(*Snapshot(connection, corpus).args, 1000))

    monkeypatch.setattr(texts, "bring_forward", held)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(orthos, slow)]
        assert began.acquire(timeout=SECONDS)
        waiting.append(pool.submit(orthos, slow))
        try:
            assert pool.submit(orthos, other).result(SECONDS) > 0
            assert not any(each.done() for each in waiting)
        finally:
            may_end.set()
        assert len({each.result(SECONDS) for each in waiting}) == 1
    assert sorted(read) == sorted([slow.id, other.id])
