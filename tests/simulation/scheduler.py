"""Simulated processes: an activity each, in a greenlet, that others overtake at every statement, commit and message.

All of them use the real Postgres, each over its own connection. A statement that waits for a lock of another activity
is noticed, and the others go on. Which one goes on is decided by the caller, so the order of everything is the run's.
"""

from __future__ import annotations

import select
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg
from greenlet import greenlet
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGconn
from psycopg.waiting import Ready, Wait

from crochet_tasks.db import process as processes
from crochet_tasks.db.process import Process

PATIENCE_MS = 3
"""after so long without an answer it is checked whether a statement waits for a lock"""
POINTS = ("statement", "commit", "publish", "ack")


class Killed(Exception):
    """The simulated process is gone: whatever it still tries raises this again."""


class Deadlocked(AssertionError):
    """Transactions wait for each other; the program promises that they never do."""


class Fault(NamedTuple):
    """What happens at the points of a kind with these numbers, from 1: before or after what is done there."""

    kind: str
    numbers: tuple[int, ...]
    what: str
    """killed, error (of the server or broker)"""
    after: bool


class Machine:
    """A simulated process with its own caches and pool; it does one thing at a time."""

    def __init__(self, name: str, make: Callable[[], Process]) -> None:
        self.name, self._make = name, make
        self.process = make()
        self.activity: Activity | None = None

    def restart(self, monitor: psycopg.Connection[Any]) -> None:
        """As after a death: nothing is cached, and a connection that was in the middle of something is gone. One that
        is at rest, its transaction rolled back, may as well be a new one.
        """
        database = self.process.database
        records = database.engine.pool._pool.queue  # type: ignore[attr-defined]
        kept = [connection for record in records if (connection := record.dbapi_connection) is not None]
        if not all(_at_rest(connection.pgconn) for connection in kept):
            for connection in kept:
                monitor.execute("SELECT pg_terminate_backend(%s, 60000)", [connection.pgconn.backend_pid])
            database.engine.dispose()
            with database.transaction():
                pass  # connected before it does anything
        self.process = self._make()


def _at_rest(connection: PGconn) -> bool:
    """Whether it has no transaction, no answer to come, and no pipeline, as the driver opens for many rows."""
    return (connection.transaction_status, connection.pipeline_status) == (TransactionStatus.IDLE, PipelineStatus.OFF)


class Activity:
    """What a machine does: `step`, to its end, its death or its error."""

    def __init__(self, scheduler: Scheduler, machine: Machine, what: str, step: Callable[[], object]) -> None:
        self.scheduler, self.machine, self.what, self._step = scheduler, machine, what, step
        self.switching = False
        """whether others may go on at its points; else only where it waits for a lock"""
        self.fault: Fault | None = None
        self.dead = self.over = False
        self.error: Exception | None = None
        self.waits: psycopg.Connection[Any] | None = None
        """the connection on which it waits for a lock"""
        self.order: str | None = None
        """what ends its waiting: killed, timeout or deadlock"""
        self.passed: Counter[str] = Counter()
        self.kind = "statement"
        self.about: Any = None
        self.overtaken = False
        """its work was published again while it is doing it"""
        self.greenlet = greenlet(self._run)

    def _run(self) -> None:
        try:
            self._step()
        except Exception as error:  # noqa: BLE001 - the world judges it
            if not self.dead:
                self.error = error
        self.over = True

    # ── points ──────────────────────────────────────────────────────────────────────────────

    def at(self, kind: str, act: Callable[[], Any]) -> Any:
        """Do something at a point: others may come first, and a fault may strike before or after it."""
        if self.dead:
            raise Killed
        self.passed[kind] += 1
        self.scheduler.log(f"{self.machine.name} {self.what} {kind} {self.passed[kind]}")
        if self.switching:
            self.scheduler.pause()
            if self.dead:
                raise Killed
        fault = self.fault
        strikes = fault is not None and fault.kind == kind and self.passed[kind] in fault.numbers
        if strikes and fault is not None and not fault.after:
            self._strike(fault)
        result = act()
        if strikes and fault is not None:
            self._strike(fault)
        return result

    def _strike(self, fault: Fault) -> None:
        self.scheduler.log(f"{self.machine.name} {self.what} {fault.what} {'after' if fault.after else 'before'}")
        self.scheduler.struck(self, fault)
        if fault.what == "killed":
            self.dead = True
            raise Killed
        if fault.kind in ("statement", "commit"):
            raise (
                psycopg.errors.SerializationFailure("injected")
                if not fault.after
                else psycopg.OperationalError("injected")
            )
        self.scheduler.refuse_message()

    # ── statements ──────────────────────────────────────────────────────────────────────────

    def statement(self, connection: psycopg.Connection[Any], gen: Any) -> Any:
        if self.kind == "rollback":
            return self._drive(connection, gen)
        return self.at(self.kind, lambda: self._drive(connection, gen))

    def _drive(self, connection: psycopg.Connection[Any], gen: Any) -> Any:
        """Run a statement to its end; where it waits for a lock the others go on."""
        answers, cancelled = select.poll(), ""
        socket = connection.pgconn.socket
        try:
            wanted = next(gen)
            while True:
                answers.register(socket, _EVENTS[wanted])
                while not (ready := answers.poll(PATIENCE_MS)):
                    if not cancelled and self.scheduler.is_blocked(connection):
                        self.waits = connection
                        self.scheduler.blocked(self)
                        self.waits = None
                        if self.order is not None:
                            cancelled, self.order = self.order, None
                            self.scheduler.cancel(connection)
                wanted = gen.send(_ready(ready[0][1]))
        except StopIteration as end:
            return end.value
        except psycopg.errors.QueryCanceled:
            if cancelled == "killed":
                raise Killed from None
            raise {"timeout": psycopg.errors.LockNotAvailable, "deadlock": psycopg.errors.DeadlockDetected}[cancelled](
                "injected"
            ) from None


_EVENTS = {Wait.R: select.POLLIN, Wait.W: select.POLLOUT, Wait.RW: select.POLLIN | select.POLLOUT}


def _ready(events: int) -> Ready:
    readable, writable = events & ~select.POLLOUT, events & select.POLLOUT
    return Ready.RW if readable and writable else Ready.W if writable else Ready.R


class Scheduler:
    """Who goes on. `log` gets a line per step; `struck` is called with each fault."""

    current: Scheduler | None = None

    def __init__(self, monitor: psycopg.Connection[Any], log: Callable[[str], None]) -> None:
        self.monitor, self.log = monitor, log
        self.live: list[Activity] = []
        self.running: Activity | None = None
        self.struck: Callable[[Activity, Fault], None] = lambda *_: None
        self.refuse_message: Callable[[], None] = lambda: None
        self.noticed: Callable[[str], None] = lambda _: None
        self._hub = greenlet.getcurrent()

    def start(self, activity: Activity) -> None:
        """Begin an activity and run it to its first point, or where it is not switching to its end."""
        activity.machine.activity = activity
        self.live.append(activity)
        self.resume(activity)

    def resume(self, activity: Activity) -> None:
        self.running, processes._process = activity, activity.machine.process
        try:
            activity.greenlet.switch()
        finally:
            self.running, processes._process = None, None
        if activity.over:
            self.live.remove(activity)
            activity.machine.activity = None
        for waiting in self.live:
            if waiting.waits is not None and waiting.order is None:
                self._settle(waiting)

    def runnable(self) -> list[Activity]:
        return [activity for activity in self.live if activity.waits is None]

    def kill(self, activity: Activity) -> None:
        """End the simulated process now."""
        activity.dead = True
        if activity.waits is not None:
            activity.order = "killed"
        self.resume(activity)
        assert activity.over

    def end_wait(self, activity: Activity, order: str) -> None:
        """End its waiting for a lock with an error: timeout or deadlock."""
        activity.order = order
        self.resume(activity)

    def finish(self) -> None:
        """Let all activities come to their ends, the oldest first."""
        while self.live:
            ready = self.runnable()
            if not ready:
                raise Deadlocked(", ".join(f"{each.machine.name} {each.what}" for each in self.live))
            ready[0].switching = False
            self.resume(ready[0])

    # ── called by activities ────────────────────────────────────────────────────────────────

    def pause(self) -> None:
        self._hub.switch()

    def blocked(self, activity: Activity) -> None:
        self.log(f"{activity.machine.name} {activity.what} waits for a lock")
        self.noticed("a statement waited for a lock")
        self._hub.switch()

    def is_blocked(self, connection: psycopg.Connection[Any]) -> bool:
        query = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
        row = self.monitor.execute(query, [connection.pgconn.backend_pid]).fetchone()
        return row is not None and bool(row[0])

    def cancel(self, connection: psycopg.Connection[Any]) -> None:
        self.monitor.execute("SELECT pg_cancel_backend(%s)", [connection.pgconn.backend_pid])

    def _settle(self, activity: Activity) -> None:
        """After locks may have been released: it waits still, or has its answer."""
        connection = activity.waits
        assert connection is not None
        answers = select.poll()
        answers.register(connection.pgconn.socket, select.POLLIN)
        while not answers.poll(0):
            if self.is_blocked(connection):
                return
            time.sleep(0.0002)  # it was just woken
        activity.waits = None
