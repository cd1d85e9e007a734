"""A worker: takes messages off its queues, each of its processes one at a time, and ends without losing any.

SIGTERM or SIGINT: it takes no more, finishes what it has in hand, and ends. After `drain` seconds, or at a second
signal, it ends at once: what was in hand goes back to the queue, and its transactions are rolled back.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar

from celery import signals
from celery.utils.log import get_multiprocessing_logger
from celery.worker import consumer, state

from crochet_tasks import app as tasks
from crochet_tasks import startup, telemetry
from crochet_tasks.db.process import open_process
from crochet_tasks.reporting.worker_use import LOOK_SECONDS, Reporter
from crochet_tasks.services.heartbeat import EVERY_SECONDS, Beat
from crochet_tasks.services.progress import Progress
from crochet_tasks.settings import Settings

log = logging.getLogger(__name__)

HEAR_SECONDS = 1.0
"""for how long a worker that stops listens for what its children have just taken up"""
REPORT_SECONDS = 5.0
"""how often a draining worker says what it waits for"""


CONSUMES_NO_MORE = 1
"""exit status of a worker that is to be started again"""
CANNOT_BEGIN = 1
"""the same of one whose children cannot be made ready"""
NOT_BEGUN = 1
"""exit status of a child that could not be made ready"""
REST_SECONDS = 2.0
"""that such a child waits before it ends: the pool makes another at once, and takes one for lost that is not up in 4"""
MOST_NOT_BEGUN = 5
"""such children in a row, for each process of a worker, after which it ends: others are to have its messages"""


def serve(settings: Settings, queues: list[str], concurrency: int, service: str) -> int:
    """Work until a signal comes, or nothing does any more (progress.py); the exit status."""
    startup.check(settings, startup.say)
    name = f"{queues[0] if len(queues) == 1 else 'stages'}-{os.getpid()}@{socket.gethostname()}"
    worker = tasks.app.Worker(
        hostname=name,
        queues=queues,
        concurrency=concurrency,
        pool="prefork",
        loglevel="INFO",
        without_gossip=True,  # workers need not know each other
        without_mingle=True,
        quiet=True,
    )
    get_multiprocessing_logger()  # or a child that dies prints its traceback, line by line
    telemetry.load(settings)
    drain = _Drain(settings.drain, worker)
    drain.watch()
    vain = Vain(MOST_NOT_BEGUN * concurrency, lambda: drain.begin(CANNOT_BEGIN))
    _Processes(settings, queues, vain).watch()
    beat = Beat(settings, service)
    Consumer.use = Reporter(settings, name, concurrency, lambda: len(state.active_requests))
    Consumer.progress = Progress(beat, tasks.app.conf.task_time_limit, lambda: drain.begin(CONSUMES_NO_MORE))
    Consumer.vain = vain
    try:
        worker.start()
    finally:
        beat.end()
    return int(worker.exitcode or 0)


class Consumer(consumer.Consumer):
    """Celery's, without its native delayed delivery: nothing is delayed in the broker, and it declares 28 queues."""

    class Blueprint(consumer.Consumer.Blueprint):
        default_steps: ClassVar = [
            step for step in consumer.Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        ]

    bell: ClassVar[socket.socket | None] = None
    """can be read when a signal has come"""
    progress: ClassVar[Progress | None] = None
    use: ClassVar[Reporter | None] = None
    vain: ClassVar[Vain | None] = None
    _looking: tuple[Any, ...] = ()

    def on_ready(self) -> None:
        """Begin to consume, at the start and after each loss of the broker; a signal then wakes the event loop.

        By itself it would sleep until its next heartbeat, for seconds.
        """
        super().on_ready()
        if self.hub is not None and self.bell is not None:
            self.hub.add_reader(self.bell, self.bell.recv, 1)
        if self.hub is not None and self.progress is not None and self.use is not None and self.vain is not None:
            self._look_no_more()
            self.progress.begin_anew()
            self._looking = (
                self.hub.call_repeatedly(EVERY_SECONDS, self.progress.look, self),
                self.hub.call_repeatedly(LOOK_SECONDS, self.use.look),
                self.hub.call_repeatedly(EVERY_SECONDS, self.vain.look),
            )

    def _look_no_more(self) -> None:
        for timer in self._looking:
            timer.cancel()

    def on_close(self) -> None:
        """Hear first what the children have taken up: at its end Celery forgets what it does not know to be taken up.

        Nobody would then read that child's result, and it waits 30 s for that before it ends.
        """
        self._look_no_more()
        pool, until = getattr(self.pool, "_pool", None), time.monotonic() + HEAR_SECONDS
        while pool and any(not job._accepted for job in list(pool._cache.values())) and time.monotonic() < until:
            for end in select.select(list(pool._fileno_to_outq), [], [], 0.05)[0]:
                pool.handle_result_event(end)
        super().on_close()


class Vain:
    """Children in a row that could not be made ready: they count them in memory that they share with their worker.

    It calls `give_up`, once, when there were so many: it has messages in hand that others could do something with.
    """

    def __init__(self, most: int, give_up: Callable[[], None]) -> None:
        self._most, self._give_up = most, give_up
        self._number = memoryview(mmap.mmap(-1, 4)).cast("I")
        self._gone = False

    def none(self) -> None:
        self._number[0] = 0

    def one_more(self) -> None:
        self._number[0] += 1

    def look(self) -> None:
        if self._number[0] >= self._most and not self._gone:
            self._gone = True
            log.error("worker_cannot_begin", extra={"tried": self._number[0]})
            self._give_up()


class _Processes:
    """Opens in each child process, after the fork, what tasks work with."""

    def __init__(self, settings: Settings, queues: list[str], vain: Vain) -> None:
        self._settings, self._queues, self._vain = settings, queues, vain
        self._open = contextlib.ExitStack()

    def watch(self) -> None:
        signals.worker_process_init.connect(self._begin, weak=False)
        signals.worker_process_shutdown.connect(self._end, weak=False)

    def _begin(self, **_: Any) -> None:
        """A child that cannot is of no use, and ends: Celery would swallow the error, and have it fail every task."""
        try:
            telemetry.begin("worker", self._settings, self._queues)  # first: it has to see connections being made
            self._open.callback(telemetry.end)
            assert self._settings.database_url is not None
            url = self._settings.database_url.get_secret_value()
            self._open.enter_context(open_process(self._settings, url))
            self._vain.none()
        except Exception:
            log.exception("process_not_begun", extra={"pause": REST_SECONDS})
            time.sleep(REST_SECONDS)
            self._vain.one_more()
            os._exit(NOT_BEGUN)

    def _end(self, **_: Any) -> None:
        self._open.close()


class _Drain:
    """Ends a worker in a bounded time."""

    def __init__(self, seconds: float, worker: Any) -> None:
        self._seconds, self._worker = seconds, worker
        self._until: float | None = None
        self._was_asked, self._status = False, 0

    def watch(self) -> None:
        Consumer.bell, self._rope = socket.socketpair()
        for end in (Consumer.bell, self._rope):
            end.settimeout(0)
        signal.set_wakeup_fd(self._rope.fileno(), warn_on_full_buffer=False)
        # Once it consumes: Celery sets its own handlers before.
        signals.worker_ready.connect(self._install, weak=False)

    def _install(self, **_: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked)

    def _asked(self, number: int, _frame: FrameType | None) -> None:
        if self._was_asked:
            self._force("asked again", 128 + number)
        self._was_asked = True
        self.begin(0)

    def begin(self, status: int) -> None:
        """Take no more, finish what is in hand, and end with this status."""
        if self._until is not None:
            return
        self._until, self._status = time.monotonic() + self._seconds, status
        state.should_stop = status
        threading.Thread(target=self._wait, name="drain", daemon=True).start()

    def _wait(self) -> None:
        assert self._until is not None
        while (left := self._until - time.monotonic()) > 0:
            log.warning("stopping", extra={"in_hand": _in_hand(), "seconds_left": round(left, 1)})
            time.sleep(min(REPORT_SECONDS, left))
        self._force(f"not done after {self._seconds:g} s", self._status)

    def _force(self, why: str, status: int) -> None:
        """End at once, children first, without a word to the broker: it hands out again what was in hand."""
        log.warning("ending_at_once", extra={"why": why, "in_hand": _in_hand()})
        for child in getattr(getattr(self._worker.pool, "_pool", None), "_pool", None) or []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        os._exit(status)


def _in_hand() -> str:
    """The tasks that run; what is handed back where it ends at once."""
    return "; ".join(f"{request.name} {request.argsrepr}" for request in list(state.active_requests)) or "nothing"
