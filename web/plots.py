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


def curve(values: Sequence[float | None]) -> Curve:
    """Values from 0 to their largest, from left to right; of many, some that are evenly spread and the last.

    Values that are unknown are passed over.
    """
    known = [(place, value) for place, value in enumerate(values) if value is not None]
    most = max((value for _, value in known), default=0)
    points = [
        f"{WIDTH * place / max(1, len(values) - 1):.1f},{HEIGHT - HEIGHT * value / (most or 1):.1f}"
        for place, value in (known[each] for each in sampled(known, POINTS))
    ]
    return Curve(" ".join(points), most)


class Bar(NamedTuple):
    """A rectangle of a plot with bars; `value` is None where it is unknown, and then it has no height."""

    x: float
    y: float
    width: float
    height: float
    value: float | None


class Bars(NamedTuple):
    """Bars side by side, on a scale from 0 to `most`, a round number."""

    bars: list[Bar]
    most: float


GAP = 0.25
"""between two bars, as a share of their distance"""


def bars(values: Sequence[float | None]) -> Bars:
    """A bar for each value, from left to right; what is not 0 is at least a pixel high."""
    most = _round(max((value for value in values if value is not None), default=0))
    step = WIDTH / max(1, len(values))
    found = []
    for place, value in enumerate(values):
        height = round(max(1.0, HEIGHT * value / most), 1) if value else 0.0
        width = round(step * (1 - GAP), 1)
        found.append(Bar(round(step * place, 1), round(HEIGHT - height, 1), width, height, value))
    return Bars(found, most)


def _round(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50, ... that is not smaller."""
    if value <= 1:
        return 1
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def sampled(values: Sequence[object], most: int) -> list[int]:
    """The places of at most so many of the values, evenly spread, the last one among them."""
    last = len(values) - 1
    if last < most:
        return list(range(last + 1))
    return sorted({round(step * last / (most - 1)) for step in range(most)})
