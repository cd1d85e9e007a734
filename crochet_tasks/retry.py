"""Trying again what may succeed later: how long the pauses are, when it is given up, and what is said of it."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator

from crochet_tasks.errors import CrochetError, Retry, Unavailable

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0


def pauses(first: float = FIRST_PAUSE_SECONDS, longest: float = LONGEST_PAUSE_SECONDS) -> Iterator[float]:
    """Seconds between one try and the next: each time about twice as long, and never in step with others who wait."""
    pause = first
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        pause = min(2 * pause, longest)


def patiently(step: Callable[[], None], seconds: float, said: Callable[[str], None]) -> None:
    """Try a step until it succeeds, for so many seconds; then, or where no try can help, its error is raised.

    `said` is told of each pause.
    """
    until = time.monotonic() + seconds
    waits = pauses()
    while True:
        try:
            return step()
        except CrochetError as error:
            left = until - time.monotonic()
            if error.retry is Retry.NEVER or left <= 0:
                raise
            pause = min(next(waits), left)
            said(f"{error}; trying again in {pause:.1f} s, for {left:.0f} s more")
        time.sleep(pause)


class Absence:
    """Of a service that is looked at again and again: it is said once, and again only when it was back meanwhile."""

    def __init__(self, said: Callable[[str], None], then: str) -> None:
        """`then`: what is done meanwhile."""
        self._said, self._then = said, then
        self._away = False

    @contextlib.contextmanager
    def borne(self) -> Iterator[None]:
        """For one look, which ends where the service is away; Unavailable is raised only where waiting cannot help."""
        try:
            yield
        except Unavailable as error:
            if error.retry is Retry.NEVER:
                raise
            if not self._away:
                self._said(f"{error}; {self._then}")
            self._away = True
        else:
            self._away = False
