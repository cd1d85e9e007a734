"""A service's endpoint for Prometheus: where it listens, what it leaves behind, and what does not disturb it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest

from crochet_tasks.errors import InvalidSetting
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import instruments, metrics, metrics_endpoint
from crochet_tasks.telemetry.metrics_endpoint import Health
from tests.support.server import take_port
from tests.support.waiting import SECONDS, eventually

pytestmark = pytest.mark.integration

COUNTED = "crochet_phrases_due_total 7.0"


def no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "full")


def test_a_port_that_is_taken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is begun then, and nothing left behind."""
    monkeypatch.setattr(metrics_endpoint, "IN_MEMORY", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidSetting, match=rf"CROCHET_METRICS_PORT: cannot listen on 127.0.0.1:{port}"):
            metrics_endpoint.start("worker", "worker", Settings(metrics_port=port))
    assert not instruments.recorded()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("trouble", ["no folder", "little room"])
def test_a_service_without_room_for_metrics_goes_on_without(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """To write into a mapped file for which there is no memory would kill it."""
    monkeypatch.setattr(metrics_endpoint, "IN_MEMORY", tmp_path)
    if trouble == "no folder":
        monkeypatch.setattr(tempfile, "mkdtemp", no_room)
    else:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    port = take_port()
    metrics_endpoint.start("worker", "worker", Settings(metrics_port=port))
    assert not instruments.recorded()
    assert [record.message for record in caplog.records] == ["metrics_not_recorded"]
    assert list(tmp_path.iterdir()) == []
    socket.create_server(("127.0.0.1", port)).close()


def test_what_killed_services_left_is_removed(tmp_path: Path) -> None:
    """Not what a living process still has, though its pid be of another container."""
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left, locked = (tmp_path / f"crochet-metrics-{int(dead.stdout)}-{name}" for name in ("left", "locked"))
    others = {tmp_path / f"crochet-metrics-{os.getpid()}-x", tmp_path / "crochet-metrics-x", tmp_path / "x"}
    for each in (left, locked, *others):
        each.mkdir()
        (each / "counter_1.db").touch()
    handle = metrics_endpoint.lock(locked)
    metrics_endpoint.sweep(tmp_path)
    os.close(handle)
    assert set(tmp_path.iterdir()) == {locked, *others}


@contextlib.contextmanager
def service(folder: Path, settings: Settings, health: Health | None = None) -> Iterator[psutil.Process]:
    """A process that counts something, with a child that sleeps; killed in the end."""
    pid = os.fork()
    if pid == 0:
        try:
            metrics_endpoint.IN_MEMORY = folder
            metrics_endpoint.start("worker", "worker", settings, health)
            metrics.DUE.add(7)
            if os.fork() == 0:
                signal.pause()
            signal.pause()
        finally:
            os._exit(1)
    process = psutil.Process(pid)
    try:
        eventually(lambda: process.children() and COUNTED in answer(settings))
        yield process
    finally:
        children = process.children()
        process.kill()
        os.waitpid(pid, 0)
        for child in children:
            child.kill()


def is_free(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_server(("127.0.0.1", port)).close()
        return True
    return False


def answer(settings: Settings) -> str:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{settings.metrics_port}/metrics", timeout=SECONDS).text
    return ""


def test_a_killed_service_gives_its_port_back_at_once(tmp_path: Path) -> None:
    """Although a child of it still lives; and the next service removes what is left when that has ended, too."""
    settings = Settings(metrics_port=take_port())
    with service(tmp_path, settings) as process:
        [child] = process.children()
        process.kill()
        eventually(lambda: is_free(settings.metrics_port or 0))  # its threads end one by one
        assert child.is_running()
        child.kill()
    eventually(lambda: not child.is_running())
    with service(tmp_path, settings) as process:
        [folder] = tmp_path.iterdir()
        assert folder.name.startswith(f"crochet-metrics-{process.pid}-")


def test_what_processes_use_is_seen_from_outside(tmp_path: Path) -> None:
    """The first process and its children; the CPU time of ended ones stays."""
    settings = Settings(metrics_port=take_port())
    with service(tmp_path, settings) as process:
        lines = answer(settings)
        for role in ("main", "children"):
            assert f'crochet_processes{{role="{role}"}} 1.0' in lines
        assert 'crochet_service_info{service="worker",version="' in lines
        before = cpu(lines)
        assert before["children"] >= 0
        [child] = process.children()
        child.kill()
        eventually(lambda: child.status() == psutil.STATUS_ZOMBIE)
        after = cpu(answer(settings))
        assert all(after[role] >= before[role] for role in before)


def cpu(lines: str) -> dict[str, float]:
    name = 'crochet_process_cpu_seconds_total{role="'
    found = [line.removeprefix(name).split('"} ') for line in lines.splitlines() if line.startswith(name)]
    return {role: float(value) for role, value in found}


def probed(settings: Settings, path: str) -> tuple[int, dict[str, str]]:
    found = httpx.get(f"http://127.0.0.1:{settings.metrics_port}/health/{path}", timeout=SECONDS)
    return found.status_code, found.json()


def test_probes_are_answered_beside_scrapers(tmp_path: Path) -> None:
    """By what the service says of itself, each time anew; the API, which says it elsewhere, says where."""
    settings, state = Settings(metrics_port=take_port()), tmp_path / "state"
    (tmp_path / "metrics").mkdir()

    def health(path: str) -> tuple[bool, dict[str, str]] | None:
        return (state.exists(), {"status": "as it is"}) if path == "/health/ready" else None

    with service(tmp_path / "metrics", settings, health):
        assert probed(settings, "ready") == (503, {"status": "as it is"})
        state.touch()
        assert probed(settings, "ready") == (200, {"status": "as it is"})
        assert probed(settings, "nothing")[0] == 404
        assert COUNTED in answer(settings)
    other = Settings(metrics_port=take_port())
    with service(tmp_path / "metrics", other):
        status, document = probed(other, "ready")
        assert (status, "CROCHET_API_PORT" in document["problem"]) == (404, True)


def test_scrapers_that_hang_keep_no_other_from_their_answer(tmp_path: Path) -> None:
    """Those that send nothing, and one that takes no answer."""
    settings = Settings(metrics_port=take_port())
    with service(tmp_path, settings), contextlib.ExitStack() as stack:
        address = ("127.0.0.1", settings.metrics_port or 0)
        *_, last = [stack.enter_context(socket.create_connection(address)) for _ in range(20)]
        last.sendall(b"GET /metrics HTTP/1.0\r\n\r\n" * 100)
        assert COUNTED in answer(settings)
