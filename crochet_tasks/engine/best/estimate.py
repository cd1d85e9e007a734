"""About how much the search of a shape is, without doing it: for people who wait, and to choose what is tried first.

The search is thinned: of what fits at each level an even sample is followed (systematic sampling), at rates that keep
about the same number alive throughout; a pilot finds the rates. As all of a level stand for equally many, the sums are
unbiased. Chen, "Heuristic sampling" (1992), is the idea. What is rare may be missed altogether: an estimate of 0 is no
proof of anything.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from crochet_tasks.engine.best.faces import Counts, Search

TRIED = 200_000
"""visits of a search that is tried to be counted first: a few milliseconds"""
PILOTS = (100, 1_000)
ALIVE = 1_000
"""that are followed at each level"""
REPETITIONS = 6
STUDENT = 2.57
"""97.5 % of Student's t with 5 degrees of freedom"""
MOST_VISITS = 4_000_000
"""of one repetition, if the rates are far off"""


class Guess(NamedTuple):
    """Visits of a whole search, with an interval, and about how many orthos it finds. `exact`: counted."""

    visits: float
    low: float
    high: float
    boxes: float
    exact: bool


def estimate(search: Search, *, seed: int = 0) -> Guess:
    """Estimate a search; the same one and the same seed give the same numbers."""
    go_on = np.zeros(1, np.uint8)
    levels = search.tables.cells * (search.tables.layers - 1)
    counts, complete = search.thinned(go_on, visits=TRIED, rates=None, due=[0.0] * levels)
    if complete:
        visits = float(counts.sum())
        return Guess(visits, visits, visits, float(counts[-1]), exact=True)
    random = np.random.default_rng(seed)
    rates = [min(1.0, PILOTS[0] / max(1, len(search.starts)))] + [0.3] * (levels - 1)

    def repetition() -> Counts:
        due = random.random(levels).tolist()
        counts, _ = search.thinned(go_on, visits=MOST_VISITS, rates=rates, due=due)
        followed: Counts = np.concatenate([[1.0], np.cumprod(rates[:-1])])
        return counts / followed

    for alive in (*PILOTS[1:], ALIVE):
        rates = _rates(repetition(), alive)
    repeated = np.array([repetition() for _ in range(REPETITIONS)])
    totals = repeated.sum(axis=1)
    mean = float(totals.mean())
    spread = STUDENT * float(totals.std(ddof=1)) / len(totals) ** 0.5
    return Guess(mean, max(0.0, mean - spread), mean + spread, float(repeated[:, -1].mean()), exact=False)


def _rates(counts: Counts, alive: int) -> list[float]:
    """Rates at which about so many of each level are followed."""
    rates: list[float] = []
    share = 1.0
    for count in counts.tolist():
        rates.append(min(1.0, alive / (count * share)) if count else 1.0)
        share *= rates[-1]
    return rates
