"""Python runs this before all else where it is on the path: see tests/support/clocks.py."""
# ruff: noqa: INP001 - no package: it is found by its name

import select
import time
from typing import Any


def sleep(seconds: Any, /) -> None:
    """As time.sleep, which fails under libfaketime 0.9.10: it lets clock_nanosleep fail (EINVAL)."""
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select([], [], [], seconds)


time.sleep = sleep
