"""`crochet health --kill-after`: what hangs is killed, so that its supervisor starts it again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crochet_tasks.services import heartbeat
from crochet_tasks.services.heartbeat import Health
from crochet_tasks.settings import Settings
from tests.support.server import HOST

pytestmark = pytest.mark.integration

SLEEP = "import time; time.sleep(300)"
LISTEN = """
import socket, time
opened = socket.create_server(("127.0.0.1", 0))
print(opened.getsockname()[1], flush=True)
time.sleep(300)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(health_dir=tmp_path)


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", request.param], stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.parametrize("child", [SLEEP], indirect=True)
@pytest.mark.parametrize(("silent", "dies"), [(0, False), (200, False), (400, True)])
def test_a_service_without_heartbeat_is_killed_after_a_while(
    settings: Settings, tmp_path: Path, child: subprocess.Popen[str], silent: float, dies: bool
) -> None:
    about = {"service": "worker[search]", "pid": child.pid, "well": time.time() - silent, "problem": None}
    (tmp_path / "worker.json").write_text(json.dumps(about))
    found = heartbeat.read(settings)
    assert heartbeat.kill_unhealthy(settings, found, 300) == ([child.pid] if dies else [])
    if dies:
        assert child.wait() == -signal.SIGKILL
    assert (child.poll() is not None) == dies


@pytest.mark.parametrize("child", [LISTEN], indirect=True)
def test_an_api_that_does_not_answer_is_killed_after_a_while(tmp_path: Path, child: subprocess.Popen[str]) -> None:
    """From the first of the checks that failed in a row; one that succeeded forgets the others."""
    assert child.stdout is not None
    port = int(child.stdout.readline())
    settings = Settings(health_dir=tmp_path, api_port=port)
    hangs, answers = Health("api", None, "it does not answer"), Health("api", None, None)
    with socket.create_connection((HOST, port)):
        assert heartbeat.kill_unhealthy(settings, [hangs], 60) == []
        (first,) = tmp_path.iterdir()
        before = time.time() - 100
        os.utime(first, (before, before))
        assert heartbeat.kill_unhealthy(settings, [answers], 60) == []
        assert heartbeat.kill_unhealthy(settings, [hangs], 60) == []
        os.utime(first, (before, before))
        assert heartbeat.kill_unhealthy(settings, [hangs], 60) == [child.pid]
    assert child.wait() == -signal.SIGKILL


PARENT = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", {LISTEN!r}]).wait()
"""


@pytest.mark.parametrize("command", ["api", "other"])
def test_the_process_that_started_the_api_goes_too_and_no_other_one(tmp_path: Path, command: str) -> None:
    """As where all processes of a container are stopped: one that hangs starts no other."""
    with subprocess.Popen([sys.executable, "-c", PARENT, command], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        settings = Settings(health_dir=tmp_path, api_port=int(parent.stdout.readline()))
        killed = heartbeat.kill_unhealthy(settings, [Health("api", None, "it does not answer")], 0)
        assert (parent.pid in killed, len(killed)) == (command == "api", 2 if command == "api" else 1)
        assert parent.wait() == (-signal.SIGKILL if command == "api" else 0)
