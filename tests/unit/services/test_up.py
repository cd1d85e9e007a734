"""What `crochet up` is made of: the log, the pauses, the order of stopping. Children are small real processes."""

from __future__ import annotations

import asyncio
import contextlib
import io
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import psutil
import pytest

from crochet_tasks.errors import NotOnLoopback, SettingMissing
from crochet_tasks.services import up, up_services
from crochet_tasks.services.serving import READY, check_flower
from crochet_tasks.services.up_log import LINE_BYTES, Lines, Log
from crochet_tasks.services.up_services import Child, Crew, GaveUp, Pauses, Service, Stop
from crochet_tasks.settings import Settings

# ── the log ─────────────────────────────────────────────────────────────────────────────────────


def test_lines_are_handed_out_when_they_are_whole() -> None:
    """Whatever the pieces in which they come; the last one may have no end."""
    lines = Lines()
    assert list(lines.feed(b"one\ntw")) == [b"one"]
    assert list(lines.feed(b"o")) == []
    assert list(lines.feed(b"\n\nthree")) == [b"two", b""]
    assert list(lines.close()) == [b"three"]
    assert list(lines.close()) == []


def test_a_line_without_end_is_cut() -> None:
    """What a process writes without an end of line is not kept in memory for ever."""
    lines = Lines()
    assert list(lines.feed(b"x" * (2 * LINE_BYTES + 1))) == [b"x" * LINE_BYTES] * 2
    assert list(lines.feed(b"y\n")) == [b"xy"]


def test_each_line_names_its_service() -> None:
    """Prefixes are equally wide; colour goes around the prefix only."""
    plain, coloured = io.BytesIO(), io.BytesIO()
    for stream, colour in ((plain, False), (coloured, True)):
        log = Log(stream, ["api", "search"], colour=colour)
        log.write("api", b"there\r")
        log.say("ready")
    assert plain.getvalue() == b"api    | there\nup     | ready\n"
    assert coloured.getvalue() == b"\033[36mapi    |\033[0m there\n\033[1mup     |\033[0m ready\n"


def test_a_log_that_nobody_reads_is_no_error() -> None:
    """The services go on."""

    class Gone(io.BytesIO):
        def write(self, _: object) -> int:
            raise BrokenPipeError

    Log(Gone(), ["api"], colour=False).write("api", b"there")


# ── restarts ────────────────────────────────────────────────────────────────────────────────────


def test_pauses_grow_and_a_long_life_resets_them() -> None:
    """From half a second to half a minute."""
    pauses = Pauses()
    assert [pauses.after(1.0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert [pauses.after(61.0), pauses.after(1.0)] == [0.5, 1]


class Crowd:
    """A crew of Python one-liners, and what it logged."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, drain: float = 5.0, **programs: str) -> None:
        self.log = io.BytesIO()
        self.stop: Stop | None = None
        services = [Service(name, (program,), ends_last=name.startswith("last")) for name, program in programs.items()]
        popen = subprocess.Popen

        def start(command: list[str], **options: Any) -> Any:
            return popen([sys.executable, "-c", f"{PRELUDE}\n{command[-1]}"], **options)

        monkeypatch.setattr(subprocess, "Popen", start)
        self.crew = Crew(services, {}, Log(self.log, list(programs), colour=False), drain)

    def run(self, when_ready: Callable[[Stop], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            self.stop = stop = Stop()
            stop.listen()
            tasks = []
            await self.crew.run(stop, lambda: tasks.append(asyncio.create_task(when_ready(stop))))

        asyncio.run(main())

    @property
    def lines(self) -> list[str]:
        return [" ".join(line.split()) for line in self.log.getvalue().decode().splitlines()]


PRELUDE = f"""
import os, signal, sys, time
def ends(*_): os.write(1, b"bye\\n"); os._exit(0)  # a signal may come amid a print
signal.signal(signal.SIGTERM, ends)
def ready(): print({READY!r}, flush=True)
"""
SERVES = "ready(); time.sleep(60)"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); ready(); time.sleep(60)"


async def ask(stop: Stop) -> None:
    stop._note(signal.SIGTERM)


async def ask_twice(stop: Stop) -> None:
    stop._note(signal.SIGTERM)
    await asyncio.sleep(0.3)
    stop._note(signal.SIGTERM)


def test_workers_end_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that others may need while they finish are told to end when those are gone."""
    slow = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), ends())); ready(); time.sleep(60)"
    crowd = Crowd(monkeypatch, last=SERVES, first=slow, second=SERVES)
    crowd.run(ask)
    ended = [line for line in crowd.lines if line.endswith("bye")]
    assert sorted(ended[:2]) == ["first | bye", "second | bye"]
    assert ended[2:] == ["last | bye"]


def test_who_does_not_end_in_time_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest has time to end before."""
    monkeypatch.setattr(up_services, "EXTRA_SECONDS", 0.6)
    crowd = Crowd(monkeypatch, drain=0.3, deaf=DEAF, last=SERVES)
    crowd.run(ask)
    assert crowd.lines[-2:] == ["last | bye", "up | deaf is killed"]


def test_a_second_signal_kills_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before its time is over."""
    crowd = Crowd(monkeypatch, drain=60, deaf=DEAF)
    crowd.run(ask_twice)
    assert crowd.lines[-1] == "up | deaf is killed"


def test_the_dead_are_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said of what they died."""
    monkeypatch.setattr(up_services, "FIRST_PAUSE_SECONDS", 0.01)
    crowd = Crowd(monkeypatch, dies="ready(); sys.exit(3)", killed="ready(); signal.raise_signal(signal.SIGKILL)")

    async def after_a_while(stop: Stop) -> None:
        while min(sum(f"| {name} {how}" in line for line in crowd.lines) for name, how in said) < 2:
            await asyncio.sleep(0.01)
        await ask(stop)

    said = [("dies", "ended with exit code 3; it is started again"), ("killed", "was ended by SIGKILL")]
    crowd.run(after_a_while)
    assert f"dies | {READY}" in crowd.lines


def test_what_never_starts_brings_the_rest_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few tries, with its own last words; the others end in order."""
    monkeypatch.setattr(up_services, "FIRST_PAUSE_SECONDS", 0.01)
    crowd = Crowd(monkeypatch, wrong="print('crochet: no such thing [usage]'); sys.exit(2)", last=SERVES)
    with pytest.raises(GaveUp) as failed:
        crowd.run(ask)
    assert (failed.value.service, failed.value.status, failed.value.words) == ("wrong", 2, "no such thing [usage]")
    assert sum("| crochet: no such thing" in line for line in crowd.lines) == up_services.TRIES
    assert crowd.lines[-1] == "last | bye"


def test_what_was_ready_once_is_never_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is away for long is no reason to take everything down."""
    monkeypatch.setattr(up_services, "FIRST_PAUSE_SECONDS", 0.01)
    crowd = Crowd(monkeypatch, away="ready(); sys.exit(4)")

    async def after_more_tries(stop: Stop) -> None:
        while sum("exit code 4" in line for line in crowd.lines) <= up_services.TRIES:
            await asyncio.sleep(0.01)
        await ask(stop)

    crowd.run(after_more_tries)


def test_nothing_of_a_dead_service_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own children are in its group and go with it, though they hold its output open."""
    forks = "pid = os.fork()\nif pid: print(pid, flush=True); os._exit(5)\ntime.sleep(60)"
    heard: list[bytes] = []
    Crowd(monkeypatch)

    async def main() -> int:
        return await Child(Service("forks", (forks,)), {}, heard.append).end()

    assert asyncio.run(asyncio.wait_for(main(), 10)) == 5
    with contextlib.suppress(psutil.NoSuchProcess):
        left = psutil.Process(int(heard[0]))
        with contextlib.suppress(psutil.TimeoutExpired):  # nobody may have waited for it
            left.wait(1)
        assert left.status() == psutil.STATUS_ZOMBIE


# ── what runs ───────────────────────────────────────────────────────────────────────────────────


def test_every_queue_has_a_worker() -> None:
    """Among the services are workers for all queues; the number of searching processes is as wanted."""
    services = up._services(up.Wanted(search=3, api=True, flower=False))
    workers = [service.arguments for service in services if service.arguments[0] == "worker"]
    from crochet_tasks.broker.queues import WORK

    assert sorted(name for worker in workers for name in worker[2].split(",")) == sorted(WORK)
    assert ("worker", "--queues", "search", "--concurrency", "3") in workers
    assert [service.name for service in services if service.ends_last] == ["relay", "api"]


def test_flower_needs_a_login_but_at_home() -> None:
    """Without one it runs in development and on loopback only."""
    broker = {"broker_url": "amqp://host"}
    check_flower(Settings.load(**broker, flower_auth="a:b", flower_host="0.0.0.0"))
    for host in ("127.0.0.1", "::1", "localhost"):
        check_flower(Settings.load(**broker, environment="development", flower_host=host))
    with pytest.raises(SettingMissing, match="CROCHET_FLOWER_AUTH"):
        check_flower(Settings.load(**broker))
    for host in ("0.0.0.0", "example.org"):
        with pytest.raises(NotOnLoopback, match=host):
            check_flower(Settings.load(**broker, environment="development", flower_host=host))
    with pytest.raises(SettingMissing, match="CROCHET_BROKER_URL"):
        check_flower(Settings.load(environment="development"))


def test_up_gives_each_service_a_port() -> None:
    """One after the other; Flower has metrics of its own."""
    services = up._services(up.Wanted(search=1, api=True, flower=True))
    given = [service.variables for service in up._with_metrics(services, Settings(metrics_port=9100))]
    assert given == [(("CROCHET_METRICS_PORT", str(port)),) for port in range(9100, 9105)] + [()]
    assert up._with_metrics(services, Settings()) == services
