"""Texts that collide: many orthos from few words, in whatever order and combination they come; and what is expected."""

from __future__ import annotations

import functools
from collections import Counter

from tests.simulation.patches import POISON
from tests.support import oracle
from tests.support.oracle import Ortho
from tests.support.strategies import Limits

GOOD = (
    "a b c, d e f, a d, b e, c f",
    "b d, e a, d c, c b",
    "a b c j, d e f k, j k, c j, f k",
    "g h i, a d g, b e h, c f i",
    "b f, e c, f a, a c",
    "a l, b m, d n, e o, l m, n o, l n, m o",
    "c b a, f e d, a f",
    "a b, c d, a c, b d. d c, b a. d b",
    "a b c d. e f g h. a e. b f. c g. d h",
)
WORDLESS = "1 2 3"
"""it cannot be ingested"""
POISONED = f"new words here. and old a b. then {POISON}"
LIMITS = (Limits(3, 8, 64), Limits(2, 3, 64), Limits(2, 4, 9), Limits(3, 3, 12))


@functools.cache
def expected(bodies: frozenset[str], limits: Limits) -> Counter[Ortho]:
    """What the store must hold: the oracle's orthos, each once, whatever the order of the texts."""
    return Counter(oracle.closure(sorted(bodies), *limits).keys())
