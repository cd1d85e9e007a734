"""Waiting for what threads and other processes do: for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

SECONDS = 120.0
"""for what takes seconds on a quiet machine: only what never comes takes as long"""
PAUSE_SECONDS = 0.02


def eventually(
    condition: Callable[[], Answer],
    seconds: float = SECONDS,
    *,
    pause: float = PAUSE_SECONDS,
    report: Callable[[], object] = str,
) -> Answer:
    """Poll until the condition's answer is true, and return it.

    Raises AssertionError after `seconds`, with the last answer and with what `report` returns.
    """
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s; the last answer was {answer!r}\n{report()}"
        time.sleep(pause)
    return answer
