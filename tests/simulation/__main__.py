"""make simulate: python -m tests.simulation [--seed N] [--runs M] [--processes P] [--seconds S] ..."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from tests.simulation.campaign import once, opened, server
from tests.simulation.ledger import STATES, Ledger
from tests.simulation.processes import PART, in_parts, on, simulator
from tests.support.paths import memory

ENOUGH = 1000
"""runs after which each state must have been reached"""


def _replay(url: str, made: list[int]) -> int:
    with opened(url) as bench:
        outcome = once(bench, made, Ledger())
    print("\n".join(outcome.lines), outcome.problem or "no problem", outcome.digest, sep="\n")
    return int(outcome.problem is not None)


def _report(done: str, ledger: Ledger) -> Iterator[str]:
    """The ledger, in Markdown."""
    yield from (f"# Simulation, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "", f"`make simulate`: {done}.", "")
    yield from ("| state | times | in runs |", "|---|---|---|")
    yield from (f"| {state} | {ledger.times[state]:,} | {ledger.runs[state]:,} |" for state in STATES)
    yield ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; each further one has the next")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument(
        "--processes", type=int, default=len(os.sched_getaffinity(0)), help="that run seeds at the same time"
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no more runs after so long")
    parser.add_argument("--replay", help="decisions of a smaller run, as a failure prints them")
    parser.add_argument("--show", action="store_true", help="print the log of each run")
    parser.add_argument("--keep-going", action="store_true", help="print failures and go on")
    parser.add_argument("--report", type=Path, help="write the ledger there, as Markdown")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory())))
        if options.replay is not None:
            url = stack.enter_context(server(folder))
            return _replay(url, [int(each) for each in options.replay.split(",") if each])
        number = min(options.processes, -(-options.runs // PART))
        cores, simulators = sorted(os.sched_getaffinity(0)), list[ProcessPoolExecutor]()
        for place in range(number):
            core = cores[place] if number == len(cores) else None
            with on(core):
                url = stack.enter_context(server(folder / str(place)))
            simulators.append(stack.enter_context(simulator(url, core)))
        ledger, began = Ledger(), time.monotonic()
        runs = events = failures = 0
        seeds = range(options.seed, options.seed + options.runs)
        for part in in_parts(simulators, seeds, options.seconds, keep_going=options.keep_going, show=options.show):
            runs, events, failures = runs + part.runs, events + part.events, failures + part.failures
            ledger.add(part.times, part.in_runs)
            minutes = (time.monotonic() - began) / 60
            for line in part.said:
                print(line)
            print(f"{runs} runs, {events} events, {failures} failed, {runs / minutes:.0f} a minute", flush=True)
            if options.report:
                first = f"seeds {options.seed:,} to {options.seed + runs - 1:,}"
                done = f"{runs:,} runs, {first}, {events:,} events, {failures} failed, in {minutes:.0f} minutes"
                options.report.write_text("\n".join(_report(done, ledger)), encoding="utf-8")
    print("\n".join(ledger.lines()))
    if never := ledger.never():
        print("never reached:", *never, sep="\n  ")
    return int(failures > 0 or (bool(never) and runs >= ENOUGH))


if __name__ == "__main__":
    sys.exit(main())
