"""Work on hold for a spent budget is reported as `held` everywhere."""

from __future__ import annotations

from typing import Any

import pytest

from crochet_tasks.db import corpora, tally
from crochet_tasks.operate import inspection
from crochet_tasks.reporting import reports
from tests.support import steps
from tests.support.api import Api

pytestmark = pytest.mark.integration


def test_what_a_spent_budget_holds_back_is_held(api: Api) -> None:
    """By lists, status, statistics and the census alike; ready when the budget is raised."""
    corpus = steps.new_corpus(api.process)
    steps.ingest_all(corpus, steps.TEXTS[:1])
    steps.sql(api.process, "UPDATE corpora SET budget = 1")
    steps.accept(corpus, steps.TEXTS[1])
    steps.run(corpus)
    for budget, state, other in [(1, "held", "ready"), (None, "ready", "held")]:
        steps.sql(api.process, "UPDATE corpora SET budget = :budget", budget=budget)
        seen: dict[str, Any] = api.read.get(f"/v1/corpora/{corpus.name}/status").get_json()
        number = seen["work"]["open"]
        assert number > 0
        assert {kind: {state: sum(each.values())} for kind, each in seen["by_kind"].items()} == seen["by_kind"]
        kinds = seen["statistics"]["work"].values()
        assert (sum(kind[state] for kind in kinds), sum(kind[other] for kind in kinds)) == (number, 0)
        listed = {wanted: work(api, corpus.name, wanted) for wanted in ("open", state, other)}
        assert (listed["open"], listed[other]) == (listed[state], [])
        assert {line["state"] for line in listed[state]} == {state}
        assert len(listed[state]) == number
        assert ("budget" in inspection.details(api.process, listed[state][0]["id"]).next) == (state == "held")
        with api.process.database.snapshot() as connection:
            counted = [(group.state, group.number) for group in tally.census(connection, 150, 5).work]
            (found,) = corpora.every(connection)
            page = reports.corpus_status(connection, found).by_kind
        assert ({state for state, _ in counted}, sum(each for _, each in counted)) == ({state}, number)
        assert page == seen["by_kind"]


def work(api: Api, corpus: str, state: str) -> list[dict[str, Any]]:
    answer = api.read.get(f"/v1/corpora/{corpus}/work", query_string={"state": state, "limit": 100})
    assert answer.status_code == 200
    lines: list[dict[str, Any]] = answer.get_json()["work"]
    return lines
