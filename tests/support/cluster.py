"""A deployment of real processes on real servers: started, killed and inspected by acceptance tests."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from crochet_tasks.db import corpora, tally
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.errors import Unavailable
from crochet_tasks.intake import admission
from crochet_tasks.services.setup import READY
from crochet_tasks.settings import Settings
from crochet_tasks.verify import verify
from tests.support import clocks, forks, steps
from tests.support.commands import CROCHET, PYTHON, SEARCH, WHOLE
from tests.support.oracle import Ortho
from tests.support.paths import ROOT
from tests.support.waiting import SECONDS, eventually

QUICK = {"CROCHET_LEASE": "5", "CROCHET_RETRY_FIRST": "0.2", "CROCHET_RETRY_LONGEST": "2", "CROCHET_DRAIN": "10"}


class Started(NamedTuple):
    """How a process was started, to start another one like it."""

    program: Sequence[str]
    command: Sequence[str]
    environment: Mapping[str, str]


class Cluster:
    """Processes with one configuration. Each has a name and a log file; what is left is killed at the end.

    `forked` ones start in no time (tests/support/forks.py) and share with each other what they have imported; with
    PYTHON as program, or a library to load first, they are started as a user starts them.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], *, forked: bool = False) -> None:
        self.folder = folder
        self._forked = forked
        self.settings = Settings.load(**{name.lower().removeprefix("crochet_"): v for name, v in environment.items()})
        # Killed ones leave folders in TMPDIR. The names of workers are those that are free in the folder of heartbeats.
        own = {"PYTHONUNBUFFERED": "1", "TMPDIR": str(folder), "CROCHET_HEALTH_DIR": str(folder / "health")}
        self.environment = {**os.environ, **own, **environment}  # noqa: TID251 - for our children
        self._numbers = itertools.count(1)
        self.processes: dict[str, subprocess.Popen[bytes] | forks.Forked] = {}
        self._started: dict[str, Started] = {}

    def start(self, *command: str, program: Sequence[str] = CROCHET, **environment: str) -> str:
        """Start a process; its name."""
        name = f"{next(self._numbers)}-{command[0]}"
        arguments, its = [*program, *command], {**self.environment, **environment}
        with (self.folder / f"{name}.log").open("wb") as log, Path(os.devnull).open("rb") as nothing:
            if self._forked and program != PYTHON and "LD_PRELOAD" not in environment:
                self.processes[name] = forks.start(arguments, its, nothing.fileno(), log.fileno(), log.fileno())
            else:
                self.processes[name] = subprocess.Popen(
                    arguments, cwd=ROOT, env=its, stdin=nothing, stdout=log, stderr=log, start_new_session=True
                )
        self._started[name] = Started(program, command, environment)
        return name

    def start_whole(self, searchers: int = 1, *, program: Sequence[str] = CROCHET) -> list[str]:
        """One of each process and as many that search; their names, in the order of WHOLE."""
        return [self.start(*command, program=program) for command in (*WHOLE, *[SEARCH] * (searchers - 1))]

    def start_again(self, name: str) -> str:
        """Start a process like one that there was; its name."""
        like = self._started[name]
        return self.start(*like.command, program=like.program, **like.environment)

    def command(self, name: str) -> Sequence[str]:
        """By which a process was started."""
        return self._started[name].command

    def start_dead(self) -> list[str]:
        """What a supervisor does: start again what has ended; the names of those that had."""
        dead = [name for name, process in self.processes.items() if process.poll() is not None]
        for name in dead:
            self.kill(name)  # of its children some may still be there
            self.start_again(name)
        return dead

    def ready(self, name: str) -> bool:
        """Whether a process has logged that it is ready; raises AssertionError where it has ended instead."""
        ended = self.processes[name].poll() is not None
        is_ready = self.has_been_ready(name)
        assert is_ready or not ended, f"{name} has ended:\n{self.log(name)}"
        return is_ready

    def has_been_ready(self, name: str) -> bool:
        return READY in self.log(name)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def kill(self, name: str) -> None:
        """SIGKILL to a process and to all its children, as when a machine is lost."""
        process = self.processes[name]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # each has a session, and so a group, of its own
        process.wait()
        del self.processes[name]

    def children(self, name: str) -> list[int]:
        """The processes that a process has started, in the order of their ids."""
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.processes[name].pid).children(recursive=True)
            return sorted(child.pid for child in found)
        return []

    def terminate(self, name: str, number: int = signal.SIGTERM) -> None:
        self.processes[name].send_signal(number)

    def ended(self, name: str) -> int:
        """Wait for a process to end; its exit status."""
        status = self.processes[name].wait(SECONDS)
        del self.processes[name]
        return status

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)
        clocks.clean_up()

    def logs(self) -> str:
        """The ends of all logs, for the report of a failed test."""
        return "\n".join(
            f"── {path.name}\n{''.join(path.read_text(errors='replace').splitlines(keepends=True)[-15:])}"
            for path in sorted(self.folder.glob("*.log"))
        )

    # ── the corpus that it works on ─────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def process(self) -> Iterator[Process]:
        """What tasks find with `here()`, on this deployment's database: to accept texts and to read."""
        assert self.settings.database_url is not None
        with open_process(self.settings, self.settings.database_url.get_secret_value()) as process:
            yield process


@contextlib.contextmanager
def cluster(folder: Path, forked: bool = False, /, **environment: str) -> Iterator[Cluster]:
    """A deployment on these addresses, with short leases and pauses; all its processes are gone at the end."""
    made = Cluster(folder, {**QUICK, **environment}, forked=forked)
    try:
        yield made
    finally:
        made.close()


def accept(process: Process, corpus: Corpus, texts: Sequence[str]) -> None:
    """Accept texts, in order; nothing is published: that is the relay's."""
    for number, body in enumerate(texts):
        admission.accept(corpus, f"text {number}", body)


def until_closed(
    process: Process, corpus: Corpus, cluster: Cluster, meanwhile: Callable[[], object] = lambda: None
) -> None:
    """Wait until no work of the corpus is open; also where the database is away meanwhile.

    However long that takes: it is an error when nothing more is done for as long as others wait for a condition.
    """
    done, since = -1, time.monotonic()
    while not closed(process, corpus):
        meanwhile()
        if (now := _done(process, corpus)) > done:
            done, since = now, time.monotonic()
        assert time.monotonic() < since + SECONDS, f"nothing more is done than {done} pieces\n{cluster.logs()}"
        time.sleep(0.05)


def _done(process: Process, corpus: Corpus) -> int:
    """How much work is done; -1 while the database does not answer."""
    try:
        with process.database.transaction() as connection:
            return tally.states(connection, corpus.id).done
    except Unavailable:
        return -1


def closed(process: Process, corpus: Corpus) -> bool:
    try:
        with process.database.transaction() as connection:
            states = tally.states(connection, corpus.id)
            waiting = steps.sql(process, "SELECT FROM texts WHERE state IN ('accepted', 'ingested')")
    except Unavailable:
        return False
    return states.open == 0 and not waiting


def until(condition: Callable[[], object], cluster: Cluster, pause: float = 0.05) -> None:
    """Poll for a condition; where it is not met in time the error has the output of the processes."""
    eventually(condition, pause=pause, report=cluster.logs)


def check(process: Process, corpus: Corpus, expected: Counter[Ortho]) -> None:
    """The store holds exactly these orthos, each once, and everything about it is sound."""
    assert verify(process, corpus, closure=True) == []
    assert steps.stored(process, corpus) == expected


def corpus_of(process: Process, limits: Limits, name: str = "main") -> Corpus:
    with process.database.transaction() as connection:
        return corpora.get_or_create(connection, name, limits._asdict())
