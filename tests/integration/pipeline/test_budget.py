"""A run with a budget: it ends soon after, says what is left, and a later run finds exactly the rest."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from crochet_tasks.cli import running
from crochet_tasks.cli.common import Orthos
from crochet_tasks.cli.running import Finished, Request
from crochet_tasks.db import corpora, windows
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.embedded import budget, pipeline
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.schemas.progress import EndReason
from crochet_tasks.settings import Settings
from tests.support import steps

pytestmark = pytest.mark.integration

LIMITS = Limits(max_axes=2, max_side=3)


def text() -> str:
    """Pairs of 20 words, at random: thousands of 2x2 and 2x3."""
    chosen = random.Random(12)
    words = [f"{first}{second}" for first in "abcde" for second in "klmn"]
    return ", ".join(" ".join(chosen.sample(words, 3)) for _ in range(150))


@pytest.fixture
def process(database: str) -> Iterator[Process]:
    with open_process(Settings(), database) as process:
        yield process


def test_a_spent_budget_leaves_parts_and_all_finds_exactly_the_rest(process: Process) -> None:
    """With any number in between."""
    expected = steps.expected([text()], LIMITS)
    assert expected.total() > 3000
    corpus = steps.new_corpus(process, LIMITS)
    steps.accept(corpus, text())
    before = 0
    for most in (500, 1000):
        outcome = pipeline.close(process, corpus, budget=most)
        assert outcome.ended is EndReason.BUDGET
        assert most <= outcome.progress.total < expected.total()
        stored = steps.stored(process, corpus)
        assert stored <= expected
        assert stored.total() == outcome.progress.total > before
        before = stored.total()
        with process.database.snapshot() as connection:
            (left,) = windows.left(connection, corpus.id)
        assert (left.version, left.since) == (1, 0)
        assert left.starts == len({pair for line in text().split(", ") for pair in itertools.pairwise(line.split())})
        assert left.starts_left < left.starts
        assert left.starts_left or left.left_over
        assert left.left_over <= outcome.progress.work.open
    assert pipeline.close(process, corpus).ended is EndReason.CLOSED
    assert steps.stored(process, corpus) == expected
    with process.database.snapshot() as connection:
        assert windows.left(connection, corpus.id) == []


def test_the_budget_of_a_corpus_is_exceeded_by_little_too(process: Process) -> None:
    """In any process. A search may find three times its bound, and here a few at least."""
    corpus = steps.new_corpus(process, LIMITS)
    steps.sql(process, "UPDATE corpora SET budget = 800 WHERE id = :id", id=corpus.id)
    steps.ingest_all(corpus, [text()])
    stored = steps.stored(process, corpus)
    assert 800 <= stored.total() <= 1600
    assert stored <= steps.expected([text()], LIMITS)


def test_what_a_search_may_find_falls_with_the_budget(process: Process) -> None:
    """An eighth of what is left, a few at least; and nothing of that is left for the next work of this process."""
    assert process.search_bounds(None, stored=9) == process.search_bounds(10**9, stored=0) == process.bounds
    assert [process.search_bounds(8000, stored).result_orthos for stored in (0, 4000, 7500, 9000)] == [
        1000,
        500,
        100,
        100,
    ]
    process.budget = 2000
    assert [process.search_bounds(budget, stored=0).result_orthos for budget in (None, 8000, 800)] == [250, 250, 100]
    pipeline.close(process, steps.new_corpus(process), budget=5)
    assert process.budget is None


# ── crochet run ─────────────────────────────────────────────────────────────────────────────────


def run(database: str, files: list[str], given: Orthos | None, name: str = "main") -> Finished:
    settings = Settings.load(database_url=database, default_budget=50)
    return running.run(settings, Request(files, name, LIMITS._asdict(), given))


def test_a_corpus_of_a_shared_database_has_the_default_budget(database: str, tmp_path: Path, process: Process) -> None:
    """Other processes search it, too. What the command asks for beyond it becomes the budget of the new corpus."""
    file = tmp_path / "text.txt"
    file.write_text(text(), encoding="utf-8")
    made = {"default": None, "less": Orthos(20), "more": Orthos(60), "all": Orthos(None)}
    reports = {name: run(database, [str(file)], given, name).report for name, given in made.items()}
    with process.database.snapshot() as connection:
        assert {name: corpora.named(connection, name).budget for name in made} == {
            "default": 50, "less": 50, "more": 60, "all": None,
        }  # fmt: skip
    assert {name: (report.budget, report.ended) for name, report in reports.items()} == {
        "default": (50, "budget"),
        "less": (20, "budget"),
        "more": (60, "budget"),
        "all": (None, "closed"),
    }
    expected = steps.expected([text()], LIMITS).total()
    for report in reports.values():
        assert report.estimate is not None
        assert (report.estimate.exact, report.estimate.orthos) == (True, expected)
    assert reports["all"].total == expected
    again = run(database, [], Orthos(None), "default").report  # the corpus' budget holds
    assert (again.budget, again.budget_of, again.ended) == (50, "corpus", "budget")
    assert [window.version for window in again.unfinished] == [1]


def test_the_disk_bounds_the_default_of_a_private_server(
    ready_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 MB are kept in reserve, and four bytes are planned for an ortho."""
    settings = Settings(state_dir=tmp_path / "state")
    monkeypatch.setattr(budget, "free_bytes", lambda folder: (64 << 20) + 4000)
    assert budget.room(settings, stored=7) == 1007
    monkeypatch.setattr(budget, "free_bytes", lambda folder: 5)
    assert budget.room(settings, stored=7) == 7
    assert budget.room(Settings.load(database_url="postgresql://db/crochet"), stored=7) is None
