"""Which budget a run has."""

from __future__ import annotations

import pytest

from crochet_tasks.embedded import budget
from crochet_tasks.embedded.budget import Budget

ALL = Budget(None, "option")
GIVEN = Budget(500, "option")


@pytest.mark.parametrize(
    ("option", "of_corpus", "default", "room", "expected"),
    [
        (None, None, 1000, None, Budget(1000, "default")),
        (None, None, 1000, 2000, Budget(1000, "default")),
        (None, None, 1000, 300, Budget(300, "disk")),
        (None, None, None, 300, Budget(300, "disk")),
        (None, None, None, None, Budget(None, "default")),
        (None, None, 1000, 0, Budget(1, "disk")),  # not even one fits: a budget is at least 1
        (GIVEN, None, 1000, 300, GIVEN),  # what is asked for is tried: the reserve stops it
        (ALL, None, 1000, 300, ALL),
        (None, 2000, 1000, 300, Budget(2000, "corpus")),  # set for this corpus, unlike the default
        (GIVEN, 2000, 1000, None, GIVEN),
        (GIVEN, 20, 1000, None, Budget(20, "corpus")),
        (ALL, 20, 1000, None, Budget(20, "corpus")),
    ],
)
def test_the_budget_of_a_run(
    option: Budget | None, of_corpus: int | None, default: int | None, room: int | None, expected: Budget
) -> None:
    assert budget.of_run(option, of_corpus, default, room) == expected
