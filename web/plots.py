"""Plots as SVG that the templates draw: only numbers are made here. Each has its data in a table beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 600, 140
"""of a plot's viewBox"""
POINTS = 200
"""of a line, at the most: more than there are pixels to tell apart"""


def share(value: float, most: float) -> float:
    """How long a bar is on a logarithmic scale, from 0 to 100: 1 is as long as can be seen, `most` is 100."""
    if value <= 0 or most <= 0:
        return 0.0
    return round(4 + 96 * (math.log(value) / math.log(most) if most > 1 else 1), 2)


class Curve(NamedTuple):
    """A line over steps 1, 2, ...: `points` as SVG's polyline has them, `most` at its top."""

    points: str
    most: float


def curve(values: Sequence[float]) -> Curve:
    """Values from 0 to their largest, from left to right; of many, some that are evenly spread and the last."""
    most = max(values, default=0)
    last = len(values) - 1
    chosen = (
        sorted({round(step * last / (POINTS - 1)) for step in range(POINTS)}) if last >= POINTS else range(last + 1)
    )
    points = [
        f"{WIDTH * place / max(1, last):.1f},{HEIGHT - HEIGHT * values[place] / (most or 1):.1f}" for place in chosen
    ]
    return Curve(" ".join(points), most)


def sampled(values: Sequence[object], most: int) -> list[int]:
    """The places of at most so many of the values, evenly spread, the last one among them."""
    last = len(values) - 1
    if last < most:
        return list(range(last + 1))
    return sorted({round(step * last / (most - 1)) for step in range(most)})
