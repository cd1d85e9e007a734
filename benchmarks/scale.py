"""A store of 100 million orthos: `make bench-scale`. Writes benchmarks/results/scale.md.

The text is the King James Bible of Debian's packages bible-kjv and bible-kjv-text, read with its program `bible`; it
holds far more orthos than the budget. Measured: the embedded run, bytes per ortho, memory of each process, and what
the API needs for reads of such a store, cold and warm. Without the packages it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from sqlalchemy import text

from benchmarks.api import CORPUS, GOAL_MS, Bench, bench
from benchmarks.closure import SIZE, machine, written
from benchmarks.requests import routes
from crochet_tasks.db import corpora, tally
from crochet_tasks.db.process import Process
from crochet_tasks.embedded import pipeline
from crochet_tasks.intake import admission

LIMITS = {"max_axes": 2, "max_side": 8, "max_cells": 64}
CLIENTS = 10
SECONDS = 2.0
GOAL_MB = 500


def bible() -> str | None:
    """The text, a paragraph per verse; None where Debian's program is not installed."""
    program = shutil.which("bible")
    if program is None:
        return None
    command = [program, "-l100000", "Genesis1:1-Revelation22:21"]  # a verse on a line
    read = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    verses = re.findall(r"^ *\d+ (.*)", read, re.MULTILINE)
    return "\n\n".join(verses)


class Peaks:
    """The largest resident memory of this process and of those that a server started, in MB, sampled."""

    def __init__(self, processes: list[psutil.Process]) -> None:
        self._parents, self._done = processes, threading.Event()
        self.largest: dict[str, float] = {}
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            for parent in self._parents:
                for process in [parent, *parent.children(recursive=True)]:
                    try:
                        # What Postgres' processes share is counted once, with its own page by page.
                        used = process.memory_full_info().uss / 1e6
                        name = process.name()
                    except psutil.Error:
                        continue
                    self.largest[name] = max(self.largest.get(name, 0.0), used)

    def end(self) -> dict[str, float]:
        self._done.set()
        self._thread.join()
        return self.largest


def fill(process: Process, body: str, orthos: int, limits: dict[str, int]) -> str:
    """Find and store so many orthos; lines about it."""
    with process.database.transaction() as connection:
        corpus = corpora.get_or_create(connection, CORPUS, limits)
    peaks = Peaks([psutil.Process()])
    began = time.perf_counter()
    admission.accept(corpus, "the whole text", body)
    pipeline.close(process, corpus, budget=orthos)
    seconds = time.perf_counter() - began
    with process.database.transaction() as connection:
        total = tally.total(connection, corpus.id)
        size = int(connection.execute(text(SIZE)).scalar_one())
    memory = max(peaks.end().values())
    return (
        f"- stored: {total:,} orthos in {seconds:.0f} s, {total / seconds / 1e6:.2f} million/s\n"
        f"- all tables and indexes: **{size / total:.2f} bytes per ortho** (goal: at most 2)\n"
        f"- largest memory of the run's process: **{memory:.0f} MB** (goal: at most {GOAL_MB})"
    )


def report(orthos: int) -> Iterator[str]:
    yield from machine("A large store")
    body = bible()
    if body is None:
        yield "Not measured: the program `bible` is missing (apt-get install bible-kjv)."
        return
    yield f"The King James Bible, {len(body.split()):,} words, 2 axes, max_side 8, budget {orthos:,} orthos."
    yield ""
    with (
        tempfile.TemporaryDirectory() as folder,
        bench(Path(folder), lambda process: fill(process, body, orthos, LIMITS)) as (api, about),
    ):
        yield about
        yield ""
        yield from _reads(api)


def _reads(api: Bench) -> Iterator[str]:
    api.restart()
    every = [route for route in routes(api.ask, CORPUS) if route.reads]
    yield f"| read, {CLIENTS} clients | first request of a fresh server, ms | p50 | p99 | errors |"
    yield "|---|---|---|---|---|"
    slowest = 0.0
    for route in every:
        api.restart()
        first = api.ask(route.requests[0])[0]
        api.load(route.requests, CLIENTS, SECONDS / 2)
        load, _ = api.load(route.requests, CLIENTS, SECONDS)
        slowest = max(slowest, load.percentile(0.99))
        errors = sum(load.errors.values())
        yield f"| {route.name} | {first:.0f} | {load.percentile(0.5):.1f} | {load.percentile(0.99):.0f} | {errors} |"
    yield ""
    api.restart()
    for route in every:
        api.load(route.requests, CLIENTS, SECONDS / 4)
    largest = max(api.memory())
    yield f"- slowest p99: **{slowest:.0f} ms** (goal: at most {GOAL_MS})"
    yield f"- memory of a process of the API after all of them: **{largest:.0f} MB** (goal: at most 300)"


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--orthos", type=int, default=100_000_000)
    chosen = options.parse_args().orthos
    written("scale", lambda: report(chosen))
