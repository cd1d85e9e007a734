"""Where every decision of a run comes from, and how a run that fails is made smaller."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

CHUNKS = (64, 32, 16, 8, 4, 2, 1)


class Choices:
    """Decisions by a seed, or those of a list again; where the list ends, always the first way: no fault, no change.

    `made`: the decisions so far, to be replayed.
    """

    def __init__(self, source: int | Sequence[int]) -> None:
        self.made: list[int] = []
        self._chance = random.Random(source) if isinstance(source, int) else None
        self._left = iter([] if isinstance(source, int) else source)

    def below(self, number: int) -> int:
        """One of 0 to number - 1; 0 is the harmless one."""
        choice = self._chance.randrange(number) if self._chance else min(next(self._left, 0), number - 1)
        self.made.append(choice)
        return choice

    def one_in(self, number: int) -> bool:
        """True once in so many times."""
        return self.below(number) == number - 1

    def of(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def weighted(self, options: Sequence[tuple[int, T]]) -> T:
        """One of some (weight, option), the first being the harmless one."""
        place = self.below(sum(weight for weight, _ in options))
        for weight, option in options:
            place -= weight
            if place < 0:
                return option
        raise AssertionError(options)


def shrunk(made: Sequence[int], fails: Callable[[Sequence[int]], bool], most: int) -> list[int]:
    """A shorter list of decisions with which a run still fails, after at most so many tries."""
    best, tries = list(made), 0

    def better(smaller: list[int]) -> bool:
        nonlocal best, tries
        tries += 1
        if tries > most or smaller == best or not fails(smaller):
            return False
        best = smaller
        return True

    size = len(best) // 2
    while size:
        while better(best[:-size]):
            pass
        size //= 2
    for size in CHUNKS:
        place = 0
        while place < len(best) and tries < most:
            without, quiet = best[:place] + best[place + size :], [*best]
            quiet[place : place + size] = [0] * len(best[place : place + size])
            if not better(without):
                better(quiet)
                place += size
    while best and best[-1] == 0:
        best.pop()
    return best
