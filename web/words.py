"""Numbers, sizes and times as people read them: filters of the templates."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from flask import Flask

from crochet_tasks.engine.geometry import shape_name

THIN = "\u202f"
"""between groups of three digits"""
UNITS = ("B", "kB", "MB", "GB", "TB")
_STEPS = ((60, "s", 1), (3600, "min", 60), (48 * 3600, "h", 3600))


def install(app: Flask) -> None:
    app.jinja_env.filters.update(
        number=number, size=size, ago=ago, moment=moment, rate=rate, spell=seconds, shape=shape, plural=plural
    )


def number(value: float) -> str:
    """With thin spaces: 12 345."""
    return f"{round(value):,}".replace(",", THIN)


def rate(value: float) -> str:
    """How often: with three digits, or whole."""
    return number(value) if value >= 100 or value == int(value) else f"{value:.3g}"


def plural(value: int, one: str, many: str | None = None) -> str:
    return f"{number(value)} {one if value == 1 else many or one + 's'}"


def size(value: float) -> str:
    """Bytes, in a unit that leaves two or three digits: 12 MB."""
    place = 0
    while value >= 1000 and place < len(UNITS) - 1:
        value, place = value / 1000, place + 1
    return f"{value:.1f}{THIN}{UNITS[place]}" if 0 < value < 10 and place else f"{value:.0f}{THIN}{UNITS[place]}"


def seconds(value: float) -> str:
    """A span of time: 40 s, 3 min, 5 h, 12 days."""
    for below, unit, step in _STEPS:
        if value < below:
            return f"{round(value / step)}{THIN}{unit}"
    return plural(round(value / 86_400), "day")


def ago(moment: dt.datetime, now: dt.datetime | None = None) -> str:
    passed = ((now or dt.datetime.now(dt.UTC)) - moment).total_seconds()
    return "just now" if passed < 2 else f"{seconds(passed)} ago"


def moment(at: dt.datetime) -> str:
    """To the second."""
    return f"{at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def shape(sides: Sequence[int]) -> str:
    """With multiplication signs, for people: 2×3."""
    return shape_name(tuple(sides)).replace("x", "×")
