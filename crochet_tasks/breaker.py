"""A circuit breaker: where a service is away that is said at once, and it is left in peace."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from crochet_tasks.errors import CrochetError

log = logging.getLogger(__name__)


class Breaker:
    """Closed while all is well. So many failures in a row open it: then who comes is refused at once, but one in so
    many seconds tries. `refusal` makes the error from what the last failure was; `level` is how loudly it is logged.
    """

    def __init__(
        self,
        what: str,
        refusal: Callable[[str], CrochetError],
        seconds: float,
        failures: int = 1,
        level: int = logging.WARNING,
    ) -> None:
        self._what, self._refusal = what, refusal
        self._seconds, self._most, self._level = seconds, failures, level
        self._lock = threading.Lock()
        self._failures = 0
        self._until = 0.0
        self.problem: str | None = None
        """of the last failure; None while it is closed"""

    def admit(self) -> None:
        """Raise the refusal while it is open, but for the one who tries."""
        with self._lock:
            problem, now = self.problem, time.monotonic()
            if problem is None:
                return
            if now < self._until:
                raise self._refusal(problem)
            self._until = now + self._seconds  # we try; if nothing comes of it, somebody else does after a while

    def failed(self, problem: str) -> None:
        with self._lock:
            self._failures += 1
            if self._failures < self._most:
                return
            if self.problem is None:
                log.log(self._level, "service_away", extra={"what": self._what, "error": problem})
            self.problem, self._until = problem, time.monotonic() + self._seconds

    def succeeded(self) -> None:
        with self._lock:
            away, self.problem, self._failures = self.problem is not None, None, 0
        if away:
            log.info("service_back", extra={"what": self._what})
