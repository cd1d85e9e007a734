"""Child processes: started, started again when they die, and ended in order. `crochet up` runs services with it.

A child has a thread here that copies its output, and a process group of its own, so that a terminal's Ctrl-C reaches
the supervisor alone. It is `python -m crochet_tasks.services.supervisor PARENT NICE COMMAND ...`: it and its own
children are killed when the supervisor dies, even by SIGKILL. Why not honcho: ADR 0030.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, NamedTuple

from crochet_tasks.retry import Policy
from crochet_tasks.terminal.streams import plain

RESTARTS = Policy(first=0.5, longest=30.0)
LONG_LIFE_SECONDS = 60.0
"""after which the next pause is the first one again"""
HOPELESS = {2, 4}
"""exit codes for usage and unavailable: the service has waited and retried before it ended so"""
TRIES = 3
"""starts of a service that was never ready and ends so; then the supervisor ends"""
EXTRA_SECONDS = 5.0
"""beyond `drain`, for what workers do after it, and for the services that end after them"""
NOTE_SECONDS = 5.0
"""between two notes of what is waited for"""
CHECK_SECONDS = 1.0
LINE_BYTES = 64 * 1024
"""a longer line is cut into several"""
OURS = "up"
_COLOURS = (36, 33, 32, 35, 34, 96)  # ANSI: cyan, yellow, green, magenta, blue, bright cyan
_OWN_COLOUR = 1  # bold


class Service(NamedTuple):
    """One child process: a command of ours."""

    name: str
    arguments: tuple[str, ...]
    ends_last: bool = False
    """it ends after the others, which may need it while they finish"""
    variables: tuple[tuple[str, str], ...] = ()
    """of its environment, beside those that all have"""
    nice: int = 0
    """above 0 it has less of the cores than the others, while they want them: as `nice -n` does, up to 19"""


class StartFailed(Exception):
    """A service does not start. `message` is its last error message, without `crochet:`, or empty."""

    def __init__(self, service: str, status: int, message: str) -> None:
        super().__init__(service, status, message)
        self.service, self.status, self.message = service, status, message


class Log:
    """The one log of several processes: whole lines, each with the name of its process. A line is one write."""

    def __init__(self, stream: BinaryIO, names: Sequence[str], *, colour: bool) -> None:
        self._stream, self._lock = stream, threading.Lock()
        width = max(map(len, [OURS, *names]))
        colours = dict(zip(names, itertools.cycle(_COLOURS), strict=False)) | {OURS: _OWN_COLOUR}
        self._prefixes = {
            name: f"\033[{number}m{name:<{width}} |\033[0m " if colour else f"{name:<{width}} | "
            for name, number in colours.items()
        }

    def write(self, name: str, line: str) -> None:
        written = f"{self._prefixes[name]}{plain(line, keep=chr(9))}\n".encode(errors="backslashreplace")
        with self._lock, contextlib.suppress(OSError):  # a log that cannot be written does not end the services
            self._stream.write(written)
            self._stream.flush()

    def note(self, line: str) -> None:
        """A line of our own."""
        self.write(OURS, line)


class Restarts:
    """How long to wait before something that died is started again."""

    def __init__(self) -> None:
        self._failures = 0

    def pause(self, lived: float) -> float:
        self._failures = 1 if lived >= LONG_LIFE_SECONDS else self._failures + 1
        return RESTARTS.pause(self._failures)


class Child:
    """A service's process, and what is known of it. Used by the main thread, but for `_watch` and `_copy`."""

    def __init__(self, service: Service, environment: Mapping[str, str], events: Events) -> None:
        self.service = service
        self.ready = False
        self.last_error = ""
        self.restart_at: float | None = None
        """when it is to be started; None while it runs, or is not to run any more"""
        self.process: subprocess.Popen[bytes] | None = None
        self._environment, self._events = {**environment, **dict(service.variables)}, events
        self._restarts, self._hopeless, self._began = Restarts(), 0, 0.0

    def start(self) -> None:
        self._began, self.restart_at, self.last_error = time.monotonic(), None, ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(os.getpid()), str(self.service.nice), *self.service.arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        threading.Thread(target=self._watch, args=(self.process,), daemon=True).start()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        copying = threading.Thread(target=self._copy, args=(process,), daemon=True)
        copying.start()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        # Not reaped yet, so the number of its group cannot be another's: kill what is left, which may hold the output.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        copying.join()
        self._events.put((self, None))

    def _copy(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as output:
            for line in iter(lambda: output.readline(LINE_BYTES), b""):
                self._events.put((self, line.decode(errors="backslashreplace").rstrip("\r\n")))

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal; SIGKILL goes to its whole group. It is not started again."""
        self.restart_at = None
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if number == signal.SIGKILL else os.kill)(self.process.pid, number)

    def ended(self) -> int:
        """Reap the process; its exit status. Nothing of its group is left."""
        assert self.process is not None
        status = self.process.wait()
        self.process = None
        return status

    def pause_after(self, status: int) -> float:
        """Seconds until it is started again; raises StartFailed where a restart cannot help."""
        self._hopeless = self._hopeless + 1 if status in HOPELESS else 0
        if self._hopeless >= TRIES and not self.ready:
            raise StartFailed(self.service.name, status, self.last_error)
        pause = self._restarts.pause(time.monotonic() - self._began)
        self.restart_at = time.monotonic() + pause
        return pause


Events = queue.SimpleQueue[tuple[Child | None, str | None]]
"""a child's line, or None when it has ended; without a child: a signal has come. Signal handlers may put into it."""


class Supervisor:
    """All services, from the first start to the last end. Signals raise SystemExit until `run`, and then end it."""

    def __init__(self, log: Log, drain: float, ready: str) -> None:
        """A service whose output holds `ready` is ready."""
        self.log = log
        self.signals: list[int] = []
        self._drain, self._ready = drain, ready
        self._events: Events = queue.SimpleQueue()
        self._children: list[Child] = []
        self._running = self._stopping = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.received)

    def received(self, number: int, _frame: object = None) -> None:
        if not self._running:
            raise SystemExit(128 + number)
        self.signals.append(number)
        self._events.put((None, None))

    def run(
        self,
        services: Sequence[Service],
        environment: Mapping[str, str],
        ready: Callable[[], None],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Keep the services running until a signal comes; `ready` is called once all of them are.

        `check` is called every second. When it raises, or a service cannot be started, all end and the error is raised.
        """
        self._running = True
        self._children = [Child(service, environment, self._events) for service in services]
        checked = noted = time.monotonic()
        all_ready = False
        try:
            for child in self._children:
                child.start()
            self.log.note(f"starting {_names(self._children)}")
            while not self.signals:
                self._step(CHECK_SECONDS)
                waiting = [child for child in self._children if not child.ready]
                if not waiting and not all_ready:
                    ready()
                    all_ready = True
                if waiting and time.monotonic() >= noted + NOTE_SECONDS:
                    self.log.note(f"waiting for {_names(waiting)} to be ready")
                    noted = time.monotonic()
                if time.monotonic() >= checked + CHECK_SECONDS:
                    check()
                    checked = time.monotonic()
        finally:
            self._end()

    def _step(self, seconds: float) -> None:
        """Handle one event, or wait for it so long at the most; start what is due."""
        due = [child.restart_at for child in self._children if child.restart_at is not None]
        pause = min([seconds, *(at - time.monotonic() for at in due)])
        with contextlib.suppress(queue.Empty):
            child, line = self._events.get(timeout=max(0.0, pause))
            if child is not None:
                self._handle(child, line)
        for child in self._children:
            if child.restart_at is not None and child.restart_at <= time.monotonic():
                child.start()

    def _handle(self, child: Child, line: str | None) -> None:
        name = child.service.name
        if line is None:
            status = child.ended()
            if not self._stopping:
                pause = child.pause_after(status)
                self.log.note(f"{name} {_how(status)}; it is started again in {pause:.1f} s")
            return
        self.log.write(name, line)
        child.ready = child.ready or self._ready in line
        if line.startswith("crochet: "):
            child.last_error = line.removeprefix("crochet: ")

    # ── the end ─────────────────────────────────────────────────────────────────────────────────

    def _end(self) -> None:
        """End them in order, in a bounded time, at a second signal at once; what is left then is killed."""
        self._stopping, before = True, len(self.signals)
        for child in self._children:
            child.restart_at = None
        self.log.note("stopping; once more Ctrl-C or SIGTERM ends everything at once")
        note = time.monotonic() + NOTE_SECONDS / 5
        until = time.monotonic() + self._drain + EXTRA_SECONDS / 2
        for last in (False, True):
            for child in self.alive(last=last):
                child.signal(signal.SIGTERM)
            while (alive := self.alive(last=last)) and len(self.signals) == before and time.monotonic() < until:
                if time.monotonic() >= note:
                    left = until - time.monotonic()
                    self.log.note(f"waiting for {_names(alive)}; at the most {left:.0f} s more")
                    note = time.monotonic() + NOTE_SECONDS
                self._step(min(until, note) - time.monotonic())
            until += EXTRA_SECONDS / 2
        for child in self.alive():
            self.log.note(f"{child.service.name} is killed")
            child.signal(signal.SIGKILL)
        while self.alive():
            self._step(CHECK_SECONDS)

    def alive(self, *, last: bool | None = None) -> list[Child]:
        """Return the services with a process; `last`: only those that end last, or only the others."""
        return [
            child for child in self._children if child.process is not None and last in (None, child.service.ends_last)
        ]


def _how(status: int) -> str:
    return f"ended with exit code {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"


def _names(children: Sequence[Child]) -> str:
    return ", ".join(child.service.name for child in children)


# ── in the child ────────────────────────────────────────────────────────────────────────────────

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with(parent: int) -> None:
    """Be killed when `parent` ends; our children, forked later, when we do.

    The kernel sends the signal when the *thread* that started the child ends: here, the supervisor's main thread.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    ours = os.getpid()

    def die_with(parent: int) -> None:
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot ask for the end of the parent")
        if os.getppid() != parent:  # it ended before we could ask
            os._exit(128 + signal.SIGKILL)

    def in_child() -> None:
        nonlocal ours
        parent, ours = ours, os.getpid()
        die_with(parent)

    die_with(parent)
    os.register_at_fork(after_in_child=in_child)


def main() -> None:
    end_with(int(sys.argv.pop(1)))
    os.nice(int(sys.argv.pop(1)))
    runpy.run_module("crochet_tasks", run_name="__main__", alter_sys=True)  # as `python -m crochet_tasks`


if __name__ == "__main__":
    main()
