"""What is forked does what a program does that Python has started: the other acceptance tests rely on it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from crochet_tasks.settings import environment
from tests.support import forks
from tests.support.commands import CROCHET
from tests.support.paths import ROOT
from tests.support.waiting import SECONDS, eventually

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize(("arguments", "status"), [(["--version"], 0), (["run", "-"], 3), (["status"], 2)])
def test_the_same_is_said_and_returned(arguments: list[str], status: int) -> None:
    """Arguments, environment and standard input arrive; output, errors and exit status come back, byte for byte."""
    command, words = [*CROCHET, *arguments], b"..."
    its = environment(CROCHET_LOCK_TIMEOUT="soon" if arguments == ["status"] else "1")
    real = subprocess.run(command, cwd=ROOT, env=its, input=words, capture_output=True, timeout=SECONDS, check=False)
    forked = forks.run(command, its, SECONDS, words)
    assert (forked.returncode, forked.stdout, forked.stderr) == (status, real.stdout.decode(), real.stderr.decode())


def test_it_shares_nothing_with_others() -> None:
    """It has a session and files of its own, gets its signals alone, and what forked it can fork the next one."""
    reading, writing = os.pipe()
    with Path(os.devnull).open("wb") as nothing:
        others = [
            forks.start([*CROCHET, "run", "-"], environment(), reading, nothing.fileno(), nothing.fileno())
            for _ in range(2)
        ]
        assert [os.getsid(one.pid) for one in others] == [one.pid for one in others]
    os.close(reading)
    for one in others:
        hears(one.pid, signal.SIGTERM)
        assert {int(file.name) for file in Path(f"/proc/{one.pid}/fd").iterdir()} == {0, 1, 2}
        assert one.poll() is None
    others[0].send_signal(signal.SIGTERM)
    assert others[0].wait(SECONDS) == 128 + signal.SIGTERM
    others[1].kill()
    assert others[1].wait(SECONDS) == -signal.SIGKILL
    os.close(writing)


def hears(pid: int, number: signal.Signals) -> None:
    """Return when it handles this signal."""
    eventually(lambda: caught(pid) >> (number - 1) & 1)


def caught(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1], 16)
