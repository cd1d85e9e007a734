"""`crochet run` that stops early, is interrupted or killed: the next one goes on."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from crochet_tasks.schemas.reports import RunReport
from tests.support.cli import EVENING, HARBOUR, closure, crochet, exported, report_of, started
from tests.support.faulty import faulty
from tests.support.paths import ROOT
from tests.support.waiting import SECONDS, eventually

pytestmark = pytest.mark.acceptance


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small pieces of work, so that there is time to interrupt them."""
    monkeypatch.setenv("CROCHET_BATCH_ORTHOS", "1")
    monkeypatch.setenv("CROCHET_RESULT_ORTHOS", "1")


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch, tiny: None) -> Callable[[], None]:
    """Back to pieces of work of the usual size."""

    def back() -> None:
        monkeypatch.delenv("CROCHET_BATCH_ORTHOS")
        monkeypatch.delenv("CROCHET_RESULT_ORTHOS")

    return back


@pytest.mark.usefixtures("ready_state")
def test_a_budget_stops_early_and_a_later_run_goes_on(
    state: Path, monkeypatch: pytest.MonkeyPatch, large: Callable[[], None]
) -> None:
    """Also without the text; texts that came after the budget was reached are versions already."""
    first = report_of(crochet("run", HARBOUR, "--state", state, "--budget", 20, "--json"))
    assert (first.ended, first.closed) == ("budget", False)
    assert first.total >= 20
    assert first.open_work > 0
    large()
    waits = report_of(crochet("run", EVENING, "--state", state, "--budget", 1, "--json"))
    assert (waits.version, waits.total, waits.ended) == (2, first.total, "budget")
    shown = crochet("run", "--state", state, "--budget", 1)
    assert "the budget of 1 ortho is reached: " in shown.stdout
    assert re.search(r"not searched: \d+ of \d+ starting points of version 1", shown.stdout)
    assert "to go on: crochet run --budget " in shown.stdout
    assert report_of(crochet("run", "--state", state, "--json")).closed
    assert exported(state) == closure(HARBOUR, EVENING)


def begun(state: Path, *arguments: object) -> subprocess.Popen[str]:
    """A run in the middle of its work: three results are stored, and the next one waits to be committed."""
    running = started("run", HARBOUR, EVENING, "--state", state, *arguments, program=held(state))
    eventually((gate(state).parent / "waits").exists)
    return running


def held(state: Path) -> tuple[str, ...]:
    """The program, which commits three results and then none until the gate is gone."""
    folder = gate(state).parent
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    gate(state).touch()
    return faulty("hold", "orthos.store", str(folder), "3")


def gate(state: Path) -> Path:
    """As long as it is there results are not committed."""
    return state.parent / "gate" / "hold"


@pytest.mark.usefixtures("ready_state")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_stops_cleanly_and_the_next_run_goes_on(
    state: Path, large: Callable[[], None], number: signal.Signals
) -> None:
    running = begun(state, "--json")
    running.send_signal(number)
    gate(state).unlink()
    output, errors = running.communicate(timeout=SECONDS)
    assert running.returncode == 128 + number, errors
    report = RunReport.model_validate_json(output)
    assert (report.ended, report.closed) == ("stopped", False)
    assert report.open_work > 0
    large()
    assert report_of(crochet("run", HARBOUR, EVENING, "--state", state, "--json")).closed
    assert exported(state) == closure(HARBOUR, EVENING)


@pytest.mark.usefixtures("ready_state")
def test_killed_the_next_run_goes_on(state: Path, large: Callable[[], None]) -> None:
    """Twice, and then to the end."""
    for _ in range(2):
        running = begun(state)
        running.kill()
        running.communicate(timeout=SECONDS)
    large()
    assert report_of(crochet("run", HARBOUR, EVENING, "--state", state, "--json")).closed
    assert exported(state) == closure(HARBOUR, EVENING)
    checked = crochet("verify", "--closure", "--state", state)
    assert (checked.returncode, checked.stdout) == (0, "corpus 'main': no problems\n"), checked.stderr


@pytest.mark.usefixtures("ready_state")
def test_a_terminal_shows_live_progress_and_ctrl_c_reaches_it(
    state: Path, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a pseudo-terminal, with both streams on it: a table that is drawn over, a clean stop, then grids.

    The run is held after three results, so that it cannot end before it is stopped.
    """
    terminal, theirs = os.openpty()
    # The terminal must be its own, else Ctrl-C is but a character.
    wrapper = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    running = subprocess.Popen(
        [sys.executable, "-c", wrapper, *held(state), "run", str(HARBOUR), "--state", str(state)],
        cwd=ROOT,
        stdin=theirs,
    )
    os.close(theirs)
    shown = _read_until(terminal, lambda seen: re.search(r"done +[1-9]\d* orthos", _plain(seen)) is not None)
    assert "\x1b[?25l" in shown  # the cursor is hidden: something moves
    os.write(terminal, b"\x03")
    gate(state).unlink()
    shown += _read_until(terminal, lambda _: False)
    os.close(terminal)
    assert running.wait(SECONDS) == 130
    plain = _plain(shown)
    assert "volume" in plain
    assert "└──" in plain
    assert re.search(r"stopped: \d+ of 570 are stored .*\r\nto go on: crochet run\r\n$", plain, re.DOTALL)
    assert "Traceback" not in plain


def _plain(shown: str) -> str:
    """Without what moves the cursor and sets colours."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)


def _read_until(terminal: int, enough: Callable[[str], bool]) -> str:
    """What a terminal shows, until it is enough or it is closed."""
    seen, end = b"", time.monotonic() + SECONDS
    while time.monotonic() < end and not enough(seen.decode(errors="replace")):
        if select.select([terminal], [], [], 0.5)[0]:
            read = b""
            with suppress(OSError):  # EIO: no process has it open any more
                read = os.read(terminal, 65536)
            if not read:
                break
            seen += read
    return seen.decode(errors="replace")


@pytest.mark.usefixtures("ready_state")
def test_a_second_signal_stops_at_once(state: Path, large: Callable[[], None]) -> None:
    """What was under way is rolled back and done again."""
    running = begun(state)
    running.send_signal(signal.SIGSTOP)  # so that both arrive before it acts on the first
    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGTERM)
    gate(state).unlink()
    running.send_signal(signal.SIGCONT)
    running.communicate(timeout=SECONDS)
    assert running.returncode in {128 + signal.SIGINT, 128 + signal.SIGTERM}
    large()
    assert report_of(crochet("run", "--state", state, "--json")).closed
    assert exported(state) == closure(HARBOUR, EVENING)
