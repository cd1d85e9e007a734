"""What lasts for a campaign: the database, a pool for each simulated process, Celery's tracers."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from celery.app.trace import build_tracer

from crochet_tasks import app
from crochet_tasks.app import Step
from crochet_tasks.db.process import Process
from crochet_tasks.db.sessions import Database
from crochet_tasks.settings import Settings
from tests.simulation.scheduler import Machine
from tests.simulation.store import Store

HOUR = 3600.0
WORKERS, RELAYS, CLIENTS = ("w0", "w1", "w2"), ("r0", "r1"), ("c0", "c1")
LEASE = 60.0


class Sizes(NamedTuple):
    """How work is cut in a run."""

    batch_orthos: int
    result_orthos: int
    part_words: int
    published_limit: int
    max_attempts: int
    best_part_visits: int


SIZES = (Sizes(32_768, 1_000_000, 50_000, 32, 3, 5_000_000), Sizes(3, 4, 5, 32, 3, 1), Sizes(2, 2, 9, 1, 2, 1))


class Bench:
    """One per process that simulates."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        names = (*WORKERS, *RELAYS, *CLIENTS)
        self._settings = [
            Settings(
                **sizes._asdict(),
                lease=LEASE,
                delivery_limit=1,
                statement_timeout=HOUR,
                lock_timeout=HOUR,
            )
            for sizes in SIZES
        ]
        self._databases = {name: Database(url, self._settings[0]) for name in names}
        for database in self._databases.values():
            with database.transaction():
                pass  # connected before the first run

    def machine(self, name: str, size: int) -> Machine:
        return Machine(name, functools.partial(Process, self._settings[size], self._databases[name]))

    @functools.cache  # noqa: B019 - as long as the campaign
    def tracer(self, step: Step) -> Any:
        """What a Celery worker runs for a message: the task with its signals and its handling of errors."""
        return build_tracer(step.name, step, app=app.app)

    def close(self) -> None:
        for database in self._databases.values():
            database.close()
        self.store.close()
