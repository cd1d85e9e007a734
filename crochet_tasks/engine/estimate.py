"""How many orthos a text holds, without finding them all: for people who want to know before they begin.

Boxes are grown from a sample of the first pairs, and wherever there are many of one shape, from a sample of those: each
stands for as many as its weight says, so the sums are unbiased (Knuth, "Estimating the efficiency of backtrack
programs", 1975, for one path at a time; Chen, "Heuristic sampling", 1992, for many). Several independent repetitions
tell how far to trust the mean.
"""

from __future__ import annotations

import math
import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from crochet_tasks.engine.geometry import Limits, Sides, volume
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.plans import growths
from crochet_tasks.engine.search import Bounds, Enumerating, Window, parts, search, squares
from crochet_tasks.engine.tree import Tree

REPETITIONS = 16
TRIED, LEAST, MOST = 128, 64, 8192
"""boxes of a shape that are grown in one repetition, and first pairs with which it begins: at first, and then"""
BOXES = 6_000_000
"""that are made in all, which takes one to three seconds"""
EXACT = 300_000
"""orthos up to which a text is counted instead"""
STUDENT = 2.13
"""97.5 % of Student's t with 15 degrees of freedom"""

Weights = npt.NDArray[np.float64]


class Guess(NamedTuple):
    """How many, and an interval that holds the true number 19 times in 20 where repetitions are like one another."""

    orthos: float
    low: float
    high: float


class Estimate(NamedTuple):
    """Of each shape, and of all; `complete`: counted, not estimated. `rate`: orthos that one core finds in a second."""

    shapes: dict[Sides, Guess]
    total: Guess
    complete: bool
    rate: float


def estimate(tree: Tree, limits: Limits, *, seed: int = 0) -> Estimate:
    """Estimate the closure of a tree's version; the same tree, limits and seed give the same numbers.

    Memory and time do not depend on how many orthos there are: at most a few seconds.
    """
    began = time.perf_counter()
    counted = _counted(tree, limits)
    if counted is not None:
        shapes = {sides: Guess(number, number, number) for sides, number in counted.items()}
        total = float(sum(counted.values()))
        rate = total / max(1e-6, time.perf_counter() - began)
        return Estimate(shapes, Guess(total, total, total), complete=True, rate=rate)
    random = np.random.default_rng(seed)
    sampler = _Sampler(tree, limits)
    began = time.perf_counter()
    sampler.repetition(TRIED, random)
    sample = min(max(TRIED * BOXES // (REPETITIONS * max(1, sampler.made)), LEAST), MOST)
    repeated = [sampler.repetition(sample, random) for _ in range(REPETITIONS)]
    rate = sampler.made / (time.perf_counter() - began)
    every = sorted({sides for one in repeated for sides in one})
    shapes = {sides: _guess([one.get(sides, 0.0) for one in repeated]) for sides in every}
    return Estimate(shapes, _guess([sum(one.values()) for one in repeated]), complete=False, rate=rate)


def _counted(tree: Tree, limits: Limits) -> dict[Sides, int] | None:
    """The exact counts; None where there are more than EXACT orthos."""
    everything = Window(tree, 0, None)
    found: dict[Sides, int] = {}
    todo = parts(everything)
    while todo:
        outcome = search(everything, limits, todo.pop(), Bounds(result_orthos=EXACT // 8))
        todo += outcome.left_over
        for run in outcome.found:
            found[run.sides] = found.get(run.sides, 0) + len(run.rows)
        if sum(found.values()) > EXACT:
            return None
    return found


def _guess(values: list[float]) -> Guess:
    """Mean and interval of repetitions; the interval by factors, because such counts are skewed to the right."""
    mean = math.fsum(values) / len(values)
    if not mean:
        return Guess(0.0, 0.0, 0.0)
    spread = STUDENT * float(np.std(values, ddof=1)) / mean / math.sqrt(len(values))
    return Guess(mean, mean * math.exp(-spread), mean * math.exp(spread))


class _Sampler:
    def __init__(self, tree: Tree, limits: Limits) -> None:
        self._tree, self._limits = tree, limits
        self._way = Enumerating(Window(tree, 0, None), limits)
        self._cost = squares(tree) + 1.0  # what no square is expected of may have some
        self.made = 0
        """boxes that were found in all repetitions"""

    def repetition(self, sample: int, random: np.random.Generator) -> dict[Sides, float]:
        """One estimate of the number of orthos per shape."""
        chosen, weight = _chosen(self._cost, sample, random)
        pairs = (self._tree.levels[1] + chosen).astype(np.uint32).reshape(-1, 1)
        boxes: dict[Sides, list[tuple[Ids, Weights]]] = {(2,): [(pairs, weight / self._cost[chosen])]}
        found: dict[Sides, float] = {}
        while boxes:
            sides = min(boxes, key=lambda sides: (volume(sides), sides))
            rows, weights = (np.concatenate(part) for part in zip(*boxes.pop(sides), strict=True))
            if len(sides) > 1:
                found[sides] = float(weights.sum())
            if len(rows) > sample:
                chosen, weight = _chosen(weights, sample, random)
                rows, weights = np.ascontiguousarray(rows[chosen]), np.full(len(chosen), weight)
            for axis, child, _ in growths(sides, self._limits):
                made = self._way.kernel(sides, axis, canonical=True).children(rows, track=True)
                if len(made):
                    boxes.setdefault(child, []).append((np.ascontiguousarray(made[:, 1:]), weights[made[:, 0]]))
                    self.made += len(made)
        return found


def _chosen(sizes: Weights, number: int, random: np.random.Generator) -> tuple[npt.NDArray[np.int64], float]:
    """Systematic sampling: places drawn in proportion to their sizes, and the total of sizes that each stands for."""
    ends = np.cumsum(sizes)
    step = float(ends[-1]) / number
    points = (np.arange(number) + random.random()) * step
    return np.minimum(np.searchsorted(ends, points, side="right"), len(sizes) - 1), step
