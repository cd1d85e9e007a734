"""Looks that several ask for at the same time."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from crochet_tasks.together import Together

MANY = 8
HUNG = 20.0


class Asker:
    """Many threads that ask, and a look that ends when it may."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool = pool
        self.together: Together[str, int] = Together()
        self.looks = itertools.count(1)
        self.began = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)

    def look(self) -> int:
        number = next(self.looks)
        self.began.release()
        assert self.may_end.acquire(timeout=HUNG)
        if number % 5 == 0:
            raise LookupError(number)
        return number

    def ask(self, key: str = "a", look: Callable[[], int] | None = None) -> Future[int]:
        return self.pool.submit(self.together.ask, key, look or self.look)

    def wait_for(self, number: int) -> None:
        """Until so many have asked and wait."""
        while sum(each.following is not None for each in self.together._looks.values()) < number:
            assert not self.began.acquire(timeout=0.01)


@pytest.fixture
def asker() -> Iterator[Asker]:
    with ThreadPoolExecutor(2 * MANY) as pool:
        yield Asker(pool)


def test_who_asks_meanwhile_gets_the_next_look_together(asker: Asker) -> None:
    """Not the one at hand: that may have missed what they know of."""
    first = asker.ask()
    assert asker.began.acquire(timeout=HUNG)
    others = [asker.ask()]
    asker.wait_for(1)
    others += [asker.ask() for _ in range(MANY)]
    asker.may_end.release()
    assert first.result(HUNG) == 1
    assert asker.began.acquire(timeout=HUNG)
    late = asker.ask()
    asker.wait_for(1)
    asker.may_end.release()
    assert others[0].result(HUNG) == 2
    asker.may_end.release(MANY)  # more than are needed, unless each looks alone
    assert late.result(HUNG) >= 3
    assert min(each.result(HUNG) for each in others) == 2
    assert next(asker.looks) < MANY
    assert not asker.together._looks


def test_who_asks_for_something_else_does_not_wait(asker: Asker) -> None:
    first = asker.ask("a")
    assert asker.began.acquire(timeout=HUNG)
    assert asker.ask("b", lambda: 7).result(HUNG) == 7
    asker.may_end.release()
    assert first.result(HUNG) == 1


def test_what_a_look_raises_everybody_gets_who_waits_for_it(asker: Asker) -> None:
    """And nobody who asks afterwards."""
    asker.looks = itertools.count(4)
    first = asker.ask()
    assert asker.began.acquire(timeout=HUNG)
    others = [asker.ask()]
    asker.wait_for(1)
    asker.may_end.release(2)
    assert first.result(HUNG) == 4
    assert isinstance(others[0].exception(HUNG), LookupError)
    asker.may_end.release()
    assert asker.ask().result(HUNG) == 6
