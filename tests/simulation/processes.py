"""Runs in several processes at the same time, each with a database of its own."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from multiprocessing.util import Finalize
from typing import NamedTuple

from tests.simulation.bench import Bench
from tests.simulation.campaign import explain, once, opened
from tests.simulation.ledger import Ledger

PART = 50
"""runs that a process is asked for at a time"""


class Part(NamedTuple):
    """Some runs of one process. `said`: what is to be printed."""

    runs: int
    events: int
    failures: int
    said: list[str]
    times: dict[str, int]
    in_runs: dict[str, int]


def simulator(url: str, core: int | None = None) -> ProcessPoolExecutor:
    """A process that runs seeds on a database, and counts from nothing for each part; on a core of its own or on any.

    It and its server take turns, so they need no more than one; and are slower on two.
    """
    return ProcessPoolExecutor(1, get_context("spawn"), _begin, (url, core))


@contextlib.contextmanager
def on(core: int | None) -> Iterator[None]:
    """What is started meanwhile stays on this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


_bench: list[Bench] = []
"""that of this process"""


def _begin(url: str, core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    opening = opened(url)
    _bench.append(opening.__enter__())
    gc.freeze()  # what was imported is no garbage: a collection need not look at it
    Finalize(None, opening.__exit__, (None, None, None), exitpriority=1)


def _run(seeds: range, show: bool) -> Part:
    [bench] = _bench
    ledger, events, failures, said = Ledger(), 0, 0, list[str]()
    for seed in seeds:
        outcome = once(bench, seed, ledger)
        events += outcome.events
        if show:
            said += [*outcome.lines, outcome.digest]
        if outcome.problem is not None:
            failures += 1
            said.append(explain(bench, seed, outcome))
    return Part(len(seeds), events, failures, said, dict(ledger.times), dict(ledger.runs))


def in_parts(
    simulators: Sequence[ProcessPoolExecutor], seeds: range, seconds: float, *, keep_going: bool, show: bool
) -> Iterator[Part]:
    """Run seeds until all are run, the time is over or, unless `keep_going`, one has failed; in no fixed order."""
    limit = time.monotonic() + seconds
    waiting = iter([seeds[first : first + PART] for first in range(0, len(seeds), PART)])
    running: dict[Future[Part], ProcessPoolExecutor] = {}

    def begin(simulator: ProcessPoolExecutor) -> None:
        if time.monotonic() < limit and (part := next(waiting, None)):
            running[simulator.submit(_run, part, show)] = simulator

    for each in simulators:
        begin(each)
    while running:
        for ended in wait(running, return_when=FIRST_COMPLETED).done:
            found, free = ended.result(), running.pop(ended)
            if found.failures and not keep_going:
                limit = 0.0
            begin(free)
            yield found
