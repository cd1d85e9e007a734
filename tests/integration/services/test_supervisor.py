"""The supervisor of `crochet up`: its log, restarts, the order of stopping. Children are small real processes."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from crochet_tasks.retry import Policy
from crochet_tasks.services import supervisor
from crochet_tasks.services.supervisor import LINE_BYTES, Log, Restarts, Service, StartFailed, Supervisor
from tests.support.waiting import eventually

READY = "ready_for_work"

# ── the log ─────────────────────────────────────────────────────────────────────────────────────


def test_each_line_names_its_service() -> None:
    """Prefixes are equally wide; colour goes around the prefix only; what a terminal acts on is escaped."""
    plain, coloured = io.BytesIO(), io.BytesIO()
    for stream, colour in ((plain, False), (coloured, True)):
        log = Log(stream, ["api", "search"], colour=colour)
        log.write("api", "there\x1b[2J")
        log.note("ready")
    assert plain.getvalue() == b"api    | there\\u001b[2J\nup     | ready\n"
    assert coloured.getvalue() == b"\033[36mapi    |\033[0m there\\u001b[2J\n\033[1mup     |\033[0m ready\n"


def test_a_log_that_cannot_be_written_is_no_error() -> None:
    """The services go on."""
    gone = Gone()
    Log(gone, ["api"], colour=False).write("api", "there")
    assert gone.tried == 1


class Gone(io.BytesIO):
    tried = 0

    def write(self, _: object) -> int:
        self.tried += 1
        raise BrokenPipeError


# ── restarts ────────────────────────────────────────────────────────────────────────────────────


def test_pauses_grow_and_a_long_life_resets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """From half a second to half a minute."""
    monkeypatch.setattr("crochet_tasks.retry.random.uniform", lambda low, high: high)
    restarts = Restarts()
    assert [restarts.pause(1.0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert [restarts.pause(61.0), restarts.pause(1.0)] == [0.5, 1]


class Crowd:
    """Python one-liners under a supervisor, and what it logged."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, drain: float = 5.0, **programs: str) -> None:
        self.log = io.BytesIO()
        self._services = [
            Service(name, (program,), ends_last=name.startswith("last")) for name, program in programs.items()
        ]
        popen = subprocess.Popen

        def start(command: list[str], **options: Any) -> Any:
            return popen([sys.executable, "-c", f"{PRELUDE}\n{command[-1]}"], **options)

        monkeypatch.setattr(subprocess, "Popen", start)
        self.supervisor = Supervisor(Log(self.log, list(programs), colour=False), drain, READY)

    def run(self, when_ready: Callable[[], None]) -> None:
        self.supervisor.run(self._services, {}, when_ready)

    def stop(self) -> None:
        self.supervisor.received(signal.SIGTERM)

    def when(self, *lines: str, times: int = 1) -> Callable[[], None]:
        """Stops once each of these has been logged so often."""

        def stop() -> None:
            eventually(lambda: min(sum(line in each for each in self.lines) for line in lines) >= times)
            self.stop()

        return threading.Thread(target=stop, daemon=True).start

    @property
    def lines(self) -> list[str]:
        return [" ".join(line.split()) for line in self.log.getvalue().decode().splitlines()]


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """A supervisor takes the signals of its process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


PRELUDE = f"""
import os, signal, sys, time
def ends(*_): os.write(1, b"bye\\n"); os._exit(0)  # a signal may come during a print
signal.signal(signal.SIGTERM, ends)
def ready(): print({READY!r}, flush=True)
"""
WAITS = "time.sleep(600)"
"""for a signal, or for the end of the test where the supervisor forgets it"""
SERVES = f"ready(); {WAITS}"
DEAF = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); ready(); {WAITS}"
AT_ONCE = Policy(first=0.01)


def test_workers_end_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services that others need while they finish are stopped after those."""
    # The first one takes so long that the last one would be earlier if it were not kept waiting.
    slow = f"signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), ends())); ready(); {WAITS}"
    crowd = Crowd(monkeypatch, last=SERVES, first=slow, second=SERVES)
    crowd.run(crowd.stop)
    ended = [line for line in crowd.lines if line.endswith("bye")]
    assert sorted(ended[:2]) == ["first | bye", "second | bye"]
    assert ended[2:] == ["last | bye"]


def test_it_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "NOTE_SECONDS", 0.1)
    monkeypatch.setattr(supervisor, "CHECK_SECONDS", 0.05)
    crowd = Crowd(monkeypatch, quick=SERVES, slow=WAITS)
    crowd.when("up | waiting for slow to be ready")()
    crowd.run(crowd.stop)
    assert crowd.lines[0] == "up | starting quick, slow"


def test_what_does_not_end_in_time_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest has time to end before."""
    # A moment for the first ones, which is drain + EXTRA_SECONDS / 2, and a minute for the last.
    monkeypatch.setattr(supervisor, "EXTRA_SECONDS", 120)
    crowd = Crowd(monkeypatch, drain=0.3 - 60, deaf=DEAF, last=SERVES)
    crowd.run(crowd.stop)
    assert crowd.lines[-1] == "up | deaf is killed"
    assert "last | bye" in crowd.lines


def test_a_second_signal_kills_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before its time is over."""
    crowd = Crowd(monkeypatch, drain=3600, deaf=DEAF)

    def stop_twice() -> None:
        crowd.when("up | stopping;")()
        crowd.stop()

    crowd.run(stop_twice)
    assert crowd.lines[-1] == "up | deaf is killed"


def test_the_dead_are_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log says how they ended."""
    monkeypatch.setattr(supervisor, "RESTARTS", AT_ONCE)
    crowd = Crowd(monkeypatch, dies="ready(); sys.exit(3)", killed="ready(); signal.raise_signal(signal.SIGKILL)")
    crowd.run(
        crowd.when(
            "up | dies ended with exit code 3; it is started again", "up | killed was ended by SIGKILL; it", times=2
        )
    )
    assert crowd.lines.count(f"dies | {READY}") >= 2


def test_what_never_starts_brings_the_rest_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few tries, with its own last words; the others end in order."""
    monkeypatch.setattr(supervisor, "RESTARTS", AT_ONCE)
    crowd = Crowd(monkeypatch, wrong="print('crochet: no such thing [usage]'); sys.exit(2)", last=SERVES)
    with pytest.raises(StartFailed) as failed:
        crowd.run(crowd.stop)
    assert (failed.value.service, failed.value.status, failed.value.message) == ("wrong", 2, "no such thing [usage]")
    assert sum("| crochet: no such thing" in line for line in crowd.lines) == supervisor.TRIES
    assert crowd.supervisor.alive() == []


def test_what_was_ready_once_is_never_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is away for long is no reason to take everything down."""
    monkeypatch.setattr(supervisor, "RESTARTS", AT_ONCE)
    crowd = Crowd(monkeypatch, away="ready(); sys.exit(4)")
    crowd.run(crowd.when("up | away ended with exit code 4", times=supervisor.TRIES + 1))
    assert crowd.lines.count("away | ready_for_work") > supervisor.TRIES


def test_nothing_of_a_dead_service_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own children are in its group and go with it, though they hold its output open."""
    monkeypatch.setattr(supervisor, "RESTARTS", Policy(first=3600, longest=3600))
    forks = "ready(); pid = os.fork()\nif pid: print('pid', pid, flush=True); os._exit(5)\n" + WAITS
    crowd = Crowd(monkeypatch, forks=forks)
    crowd.run(crowd.when("up | forks ended with exit code 5"))
    (number,) = [int(line.split()[-1]) for line in crowd.lines if line.startswith("forks | pid ")]
    with contextlib.suppress(psutil.NoSuchProcess):
        left = psutil.Process(number)
        eventually(lambda: left.status() == psutil.STATUS_ZOMBIE)  # it may not have been reaped


def test_a_line_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process writes without an end of line is not kept in memory for ever."""
    crowd = Crowd(monkeypatch, long=f"print('x' * {2 * LINE_BYTES + 1}, end=''); ready(); {WAITS}")
    crowd.run(crowd.stop)
    assert [len(line) for line in crowd.lines if line.startswith("long | x")][:2] == [LINE_BYTES + 7] * 2
