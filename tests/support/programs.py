"""Services as programs: started, read and ended by acceptance tests."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from crochet_tasks.settings import environment
from tests.support.commands import CROCHET
from tests.support.paths import ROOT
from tests.support.server import take_port
from tests.support.waiting import SECONDS, eventually


class Service:
    """A running service and its output so far."""

    def __init__(self, *arguments: object, **settings: str) -> None:
        self._process = subprocess.Popen(
            [*CROCHET, *map(str, arguments)],
            cwd=ROOT,
            env=environment(**settings),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self.pid = self._process.pid
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            self.lines.extend(iter(stream.readline, ""))

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def wait_for(self, pattern: str, after: int = 0) -> re.Match[str]:
        """The first match behind so many lines, when it is there."""
        found = eventually(
            lambda: re.search(pattern, "".join(self.lines[after:])) or self._ended(), report=lambda: self.output
        )
        assert isinstance(found, re.Match), f"ended without '{pattern}':\n{self.output}"
        return found

    def _ended(self) -> bool:
        return not self._reader.is_alive()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, number: signal.Signals | None = None) -> int:
        """Its exit code; with a signal to make it end."""
        if number is not None:
            self.send(number)
        status = self._process.wait(SECONDS)
        self._reader.join(SECONDS)
        return status

    def family(self) -> list[psutil.Process]:
        """It and everything it has started, however deep."""
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]

    def child(self, name: str) -> psutil.Process:
        """The process of one service of `crochet up`."""
        word = {"stages": "ingest,"}.get(name, name)
        found = [one for one in psutil.Process(self.pid).children() if word in " ".join(one.cmdline()[5:])]
        assert len(found) == 1, found
        return found[0]


@contextmanager
def service(*arguments: object, **settings: str) -> Iterator[Service]:
    started = Service(*arguments, **settings)
    try:
        yield started
    finally:
        started.end(signal.SIGKILL)  # whatever happened, nothing of it stays


def gone(processes: list[psutil.Process]) -> bool:
    _, left = psutil.wait_procs(processes, timeout=SECONDS)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in left if process.is_running())


def refused(done: subprocess.CompletedProcess[str], exit_code: int, code: str, *says: str) -> None:
    """One line at the end that says it, with its code."""
    assert (done.returncode, done.stdout) == (exit_code, ""), done.stderr
    last = done.stderr.splitlines()[-1]
    if last.startswith("{"):  # the service had begun to log
        line = json.loads(last)
        assert (line["level"], line["event"], line["code"]) == ("error", "command_failed", code)
        last = line["error"]
    else:
        assert re.fullmatch(rf"crochet: .+ \[{code}\]", last), done.stderr
    assert "Traceback" not in done.stderr
    for part in says:
        assert part in last


def basic(login: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def status_of(url: str, login: str | None = None) -> int:
    request = urllib.request.Request(url, headers={} if login is None else basic(login))
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def addresses(vhost: str, redis_url: str) -> dict[str, str]:
    """Settings for fresh servers, and for ports that are free."""
    return {
        "CROCHET_BROKER_URL": vhost,
        "CROCHET_REDIS_URL": redis_url,
        "CROCHET_API_PORT": str(take_port()),
        "CROCHET_FLOWER_PORT": str(take_port()),
        "CROCHET_STARTUP_WAIT": "10",
    }
