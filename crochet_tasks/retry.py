"""The retry policy (which errors are retried, backoff, limits) and a circuit breaker."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from crochet_tasks.errors import CrochetError, DatabaseLoginFailed, Retry, Unavailable, retry_class

if TYPE_CHECKING:
    from tenacity import RetryCallState

log = logging.getLogger(__name__)

T = TypeVar("T")

_LARGEST_EXPONENT = 60  # beyond it every pause is the longest


def temporary(error: BaseException) -> bool:
    """Whether the same call may succeed later: the error says so by its retry class."""
    return retry_class(error) is Retry.LATER


@dataclasses.dataclass(frozen=True)
class Policy:
    """Pauses double from `first` to `longest` seconds, each cut by up to half at random.

    The last attempt begins `seconds` after the first one at the latest, and is attempt number `attempts` at most.
    """

    first: float = 0.1
    longest: float = 5.0
    seconds: float = math.inf
    attempts: float = math.inf

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row (1 or more)."""
        exponential = self.first * 2.0 ** min(failures - 1, _LARGEST_EXPONENT)
        return min(exponential, self.longest) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

    def call(
        self,
        step: Callable[[], T],
        on_retry: Callable[[BaseException, float, float], None] = lambda *_: None,
        *,
        retry_if: Callable[[BaseException], bool] = temporary,
        at_least: Callable[[BaseException], float] = lambda _: 0.0,
    ) -> T:
        """Call `step` until it returns; raise its error where `retry_if` refuses it or the policy is exhausted.

        `on_retry(error, pause, seconds left)` is called before each pause. `at_least(error)` is the pause that the
        server asked for: one that does not fit into the time left ends the attempts at once.
        """
        import tenacity  # here: with tornado installed it takes 60 ms, and most commands retry nothing

        def left(state: RetryCallState) -> float:
            return max(0.0, self.seconds - (state.seconds_since_start or 0.0))

        def wait(state: RetryCallState) -> float:
            return max(at_least(_error(state)), min(self.pause(state.attempt_number), left(state)))

        def stop(state: RetryCallState) -> bool:
            exhausted = state.attempt_number >= self.attempts or left(state) <= 0
            return exhausted or state.upcoming_sleep > left(state)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(retry_if),
            wait=wait,
            stop=stop,
            before_sleep=lambda state: on_retry(_error(state), state.upcoming_sleep, left(state)),
            reraise=True,
        )
        return retrying(step)


def _error(state: RetryCallState) -> BaseException:
    outcome: Any = state.outcome
    error: BaseException = outcome.exception()
    return error


def wait_for(step: Callable[[], T], seconds: float, report: Callable[[str], None]) -> T:
    """Call `step`, at start-up, until it succeeds, for `seconds` at most; `report` gets a line before each pause."""

    def announce(error: BaseException, pause: float, left: float) -> None:
        report(f"{error}; trying again in {pause:.1f} s, for {left:.0f} s more")

    # A running worker retries while a password is corrected; a service that starts reports a failed login at once.
    return Policy(seconds=seconds).call(
        step, announce, retry_if=lambda error: temporary(error) and not isinstance(error, DatabaseLoginFailed)
    )


class Outage:
    """For a loop that polls a service: an outage is reported once, when it begins, and not at every poll."""

    def __init__(self, report: Callable[[str], None], meanwhile: str) -> None:
        """`meanwhile`: what the loop does during the outage."""
        self._report, self._meanwhile = report, meanwhile
        self._ongoing = False

    @contextlib.contextmanager
    def tolerated(self) -> Iterator[None]:
        """Suppress Unavailable during one poll, unless waiting cannot help."""
        try:
            yield
        except Unavailable as error:
            if not temporary(error):
                raise
            if not self._ongoing:
                self._report(f"{error}; {self._meanwhile}")
            self._ongoing = True
        else:
            self._ongoing = False


class Breaker:
    """A circuit breaker: after `failures` in a row calls fail at once, and one in `seconds` is let through to try.

    It holds no lock during a call: those of other threads go on meanwhile (docs/adr/0018).
    """

    def __init__(
        self,
        service: str,
        refusal: Callable[[str], CrochetError],
        seconds: float,
        failures: int = 1,
        level: int = logging.WARNING,
    ) -> None:
        """`refusal` makes the error from the last failure; the outage of `service` is logged at `level`."""
        self._service, self._refusal = service, refusal
        self._seconds, self._most, self._level = seconds, failures, level
        self._lock = threading.Lock()
        self._failures = 0
        self._next_try = 0.0
        self.problem: str | None = None
        """the last failure; None while the breaker is closed"""

    def check(self) -> None:
        """Raise the refusal while the breaker is open, unless it is time for a try."""
        with self._lock:
            problem, now = self.problem, time.monotonic()
            if problem is None:
                return
            if now < self._next_try:
                raise self._refusal(problem)
            self._next_try = now + self._seconds  # if this try hangs, another one is made by then

    def failed(self, problem: str) -> None:
        with self._lock:
            self._failures += 1
            if self._failures < self._most:
                return
            if self.problem is None:
                log.log(self._level, "service_unavailable", extra={"what": self._service, "error": problem})
            self.problem, self._next_try = problem, time.monotonic() + self._seconds

    def succeeded(self) -> None:
        with self._lock:
            was_open, self.problem, self._failures = self.problem is not None, None, 0
        if was_open:
            log.info("service_recovered", extra={"what": self._service})
