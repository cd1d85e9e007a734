"""Many runs, one after the other, on one database."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from crochet_tasks import app
from crochet_tasks.db import schema
from crochet_tasks.db.sessions import Database
from crochet_tasks.embedded import server as embedded
from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.settings import Settings
from tests.simulation import patches
from tests.simulation.bench import Bench
from tests.simulation.choices import Choices, shrunk
from tests.simulation.ledger import Ledger
from tests.simulation.world import World

SHRINKS = 400
"""runs that are spent on making a failing one smaller"""
SERVER = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
}
"""settings of a server that need not survive a power cut; the store vacuums when it is time"""
LINES = 120
"""of a failing run's log that are shown"""


class Outcome(NamedTuple):
    """How a run went. `problem`: None where all was well."""

    digest: str
    events: int
    made: list[int]
    lines: list[str]
    problem: str | None


class Failed(AssertionError):
    """A run failed; the message says how to repeat it."""


@contextlib.contextmanager
def opened(url: str) -> Iterator[Bench]:
    """A bench on a migrated database of its own, with the program patched."""
    logging.disable(logging.CRITICAL)  # thousands of injected errors
    eager, app.app.conf.task_always_eager = app.app.conf.task_always_eager, False
    with pytest.MonkeyPatch.context() as patch:
        patches.install(patch)
        bench = Bench(url)
        try:
            yield bench
        finally:
            bench.close()
            app.app.conf.task_always_eager = eager
            logging.disable(logging.NOTSET)


def once(bench: Bench, source: int | Sequence[int], ledger: Ledger) -> Outcome:
    """One run, by a seed or by decisions that were made before."""
    choices = Choices(source)
    world = World(bench, choices, ledger)
    problem = None
    try:
        world.run()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was looked for
        problem = "".join(traceback.format_exception(error)) if not isinstance(error, AssertionError) else str(error)
        problem = problem or "".join(traceback.format_exception(error))
    ledger.end_run()
    return Outcome(world.digest, len(world.lines), choices.made, world.lines, problem)


def explain(bench: Bench, seed: int, outcome: Outcome) -> str:
    """What failed, how to see it again, and the smallest run in which it fails."""
    first = (outcome.problem or "").strip().splitlines()[-1]

    def fails(made: Sequence[int]) -> bool:
        return once(bench, made, Ledger()).problem is not None

    small = shrunk(outcome.made, fails, SHRINKS)
    last = once(bench, small, Ledger())
    shown = "\n  ".join(last.lines[-LINES:])
    return (
        f"seed {seed} fails: {first}\n"
        f"repeat it:  make simulate SEED={seed} RUNS=1\n"
        f"smaller:    make simulate ARGS='--replay {','.join(map(str, small))}'\n"
        f"{last.problem}\nthe smaller run:\n  {shown}"
    )


def campaign(bench: Bench, seeds: Iterable[int], ledger: Ledger) -> tuple[int, int]:
    """Run them all; (runs, events). Raises Failed at the first that fails."""
    runs = events = 0
    for seed in seeds:
        outcome = once(bench, seed, ledger)
        runs, events = runs + 1, events + outcome.events
        if outcome.problem is not None:
            raise Failed(explain(bench, seed, outcome))
    return runs, events


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """The URL of a migrated database on a private server, which need not survive a power cut."""
    private = EmbeddedPostgres(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SERVER.items():
            patch.setitem(embedded.SETTINGS, name, value)
        private.start()
    with private:
        database = Database(private.url, Settings())
        schema.migrate(database)
        database.close()
        yield private.url
