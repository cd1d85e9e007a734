"""The whole pipeline in one process: open its store, then do the work of a corpus until none is left."""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection

from crochet_tasks import app, publish
from crochet_tasks.db import batches, corpora, outbox, publishing, schema
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.outbox import Item, States
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.db.sessions import Database
from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.errors import Retry, retry_class
from crochet_tasks.settings import Settings

LOOK_SECONDS = 0.25
"""how often the store is asked how far it is, at the most …"""
LOOK_SHARE = 50
"""… and after a look that took long: not before this many times as long has passed"""
WORKERS = 2
"""threads that work at the same time: while one waits for Postgres the other one computes (docs/adr/0006)"""
FRUITLESS = 2 * WORKERS
"""so many errors in a row that befell no work (two may have befallen the same): another one, and nothing will help"""
TRIES = 6
PAUSE_SECONDS = 0.1
"""the first of the pauses between tries, each twice the one before: 3 s in all"""


# ── the store ───────────────────────────────────────────────────────────────────────────────────


def store_exists(settings: Settings) -> bool:
    """Whether there is a store to look into; asking does not make one."""
    try:
        return settings.database_url is not None or data_folder(settings).exists()
    except OSError:  # there is something, and starting the server will say what is wrong with it
        return True


def data_folder(settings: Settings) -> Path:
    return settings.state_dir / "postgres" / "data"


@contextlib.contextmanager
def connected(settings: Settings) -> Iterator[Process]:
    """Start the private server, unless the settings name one, and open this process' pool. The schema may be any."""
    with contextlib.ExitStack() as stack:
        if settings.database_url is None:
            url = stack.enter_context(EmbeddedPostgres(settings.state_dir)).url
        else:
            url = settings.database_url.get_secret_value()
        yield stack.enter_context(open_process(settings, url))


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Process]:
    """As `connected`, on the schema this program works with: a private database is migrated, any other only checked.

    Raises SchemaUnknown, and what the server and its folder have to say (StateInUse, StateUnusable, ServerFailed).
    """
    with connected(settings) as process:
        if settings.database_url is None:
            _bring_up_to_date(process.database)
        else:
            schema.check(process.database)
        yield process


def _bring_up_to_date(database: Database) -> None:
    with database.transaction() as connection:
        found = schema.revision(connection)
    if found != schema.HEAD:  # migrating loads Alembic
        schema.migrate(database)


# ── the work ────────────────────────────────────────────────────────────────────────────────────


class Progress(NamedTuple):
    """How far a corpus is."""

    version: int
    work: States
    orthos: dict[Sides, int]
    """per shape, best shape first"""

    @property
    def total(self) -> int:
        return sum(self.orthos.values())

    @property
    def best(self) -> Sides | None:
        return next(iter(self.orthos), None)


class Ended(enum.StrEnum):
    """Why no more work was taken up."""

    CLOSED = "closed"
    """there is none: the store holds every ortho"""
    BUDGET = "budget"
    """as many orthos are stored as were asked for"""
    STOPPED = "stopped"
    """it was asked to stop"""
    WAITING = "waiting"
    """what is open waits for its time, or for work that has failed"""
    ELSEWHERE = "elsewhere"
    """what is open is taken up by another process on the same database"""


class Outcome(NamedTuple):
    """How `close` ended. `failure` is the first error that made work fail, if any did."""

    ended: Ended
    progress: Progress
    search_seconds: float
    """spent on searching and on storing what was found"""
    failure: Exception | None


def close(
    process: Process,
    corpus: Corpus,
    *,
    budget: int | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Do the open work of a corpus, also what a killed process had begun, until it is closed.

    Once `budget` orthos are stored no more searches are taken up; waiting texts still become versions. `stopped` is
    asked between two pieces of work. Work that fails for good stays in the store as failed and the rest goes on; what
    may succeed later is tried again for a few seconds, then its error is raised.
    """
    app.app.conf.task_always_eager = True  # this process does its work itself, whatever broker there is
    look = _Look(process.database, corpus.id, progress)
    crew = _Crew(process.database, corpus.id, look, budget, stopped)
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="work") as pool:
        while crew.hand_out(pool):
            crew.take_in()
            look.now_and_then()
    last = look()
    ended = Ended.CLOSED if last.work.open == 0 else crew.ended or _why(process.database, corpus.id)
    return Outcome(ended, last, crew.search_seconds, crew.failure)


def _why(database: Database, corpus: int) -> Ended:
    """Why there was nothing to take up although there is open work."""
    with database.transaction() as connection:
        if corpora.spent(connection, corpus):
            return Ended.BUDGET
        return Ended.ELSEWHERE if publishing.in_hand(connection, corpus) else Ended.WAITING


class _Crew:
    """Two threads at work on a corpus, each with one piece at a time."""

    def __init__(
        self, database: Database, corpus: int, look: _Look, budget: int | None, stopped: Callable[[], bool]
    ) -> None:
        self.ended: Ended | None = None
        self.search_seconds = 0.0
        self.failure: Exception | None = None
        self._database, self._corpus, self._look = database, corpus, look
        self._budget, self._stopped = budget, stopped
        self._running: dict[Future[list[Item]], float] = {}
        self._nothing = False
        """the last time work was asked for there was none; what is running may bring some"""
        self._take_up = True
        """what was published and not done is to be opened again, as soon as nobody works on it"""
        self._tries = self._fruitless = 0
        self._failed = look().work.failed

    def hand_out(self, pool: Executor) -> bool:
        """Let as many pieces run as may; False when none does and none will."""
        if self._take_up and not self._running:
            publish.take_up_again(self._corpus)
            self._take_up = self._nothing = False
        if self.ended is None and self._stopped():
            self.ended = Ended.STOPPED
        if self.ended is None and not self._take_up and not self._nothing:
            room = self._room()
            if room == 0 and not self._running:
                self.ended = Ended.BUDGET
            while len(self._running) < room:
                self._running[pool.submit(publish.publish_next, self._corpus)] = time.perf_counter()
        return bool(self._running)

    def _room(self) -> int:
        """How many pieces may run. With the budget spent only those of the ordered stages, alone: they come first."""
        if self._budget is None:
            return WORKERS
        with self._database.transaction() as connection:
            if corpora.total(connection, self._corpus) < self._budget:
                return WORKERS
            return 1 if not self._running and publishing.ordered_waits(connection, self._corpus) else 0

    def take_in(self) -> None:
        """Wait for a piece to end; raises its error if it is none to go on with."""
        finished = wait(self._running, return_when=FIRST_COMPLETED).done
        # One that found none may have asked before another one, that ends with it, wrote some: also by failing.
        self._nothing = all(done.exception() is None and not done.result() for done in finished)
        for done in finished:
            began = self._running.pop(done)
            error = done.exception()
            if error is not None:
                self._weigh(error)
                continue
            if done.result():  # one that found nothing to do says nothing about what went wrong
                self._tries = 0
                if done.result()[0].kind in ("seed", "grow"):
                    self.search_seconds += (time.perf_counter() - began) / WORKERS

    def _weigh(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            raise error
        if retry_class(error) is Retry.LATER:
            self._tries, self._take_up = self._tries + 1, True
            if self._tries == TRIES:
                raise error
            time.sleep(PAUSE_SECONDS * 2 ** (self._tries - 1))
            return
        # It was noted with the work or the text that it befell, and the rest goes on.
        before, self._failed = self._failed, self._look().work.failed
        self._fruitless = self._fruitless + 1 if self._failed == before else 0
        if self._fruitless > FRUITLESS:
            raise error
        self.failure = self.failure or error


class _Look:
    """Asks the store how far a corpus is, seldom enough to cost nothing, and passes it on."""

    def __init__(self, database: Database, corpus: int, progress: Callable[[Progress], None]) -> None:
        self._database, self._corpus, self._progress = database, corpus, progress
        self._next = 0.0

    def now_and_then(self) -> None:
        if time.monotonic() >= self._next:
            self()

    def __call__(self) -> Progress:
        began = time.monotonic()
        with self._database.transaction() as connection:
            seen = looked(connection, self._corpus)
        now = time.monotonic()
        self._next = now + max(LOOK_SECONDS, LOOK_SHARE * (now - began))
        self._progress(seen)
        return seen


def looked(connection: Connection, corpus: int) -> Progress:
    """How far a corpus is."""
    counted = {sides: change.orthos for sides, change in corpora.counted(connection, corpus).items() if change.orthos}
    return Progress(
        version=corpora.version(connection, corpus),
        work=outbox.states(connection, corpus),
        orthos={sides: counted[sides] for sides in batches.shapes_by_rank(counted)},
    )
