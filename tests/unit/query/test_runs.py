"""Runs: where ids may be, of many batches at once."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crochet_tasks.engine.geometry import Halves
from crochet_tasks.query.batches_cache import Ref, Sorted
from crochet_tasks.query.runs import LARGER, NO_RUNS, Run, Runs

SIDES = (2, 2)
FIRST = st.sampled_from([0, 1, 1 << 32, (1 << 32) + 1, 7 << 40, (1 << 64) - 1])
"""many of them equal, or alike in what a run knows of them"""
BATCHES = st.lists(st.lists(FIRST, min_size=1, max_size=6), min_size=1, max_size=8)


def run_of(number: int, first: list[int]) -> Run:
    ids = np.sort(np.array(first, np.uint64))
    return Run.of([(Ref(number, SIDES, len(ids)), Sorted(SIDES, ids, np.zeros((4, len(ids)), np.int32), twins=False))])


def ids_of(first: list[int]) -> Halves:
    return np.array([(each, 0) for each in first], np.uint64).reshape(-1, 2)


@given(BATCHES, st.lists(FIRST, max_size=6))
def test_all_places_where_an_id_may_be_are_told_once(batches: list[list[int]], asked: list[int]) -> None:
    """Those whose ids have the same head, of every batch, however often the runs were merged."""
    runs = NO_RUNS
    for number, first in enumerate(batches):
        runs = runs.and_(run_of(number, first))
    found = Counter(
        (each.ref.id, which, place)
        for run in runs.every
        for each in run.find(ids_of(asked))
        for which, place in zip(each.queried.tolist(), each.places.tolist(), strict=True)
    )
    assert found == Counter(
        (number, which, place)
        for number, first in enumerate(batches)
        for place, one in enumerate(sorted(first))
        for which, other in enumerate(asked)
        if one >> 32 == other >> 32
    )


def test_runs_stay_few_and_an_ortho_is_moved_seldom() -> None:
    """A thousand equal batches end in a handful of runs; none is merged again for a small one."""
    runs, moved = Runs(), 0
    for number in range(1000):
        before = runs.every
        runs = runs.and_(run_of(number, [number << 40]))
        moved += sum(run.size for run in runs.every if not any(run is other for other in before))
    assert runs.size == 1000
    assert len(runs.every) <= math.log2(1000)
    assert moved <= 1000 * LARGER * math.log2(1000)
    assert runs.lacks([Ref(999, SIDES, 1), Ref(1000, SIDES, 1)]) == [Ref(1000, SIDES, 1)]
