"""Set-up of every Celery worker of this app, whether `crochet worker`, `celery` or `celery multi` starts it.

app.py has Celery call `attach` when a worker begins. Before any child is forked, `_prepare` sets up logs, metrics and
health, and checks database, broker and queues. Each process of the pool then opens its database connections and what
else its tasks work with (`_Processes`).

SIGTERM or SIGINT drains the worker: it takes no more messages, finishes its running tasks, and exits. After
CROCHET_DRAIN seconds, or at a second signal, it exits at once: the broker delivers its unacknowledged messages again,
and its transactions are rolled back.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import mmap
import os
import select
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar

import click
from amqp.exceptions import NotFound
from celery import concurrency as pools
from celery import signals
from celery.apps.worker import Worker
from celery.bin.base import CLIContext
from celery.bin.worker import worker as celery_worker
from celery.concurrency import prefork, solo, thread
from celery.exceptions import ImproperlyConfigured, SecurityWarning
from celery.utils.log import get_multiprocessing_logger
from celery.worker import consumer, state, strategy

from crochet_tasks import readiness, telemetry
from crochet_tasks.app import app, needed
from crochet_tasks.broker.queues import WORK
from crochet_tasks.db.process import open_process
from crochet_tasks.errors import WrongCall
from crochet_tasks.reporting.worker_use import SAMPLE_SECONDS, Reporter
from crochet_tasks.services import heartbeat as heartbeats
from crochet_tasks.services.heartbeat import EVERY_SECONDS, Heartbeat
from crochet_tasks.services.progress import Progress
from crochet_tasks.services.setup import READY, begin, imported
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import metrics_endpoint

log = logging.getLogger(__name__)

OUTCOME_SECONDS = 1.0
"""how long a worker that stops waits for the acknowledgements of its children's last tasks"""
DRAIN_LOG_SECONDS = 5.0
"""between two log lines of a draining worker"""
LOST_CONSUMERS = 1
"""exit status of a worker that must be started again"""
NO_PROCESSES = 1
"""exit status of a worker whose children cannot start"""
NOT_STARTED = 1
"""exit status of a child that could not start"""
FAILED_START_PAUSE_SECONDS = 2.0
"""before such a child exits: the pool replaces it at once"""
MOST_FAILED_STARTS = 5
"""failed starts in a row, per process of the pool, after which the worker exits and leaves its messages to others"""


def run(arguments: list[str]) -> int:
    """Run `celery worker` with these arguments; its exit status. Raises WrongCall, and what `needed` receivers do."""
    try:
        # Not by `app.worker_main`: it loses the exit status, and loads all other commands, Flower and a shell too.
        context = CLIContext(app, no_color=False, workdir=None, quiet=True)
        return int(celery_worker.main(args=arguments, standalone_mode=False, obj=context) or 0)
    except click.ClickException as error:
        raise WrongCall(problem=f"celery worker: {error.format_message()}") from error
    except ImproperlyConfigured as error:  # a queue that is none
        raise WrongCall(problem=f"celery worker: {' '.join(str(error).split())}") from error
    except SystemExit as end:
        cause = end.__cause__
        if cause is None:
            raise
    raise cause  # which a receiver raised that is `needed`


def attach(**_: Any) -> None:
    """Prepare the worker that is about to be made in this process."""
    # Celery warns of running as root because of pickle, which we do not accept.
    warnings.simplefilter("ignore", SecurityWarning)
    signals.setup_logging.connect(_logs_are_set_up, weak=False)
    signals.worker_init.connect(_prepare, weak=False)


def _logs_are_set_up(**_: Any) -> None:
    """Celery leaves logging alone where this signal has a receiver."""


@needed
def _prepare(sender: Any, **_: Any) -> None:
    if isinstance(sender, Worker):  # not a test's worker, in a thread of a process that is not ours
        _set_up(sender)


def _set_up(worker: Any) -> None:
    settings, pool = Settings.load(), _pool(worker)
    queues = [name for name in WORK if name in app.amqp.queues.consume_from]
    service = f"worker[{'all' if len(queues) == len(WORK) else ','.join(queues)}]"
    get_multiprocessing_logger()  # or a child that dies prints its traceback, line by line
    begin(service, settings)
    if getattr(sys.stderr, "logs", False):  # all that is printed is JSON, so is what Celery's banner would say
        worker.quiet = True
    metrics_endpoint.start("worker", service, settings, functools.partial(heartbeats.answer, settings))
    readiness.wait(settings, readiness.warn)
    telemetry.load(settings)
    imported()
    drain = _Drain(settings.drain, worker)
    drain.install()
    size = _size(worker, pool)
    failed_starts = FailedStarts(MOST_FAILED_STARTS * size, lambda: drain.begin(NO_PROCESSES))
    processes = _Processes(settings, queues, failed_starts, threads=size if pool is thread.TaskPool else 1)
    processes.connect()
    if pool is not prefork.TaskPool:
        processes.begin()
    heartbeat = Heartbeat(settings, service)
    Consumer.use = Reporter(settings, worker.hostname, size, lambda: len(state.active_requests))
    longest = max(app.conf.task_time_limit, app.conf.task_annotations["best.part"]["time_limit"])
    Consumer.progress = Progress(heartbeat, longest, lambda: drain.begin(LOST_CONSUMERS))
    Consumer.failed_starts = failed_starts
    signals.worker_ready.connect(lambda **_: log.info(READY), weak=False)
    signals.worker_shutdown.connect(lambda **_: heartbeat.end(), weak=False)


def _pool(worker: Any) -> type:
    """The worker's kind of pool; raises WrongCall for one in which the tasks cannot run."""
    found: type = pools.get_implementation(worker.pool_cls)
    if found not in (prefork.TaskPool, solo.TaskPool, thread.TaskPool):
        raise WrongCall(problem=f"tasks do not run in the pool '{found.__module__}': use prefork, solo or threads")
    if found is prefork.TaskPool and worker.pool_start_method == "spawn":
        raise WrongCall(problem="children must be forked: leave out --pool-start-method spawn")
    return found


def _size(worker: Any, pool: type) -> int:
    """How many tasks the worker runs at the same time, at the most."""
    if pool is solo.TaskPool:
        return 1
    autoscale = worker.options.get("autoscale")
    if autoscale:
        return max(int(part) for part in (autoscale.split(",") if isinstance(autoscale, str) else autoscale))
    return worker.concurrency if isinstance(worker.concurrency, int) else os.cpu_count() or 1


class Consumer(consumer.Consumer):
    """Celery's, without its native delayed delivery: nothing is delayed in the broker, and it declares 28 queues."""

    class Blueprint(consumer.Consumer.Blueprint):
        default_steps: ClassVar = [
            step for step in consumer.Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        ]

    wakeup: ClassVar[socket.socket | None] = None
    """readable when a signal has arrived"""
    progress: ClassVar[Progress | None] = None
    use: ClassVar[Reporter | None] = None
    failed_starts: ClassVar[FailedStarts | None] = None
    _timers: tuple[Any, ...] = ()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """A queue that is deleted while it begins to consume is no reason to end: it declares it as it reconnects."""
        super().__init__(*arguments, **options)
        self.connection_errors = (*self.conninfo.connection_errors, NotFound)

    def connection_for_write(self, url: str | None = None, heartbeat: float | None = None) -> Any:
        """The connection for events. The broker confirms none: the event loop would wait for that each time."""
        options = {"confirm_publish": False}
        return self.ensure_connected(
            self.app.connection_for_write(url=url, heartbeat=heartbeat, transport_options=options)
        )

    def on_ready(self) -> None:
        """Begin to consume, at the start and after each loss of the broker.

        Without `wakeup` the event loop would notice a signal only at its next heartbeat, seconds later.
        """
        super().on_ready()
        if self.hub is None:
            return
        if self.wakeup is not None:
            self.hub.add_reader(self.wakeup, self.wakeup.recv, 1)
        if self.progress is not None and self.use is not None and self.failed_starts is not None:
            self._cancel_timers()
            self.progress.reset()
            self._timers = (
                self.hub.call_repeatedly(EVERY_SECONDS, self.progress.check, self),
                self.hub.call_repeatedly(SAMPLE_SECONDS, self.use.sample),
                self.hub.call_repeatedly(EVERY_SECONDS, self.failed_starts.check),
            )

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def on_close(self) -> None:
        """Read first which tasks the children have started: Celery forgets those that it does not know to be started.

        It would not read their results then, and a child waits 30 s for that before it exits.
        """
        self._cancel_timers()
        pool, until = getattr(self.pool, "_pool", None), time.monotonic() + OUTCOME_SECONDS
        while pool and any(not job._accepted for job in list(pool._cache.values())) and time.monotonic() < until:
            for end in select.select(list(pool._fileno_to_outq), [], [], 0.05)[0]:
                pool.handle_result_event(end)
        super().on_close()


def at_once(task: Any, *arguments: Any, **options: Any) -> Callable[..., Any]:
    """Celery's strategy for what to do with a message, which runs it whatever its ETA: see `app.Immediate`."""
    handle = strategy.default(task, *arguments, **options)

    def received(message: Any, *about: Any, **more: Any) -> Any:
        if message.headers.get("eta") is not None:
            log.warning("eta_ignored", extra={"task": task.name, "eta": str(message.headers["eta"])})
            message.headers["eta"] = None
        return handle(message, *about, **more)

    return received


class FailedStarts:
    """Counts children in a row that could not start, in memory that they share with their worker.

    Calls `stop_worker`, once, when there were `most`: the worker has messages that other workers could process.
    """

    def __init__(self, most: int, stop_worker: Callable[[], None]) -> None:
        self._most, self._stop_worker = most, stop_worker
        self._number = memoryview(mmap.mmap(-1, 4)).cast("I")
        self._stopped = False

    def reset(self) -> None:
        self._number[0] = 0

    def add(self) -> None:
        self._number[0] += 1

    def check(self) -> None:
        if self._number[0] >= self._most and not self._stopped:
            self._stopped = True
            log.error("worker_start_failed", extra={"tried": self._number[0]})
            self._stop_worker()


class _Processes:
    """Opens what tasks work with: in each child after the fork, or in the worker itself where its pool has none."""

    def __init__(self, settings: Settings, queues: list[str], failed_starts: FailedStarts, *, threads: int = 1) -> None:
        """`threads`: how many tasks one process runs at the same time."""
        self._settings, self._queues, self._failed_starts, self._threads = settings, queues, failed_starts, threads
        self._open: contextlib.ExitStack | None = None

    def connect(self) -> None:
        signals.worker_process_init.connect(self.begin, weak=False)
        signals.worker_process_shutdown.connect(self.end, weak=False)
        signals.worker_shutdown.connect(self.end, weak=False)

    def begin(self, **_: Any) -> None:
        """Exit where it fails: Celery would swallow the error, and this process would fail every task."""
        if self._open is not None:  # the solo pool sends the signal in the worker's own process
            return
        self._open = contextlib.ExitStack()
        try:
            telemetry.begin("worker", self._settings, self._queues)  # first: it instruments connections
            self._open.callback(telemetry.end)
            assert self._settings.database_url is not None
            url = self._settings.database_url.get_secret_value()
            self._open.enter_context(open_process(self._settings, url, threads=self._threads))
            self._failed_starts.reset()
        except Exception:
            log.exception("process_start_failed", extra={"pause": FAILED_START_PAUSE_SECONDS})
            time.sleep(FAILED_START_PAUSE_SECONDS)
            self._failed_starts.add()
            os._exit(NOT_STARTED)

    def end(self, **_: Any) -> None:
        if self._open is not None:
            self._open.close()


class _Drain:
    """Ends a worker in a bounded time."""

    def __init__(self, seconds: float, worker: Any) -> None:
        self._seconds, self._worker = seconds, worker
        self._until: float | None = None
        self._signalled, self._status = False, 0

    def install(self) -> None:
        Consumer.wakeup, self._signals = socket.socketpair()
        for end in (Consumer.wakeup, self._signals):
            end.settimeout(0)
        signal.set_wakeup_fd(self._signals.fileno(), warn_on_full_buffer=False)
        # When it consumes: Celery installs its own handlers earlier.
        signals.worker_ready.connect(self._handle_signals, weak=False)

    def _handle_signals(self, **_: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._signalled:
            self._exit_now("second signal", 128 + number)
        self._signalled = True
        self.begin(0)

    def begin(self, status: int) -> None:
        """Take no more messages, finish the running tasks, and exit with this status."""
        if self._until is not None:
            return
        self._until, self._status = time.monotonic() + self._seconds, status
        state.should_stop = status
        threading.Thread(target=self._wait, name="drain", daemon=True).start()

    def _wait(self) -> None:
        assert self._until is not None
        while (left := self._until - time.monotonic()) > 0:
            log.warning("draining", extra={"running": _running(), "seconds_left": round(left, 1)})
            time.sleep(min(DRAIN_LOG_SECONDS, left))
        self._exit_now(f"not done after {self._seconds:g} s", self._status)

    def _exit_now(self, why: str, status: int) -> None:
        """Kill the children and exit without closing the connection in order: the broker redelivers all messages."""
        log.warning("drain_aborted", extra={"why": why, "running": _running()})
        for child in getattr(getattr(self._worker.pool, "_pool", None), "_pool", None) or []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        os._exit(status)


def _running() -> str:
    """The tasks that run, for the log."""
    return "; ".join(f"{request.name} {request.argsrepr}" for request in list(state.active_requests)) or "nothing"
