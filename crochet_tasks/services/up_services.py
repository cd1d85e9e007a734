"""Services as child processes: started, started again when they die, and ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from crochet_tasks.services.serving import READY
from crochet_tasks.services.up_log import Lines, Log

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
LONG_LIFE_SECONDS = 60.0
"""a service that lived so long is started again as if it had never died before"""
HOPELESS = {2, 4}
"""exit codes for usage and for what does not answer: the service itself has waited and tried before it ended so"""
TRIES = 3
"""how often a service is started that has never been ready and ends so"""
EXTRA_SECONDS = 5.0
"""beyond `drain`, for what workers do after it, and for the services that end after them"""
SAY_SECONDS = 5.0


class Service(NamedTuple):
    """One child process: a command of ours."""

    name: str
    arguments: tuple[str, ...]
    ends_last: bool = False
    """it ends after the others, which may need it while they finish"""
    variables: tuple[tuple[str, str], ...] = ()
    """of its environment, beside those that all have"""


class GaveUp(Exception):
    """A service does not start, however often. `words` are its last, without `crochet:`, or empty."""

    def __init__(self, service: str, status: int, words: str) -> None:
        super().__init__(service, status, words)
        self.service, self.status, self.words = service, status, words


class Stop:
    """SIGTERM and SIGINT, from `watch` on.

    As long as nothing runs they raise SystemExit. From `listen` on they set events: `asked` at the first one, whose
    number is kept, and `forced` at the second. When the loop has ended they do nothing: all is about to end.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.asked, self.forced = asyncio.Event(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._received)

    def listen(self) -> None:
        """From now on, in the running loop, signals set events."""
        self._loop = asyncio.get_running_loop()

    def _received(self, number: int, _frame: object) -> None:
        if self._loop is None:
            raise SystemExit(128 + number)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._note, number)

    def _note(self, number: int) -> None:
        if self.number is None:
            self.number = number
            self.asked.set()
        else:
            self.forced.set()


class Pauses:
    """How long to wait before a service is started again: longer each time, unless it lived long."""

    def __init__(self) -> None:
        self._next = FIRST_PAUSE_SECONDS

    def after(self, lived: float) -> float:
        pause = FIRST_PAUSE_SECONDS if lived >= LONG_LIFE_SECONDS else self._next
        self._next = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return pause


class Child:
    """One process in a group of its own, so that a terminal's Ctrl-C is for us alone. It dies when we do."""

    def __init__(self, service: Service, environment: Mapping[str, str], heard: Callable[[bytes], None]) -> None:
        self._lines, self._heard = Lines(), heard
        self._output, write = os.pipe()
        os.set_blocking(self._output, False)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "crochet_tasks.services.up_child", str(os.getpid()), *service.arguments],
                env={**environment, **dict(service.variables)},
                stdin=subprocess.DEVNULL,
                stdout=write,
                stderr=write,
                process_group=0,
            )
        except BaseException:
            os.close(self._output)
            raise
        finally:
            os.close(write)
        self._handle = os.pidfd_open(self._process.pid)

    def tell(self, number: signal.Signals) -> None:
        """Send the process a signal; for SIGKILL its whole group. The process has not been waited for yet."""
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                os.kill(self._process.pid, number)

    async def end(self) -> int:
        """Hand on what it says until it ends; its exit status. Nothing of its group is left then."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._output, self._read)
        loop.add_reader(self._handle, ended.set)
        try:
            await ended.wait()
        finally:
            # As long as it has not been waited for, the number of its group is not given to another one.
            self.tell(signal.SIGKILL)
            status = self._process.wait()
            loop.remove_reader(self._handle)
            loop.remove_reader(self._output)
            while self._read():
                pass
            for line in self._lines.close():
                self._heard(line)
            os.close(self._handle)
            os.close(self._output)
        return status

    def _read(self) -> bool:
        """Hand on what there is; whether there may be more."""
        try:
            written = os.read(self._output, 64 * 1024)
        except BlockingIOError:
            return False
        if not written:
            asyncio.get_running_loop().remove_reader(self._output)
        for line in self._lines.feed(written):
            self._heard(line)
        return bool(written)


class Keeper:
    """Keeps one service running."""

    def __init__(self, service: Service, environment: Mapping[str, str], log: Log) -> None:
        self.service = service
        self.ready = asyncio.Event()
        self._environment, self._log = environment, log
        self._child: Child | None = None
        self._stopping = asyncio.Event()
        self._words = ""

    async def keep(self) -> None:
        """Return when the service was told to stop and has; raises GaveUp when it cannot be started."""
        pauses, hopeless = Pauses(), 0
        while not self._stopping.is_set():
            began, self._words = time.monotonic(), ""
            self._child = Child(self.service, self._environment, self._heard)
            try:
                status = await self._child.end()
            finally:
                self._child = None
            if self._stopping.is_set():
                return
            hopeless = hopeless + 1 if status in HOPELESS else 0
            if hopeless >= TRIES and not self.ready.is_set():
                raise GaveUp(self.service.name, status, self._words)
            pause = pauses.after(time.monotonic() - began)
            self._log.say(f"{self.service.name} {_in_words(status)}; it is started again in {pause:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    def stop(self) -> None:
        self._stopping.set()
        self._tell(signal.SIGTERM)

    def kill(self) -> None:
        self._stopping.set()
        self._tell(signal.SIGKILL)

    def _tell(self, number: signal.Signals) -> None:
        if self._child is not None:
            self._child.tell(number)

    def _heard(self, line: bytes) -> None:
        self._log.write(self.service.name, line)
        if READY.encode() in line:
            self.ready.set()
        if line.startswith(b"crochet: "):
            self._words = line.removeprefix(b"crochet: ").decode(errors="replace")


def _in_words(status: int) -> str:
    if status >= 0:
        return f"ended with exit code {status}"
    return f"was ended by {signal.Signals(-status).name}"


class Crew:
    """All services, from the first start to the last end."""

    def __init__(self, services: Sequence[Service], environment: Mapping[str, str], log: Log, drain: float) -> None:
        self._keepers = [Keeper(service, environment, log) for service in services]
        self._log, self._drain = log, drain
        self._tasks: dict[asyncio.Task[None], Keeper] = {}

    async def run(self, stop: Stop, ready: Callable[[], None], beside: Sequence[Awaitable[None]] = ()) -> None:
        """Keep the services running until `stop` is asked for; `ready` is called once all of them are.

        When a service cannot be started, or one of `beside` raises, all end and the error is raised.
        """
        self._tasks = {asyncio.create_task(keeper.keep(), name=keeper.service.name): keeper for keeper in self._keepers}
        asked = asyncio.create_task(stop.asked.wait())
        others = [asyncio.create_task(self._when_ready(ready)), *map(asyncio.ensure_future, beside)]
        watched: set[asyncio.Future[Any]] = {asked, *self._tasks, *others}
        try:
            while not asked.done():
                done, watched = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                for future in done:
                    future.result()
        finally:
            for task in (asked, *others):
                task.cancel()
            await self._end(stop)

    async def _when_ready(self, ready: Callable[[], None]) -> None:
        for keeper in self._keepers:
            await keeper.ready.wait()
        ready()

    async def _end(self, stop: Stop) -> None:
        """End them in order, in a bounded time; whoever does not is killed."""
        until = time.monotonic() + self._drain + EXTRA_SECONDS
        self._log.say("stopping; once more Ctrl-C or SIGTERM ends everything at once")
        for last in (False, True):
            for keeper in self._running(last=last):
                keeper.stop()
            await self._gone(stop, until - (0 if last else EXTRA_SECONDS / 2), last=last)
        for keeper in self._running():
            self._log.say(f"{keeper.service.name} is killed")
            keeper.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _gone(self, stop: Stop, until: float, *, last: bool) -> None:
        """Wait for them until then, or until it is forced, and say whom for."""
        forced = asyncio.create_task(stop.forced.wait())
        say = time.monotonic() + SAY_SECONDS / 5
        while (running := self._running(last=last)) and not forced.done() and (now := time.monotonic()) < until:
            if now >= say:
                names = ", ".join(keeper.service.name for keeper in running)
                self._log.say(f"waiting for {names}; at the most {until - now:.0f} s more")
                say = now + SAY_SECONDS
            tasks = [task for task, keeper in self._tasks.items() if keeper in running]
            pause = min(until, say) - now
            await asyncio.wait([forced, *tasks], timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()

    def _running(self, *, last: bool | None = None) -> list[Keeper]:
        running = (keeper for task, keeper in self._tasks.items() if not task.done())
        return [keeper for keeper in running if last is None or keeper.service.ends_last == last]
