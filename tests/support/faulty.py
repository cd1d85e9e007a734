"""`crochet`, spoilt on purpose: python -m tests.support.faulty FAULT ARGUMENT ... [+ FAULT ...] -- COMMAND ...

A fault is patched in before the command runs, so that the processes that it forks have it, too. The product itself
has no hooks for this.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import amqp
import celery
import psycopg
from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool
from celery.worker import state
from celery.worker.request import Request

from crochet_tasks import app as tasks
from crochet_tasks import cli, publish
from crochet_tasks.app import Step
from crochet_tasks.engine.phrases import Additions, PhraseIndex
from crochet_tasks.errors import DatabaseConflict
from crochet_tasks.retry import Policy
from crochet_tasks.services import census, worker
from tests.support.waiting import eventually

POINTS = ("before commit", "after commit", "before publish", "after publish", "before ack")
RELAY = "relay"
STAGES = ("ingest.text", "context.version", "remediations.due", "search.part", "orthos.store", "best.part")


def faulty(fault: str, *arguments: str) -> tuple[str, ...]:
    """The program that is `crochet` with this fault."""
    return (sys.executable, "-m", "tests.support.faulty", fault, *arguments, "--")


# ── dying once at a point of each stage ─────────────────────────────────────────────────────────


class Dying:
    """Kills its process where it comes to `point` in a stage whose marker is not there yet, and leaves the marker."""

    def __init__(self, point: str, whom: str, folder: str) -> None:
        self._when, self._what = point.split()
        self._whom = whom
        self._folder = Path(folder)
        self._publishes = False

    def install(self) -> None:
        if self._what == "commit":
            self._around(psycopg.Connection, "commit", lambda *_: self._stage())
        elif self._what == "publish":
            self._around(Step, "publish", lambda *_: self._stage())
        else:  # in the worker's main process, which has no task
            self._around(Request, "acknowledge", lambda request: str(request.name))
        publish_next = publish.publish_next

        def publishing(*args: Any) -> Any:
            self._publishes = True
            try:
                return publish_next(*args)
            finally:
                self._publishes = False

        publish.publish_next = publishing  # type: ignore[assignment]

    def _stage(self) -> str | None:
        """The task that runs, and what follows on it; or the relay, while it publishes."""
        task = celery.current_task
        return task.name if task else RELAY if self._publishes else None

    def _around(self, owner: type, name: str, stage: Callable[..., str | None]) -> None:
        method = getattr(owner, name)

        @functools.wraps(method)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if self._when == "before":
                self._die_once(stage(*args))
            result = method(*args, **kwargs)
            if self._when == "after":
                self._die_once(stage(*args))
            return result

        setattr(owner, name, watched)

    def _die_once(self, stage: str | None) -> None:
        if stage is not None and first_time(self._folder / stage):
            die(self._whom)


def first_time(marker: Path) -> bool:
    """Create a marker; whether it was not there."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def die(whom: str) -> NoReturn:
    """SIGKILL: to this process alone (`child`) or to the whole service that it belongs to (`service`)."""
    if whom == "child":
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        os.killpg(os.getpgrp(), signal.SIGKILL)
    signal.pause()  # until it comes
    raise AssertionError("it comes")


# ── what a word in a text does ──────────────────────────────────────────────────────────────────


class Poison(Exception):
    """A bug."""


def on_word(word: str, act: Callable[[], object]) -> None:
    """Have `act` called whenever a text with this word is ingested."""
    additions = PhraseIndex.additions

    def spoilt(index: PhraseIndex, sentences: list[list[str]], max_side: int) -> Additions:
        if any(word in sentence for sentence in sentences):
            act()
        return additions(index, sentences, max_side)

    PhraseIndex.additions = spoilt  # type: ignore[assignment, method-assign]


def poison(word: str) -> None:
    def act() -> NoReturn:
        raise Poison("cannot be swallowed")

    on_word(word, act)


def later(word: str) -> None:
    """A temporary error that never ends; the worker leaves it to the relay soon."""
    tasks.IN_PLACE = Policy(longest=2.0, seconds=0.2)

    def act() -> NoReturn:
        raise DatabaseConflict(reason="a test")

    on_word(word, act)


def deadly(word: str, whom: str = "child", seconds: str = "0") -> None:
    """Die of a part with this word, after so long."""

    def act() -> None:
        time.sleep(float(seconds))
        die(whom)

    on_word(word, act)


def halt(word: str, marker: str, number: str) -> None:
    """In the so-many-th part with this word, wait for the file MARKER-end; the marker says that it waits."""
    places = [*(Path(f"{marker}-{place}") for place in range(1, int(number))), Path(marker)]

    def act() -> None:
        if next(filter(first_time, places), None) == places[-1]:
            eventually(Path(f"{marker}-end").exists)

    on_word(word, act)


# ── slow ────────────────────────────────────────────────────────────────────────────────────────


def slow(stage: str, marker: str) -> None:
    """The first time, a task waits for the file MARKER-end; it leaves the marker when its worker knows that it runs."""
    _slow(stage, Path(f"{marker}-begun"), Path(f"{marker}-end"))
    on_accepted = Request.on_accepted

    def known(request: Any, *args: Any) -> None:
        on_accepted(request, *args)
        if request.name == stage:
            first_time(Path(marker))

    Request.on_accepted = known


def linger(stage: str, marker: str) -> None:
    """No fault: the first two tasks of this stage take two seconds longer; MARKER-0 says that the first has begun."""
    task = tasks.app.tasks[stage]
    run = task.run

    def longer(call: Any) -> None:
        if any(first_time(Path(f"{marker}-{number}")) for number in range(2)):
            time.sleep(2.0)
        run(call)

    task.run = longer


def deaf(stage: str, marker: str) -> None:
    """As `slow`, but the worker does not hear that its child has begun, until it is stopped."""
    _slow(stage, Path(marker), Path(f"{marker}-end"))
    register, maybe_shutdown = AsynPool._create_process_handlers, state.maybe_shutdown
    stopping: list[bool] = []

    def shutdown() -> None:  # where the event loop checks whether it should end
        if state.should_stop is not None:
            stopping.append(True)
        maybe_shutdown()

    state.maybe_shutdown = shutdown

    def registered(pool: Any, hub: Any) -> None:
        register(pool, hub)
        handle = pool.handle_result_event

        def heard(*args: Any) -> None:
            if not stopping and any(not job._accepted for job in pool._cache.values()):
                with contextlib.suppress(AssertionError):
                    eventually(Path(marker).exists, 0.05, pause=0.001)  # by then it has begun, if it is the one
                    return
            handle(*args)

        pool.handle_result_event = heard

    AsynPool._create_process_handlers = registered


def _slow(stage: str, marker: Path, end: Path) -> None:
    task = tasks.app.tasks[stage]
    run = task.run

    def slowly(call: Any) -> None:
        if first_time(marker):
            eventually(end.exists)
        run(call)

    task.run = slowly


def hold(stage: str, folder: str, number: str) -> None:
    """While the file FOLDER/hold is there, all tasks of a stage but so many wait before they commit; FOLDER/waits says
    that one does.
    """
    gate, marker = Path(folder, "hold"), Path(folder, "waits")
    task, commit = tasks.app.tasks[stage], psycopg.Connection.commit
    run, own = task.run, threading.local()

    def running(call: Any) -> None:
        own.waits = not any(first_time(Path(folder, str(place))) for place in range(int(number)))
        run(call)
        own.waits = False

    def committing(connection: psycopg.Connection) -> None:
        if getattr(own, "waits", False) and gate.exists():
            first_time(marker)
            eventually(lambda: not gate.exists())
        commit(connection)

    task.run = running
    psycopg.Connection.commit = committing  # type: ignore[assignment, method-assign]


def quick() -> None:
    """No fault: the store is counted more often."""
    census.PAUSE_SECONDS = 0.3


def impatient() -> None:
    """No fault: a broker that is silent for 4 s is given up, not one that is for 20 s."""
    tasks.app.conf.broker_heartbeat = 2


def overlook() -> None:
    """Take no notice of a consumer that the broker cancels, as Celery does where that comes just after it consumes."""
    quick()
    amqp.Channel._on_basic_cancel = amqp.Channel._remove_tag


def barren() -> None:
    """No child of a worker can be made ready."""
    worker.FAILED_START_PAUSE_SECONDS = 0.1

    def fail(*_: object) -> NoReturn:
        raise OSError("a test")

    worker.open_process = fail  # type: ignore[assignment, attr-defined]


def unprepared() -> None:
    """A worker cannot be set up, for a reason that no one thought of."""

    def fail(*_: object) -> NoReturn:
        raise OSError("a test")

    worker.readiness.wait = fail  # type: ignore[attr-defined]


FAULTS: dict[str, Callable[..., object]] = {
    "quick": quick,
    "impatient": impatient,
    "overlook": overlook,
    "barren": barren,
    "unprepared": unprepared,
    "die": lambda *arguments: Dying(*arguments).install(),
    "poison": poison,
    "later": later,
    "deadly": deadly,
    "halt": halt,
    "hold": hold,
    "slow": slow,
    "linger": linger,
    "deaf": deaf,
}


def main() -> None:
    end = sys.argv.index("--")
    faults = [list(words) for plus, words in itertools.groupby(sys.argv[1:end], "+".__eq__) if not plus]
    del sys.argv[1 : end + 1]
    # A dead child is noticed soon: Celery checks every 5 s, and believes it after 10.
    tasks.app.conf.worker_lost_wait = 0.2
    TaskPool.Pool.timers = property(lambda pool: {pool.maintain_pool: 0.3})
    for fault, *arguments in faults:
        FAULTS[fault](*arguments)
    cli.main()


if __name__ == "__main__":
    main()
