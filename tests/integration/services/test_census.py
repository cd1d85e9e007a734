"""The relay's census: which texts it counts as closed, each once; what work there is; a bug does not end it."""

from __future__ import annotations

import itertools
from typing import NoReturn

import pytest

from crochet_tasks import publish
from crochet_tasks.db import tally
from crochet_tasks.db.process import Process
from crochet_tasks.services.census import CensusThread
from crochet_tasks.telemetry import metrics
from tests.support import steps
from tests.support.past import Past

pytestmark = pytest.mark.integration


@pytest.fixture
def ages(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How old each text was that was counted as closed."""
    observed: list[float] = []
    monkeypatch.setattr(metrics.TEXT_CLOSED, "observe", observed.append)
    return observed


def test_a_corpus_that_came_and_was_closed_between_two_censuses_counts(process: Process, ages: list[float]) -> None:
    """Though no census saw work of it; what was closed before the first census does not count, whenever that was."""
    steps.ingest_all(steps.new_corpus(process), steps.TEXTS[:1])
    counting = CensusThread(process)
    counting.count()
    assert ages == []
    steps.ingest_all(steps.new_corpus(process), steps.TEXTS[:2])
    counting.count()
    assert len(ages) == 2
    counting.count()
    assert len(ages) == 2


def test_all_texts_of_a_corpus_that_came_between_two_censuses_count(process: Process, ages: list[float]) -> None:
    """Also those whose work was done before the first census with it, which found only that of a later one."""
    counting = CensusThread(process)
    counting.count()
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS[:2])
    steps.accept(corpus, steps.TEXTS[2])
    while (item := publish.publish_next(corpus.id)) and item.kind != "context":
        pass
    counting.count()
    assert ages == []
    steps.run(corpus)
    counting.count()
    assert len(ages) == 3


PUBLISHED = """
INSERT INTO work (id, kind, corpus, subject, part, since, version, priority, published_at)
SELECT gen_random_uuid(), 'search', :corpus, 1, '[0,1)', 0, 1, 1, now() - make_interval(secs => :ago * number)
  FROM generate_series(1, 3) AS number
"""


def test_work_is_counted_by_kind(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in flight and what is overdue, which is 0 again when it is not any more."""
    observed: dict[tuple[str, ...], float] = {}
    for gauge in (metrics.OPEN, metrics.OVERDUE):
        name = gauge.name
        monkeypatch.setattr(gauge, "set", lambda value, of=name, **by: observed.update({(of, *by.values()): value}))
    counting, lease = CensusThread(process), process.settings.lease
    steps.sql(process, PUBLISHED, corpus=steps.new_corpus(process).id, ago=0.4 * lease)
    counting.count()
    assert observed.pop(("crochet_work_open", "search", "published")) == 3
    assert observed.pop(("crochet_work_overdue", "search")) == 1
    assert set(observed.values()) == {0}
    steps.sql(process, "DELETE FROM work")
    counting.count()
    assert set(observed.values()) == {0}


def test_work_that_a_spent_budget_holds_back_is_held(process: Process) -> None:
    """No worker is to do it, so nothing stalls by it; ready again when the budget is raised."""
    past = Past(process, steps.new_corpus(process))
    past.opened(3)
    steps.sql(past.process, "INSERT INTO counts VALUES (:corpus, '{2,2}', 7, 1)", corpus=past.corpus.id)
    for budget, state in [(7, "held"), (8, "ready"), (None, "ready")]:
        steps.sql(past.process, "UPDATE corpora SET budget = :b WHERE id = :corpus", b=budget, corpus=past.corpus.id)
        with past.process.database.snapshot() as connection:
            seen = tally.census(connection, 150, 5)
        groups = [group for group in seen.work if group.corpus == past.corpus.id]
        assert [(group.kind, group.state, group.number) for group in groups] == [("search", state, 3)]


WORK = """
INSERT INTO work (id, kind, corpus, subject, part, since, version, priority, state, finished_at, error)
SELECT gen_random_uuid(), :kind, :corpus, 1, CAST(:part AS int4range), 0, :version, 1, :state,
       CASE WHEN :state = 'cancelled' THEN now() END, CASE WHEN :state = 'failed' THEN '{"code": "x"}'::jsonb END
"""


@pytest.mark.parametrize(
    ("kind", "state", "closed"),
    [
        ("search", "open", False),
        ("search", "failed", False),
        ("search", "cancelled", False),
        ("remediations", "failed", False),
        ("context", "open", False),
        ("context", "failed", True),
        ("best", "open", True),
        ("best", "failed", True),
    ],
)
def test_what_leaves_a_corpus_unclosed(process: Process, kind: str, state: str, closed: bool) -> None:
    """A text that failed is no part of its corpus, and a search for the best finds nothing for the store. A census says
    the same, but of what an operator dropped.
    """
    corpus = steps.new_corpus(process)
    part, version = "[0,1)" if kind == "search" else None, int(kind in tally.SEARCHING)
    steps.sql(process, WORK, corpus=corpus.id, kind=kind, part=part, version=version, state=state)
    with process.database.snapshot() as connection:
        assert tally.left(connection, corpus.id).closed is closed
        groups = [group for group in tally.census(connection, 150, 5).work if group.corpus == corpus.id]
    if state != "cancelled":
        assert [group.unclosed for group in groups] == [not closed]


def test_a_bug_does_not_end_the_counting(
    process: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported once, and the next census is tried."""
    tried = itertools.count(1)

    class Enough(BaseException):
        """What ends the thread."""

    def broken(_self: CensusThread) -> NoReturn:
        raise KeyError("a bug") if next(tried) < 3 else Enough

    monkeypatch.setattr(CensusThread, "count", broken)
    monkeypatch.setattr("crochet_tasks.services.census.PAUSE_SECONDS", 0.0)
    with pytest.raises(Enough):
        CensusThread(process).run()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["census_failed"]
