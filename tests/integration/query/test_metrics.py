"""What is counted of probable checks is what was asked for and what is stored."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import SecretStr

from crochet_tasks.db.process import Process
from crochet_tasks.query.catalog import Catalog
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import instruments, metrics
from crochet_tasks.telemetry.instruments import Metric
from tests.support.catalog import ALL, SECRET, Look, pages
from tests.support.server import HOST, take_port

pytestmark = pytest.mark.integration

ABSENT = [f"{number:032x}" for number in range(50)]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[object, ...]]:
    """What was counted, by metric and label."""
    seen: Counter[tuple[object, ...]] = Counter()

    def watch(counter: Metric) -> None:
        monkeypatch.setattr(counter, "add", lambda number=1, **by: seen.update({(counter, *by.values()): number}))

    for counter in (metrics.FILTER, metrics.FILTER_CHECKED, metrics.FILTER_AWAY):
        watch(counter)
    monkeypatch.setattr(instruments, "recorded", lambda: True)
    return seen


def test_answers_of_the_filter_and_how_many_of_them_are_wrong(
    process: Process,
    redis_url: str,
    look: Look,
    counted: Counter[tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One answer in so many is looked into, where all batches are in memory; a filter that errs is found out."""
    catalog = Catalog(Process(Settings(redis_url=SecretStr(redis_url)), process.database), SECRET)
    monkeypatch.setattr("crochet_tasks.query.catalog.LEFT_OUT", 0)
    pages(catalog, look, 1000)
    asked, there = [*(ortho.id for ortho in ALL), *ABSENT], len(ALL)
    probably = catalog.filters.probably
    for errs in (False, True):
        monkeypatch.setattr(catalog.filters, "probably", lambda *of, errs=errs: probably(*of) | errs)
        catalog.check(*look.args, asked, exact=False)
        wrong = len(ABSENT) if errs else counted[metrics.FILTER, "maybe"] - there
        said = {"maybe": there + wrong, "no": len(ABSENT) - wrong}
        assert {answer: counted[metrics.FILTER, answer] for answer in said} == said
        assert counted[metrics.FILTER_CHECKED, "stored"] == there
        assert counted[metrics.FILTER_CHECKED, "false_positive"] == wrong <= (len(ABSENT) if errs else 5)
        assert counted[metrics.FILTER_AWAY,] == 0
        counted.clear()
        monkeypatch.setattr("crochet_tasks.query.catalog.SAMPLED", 1)


def test_checks_without_the_filter(
    process: Process,
    look: Look,
    counted: Counter[tuple[object, ...]],
) -> None:
    """Each of them, and nothing else."""
    catalog = Catalog(Process(Settings(redis_url=SecretStr(f"redis://{HOST}:{take_port()}")), process.database), SECRET)
    for _ in range(2):
        assert catalog.check(*look.args, ABSENT, exact=False).degraded
    assert counted == {(metrics.FILTER_AWAY,): 2}
