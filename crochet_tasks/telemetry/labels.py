"""Labels of metrics whose values are open-ended: beyond a bounded number of values all others share one."""

from __future__ import annotations

import math

MOST_AXES, MOST_CELLS = 3, 36


def shape(sides: tuple[int, ...]) -> str:
    """A shape as a label: large ones share one, so there are some 50."""
    return "x".join(map(str, sides)) if len(sides) <= MOST_AXES and math.prod(sides) <= MOST_CELLS else "other"


MOST_TENANTS = 200
_tenants: set[int] = set()


def tenant(number: int | None) -> str:
    """A tenant as a label: the first MOST_TENANTS that a process sees have one, all others share one."""
    if number is None or (number not in _tenants and len(_tenants) >= MOST_TENANTS):
        return "other"
    _tenants.add(number)
    return str(number)
