"""The exporter of a service: where it listens, what it leaves behind, and what it outlasts."""

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
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from crochet_tasks.errors import InvalidSetting
from crochet_tasks.services.up import Options, services_of, with_metrics
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import instruments, metrics_endpoint, metrics_otlp, metrics_reading
from tests.support.collectors import Hanging
from tests.support.server import take_port


def test_a_port_that_is_taken_is_named() -> None:
    """Before anything is begun."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidSetting, match=rf"CROCHET_METRICS_PORT: cannot listen on 127.0.0.1:{port}"):
            metrics_endpoint.start("worker", "worker", Settings(metrics_port=port))
    assert not instruments.recorded()


@pytest.mark.parametrize(
    ("module", "call"),
    [(tempfile, "mkdtemp"), (os, "pidfd_open"), (os, "fork")],
    ids=["no room", "no right", "no process"],
)
def test_a_service_that_can_have_no_exporter_goes_on_without(
    module: Any, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves nothing behind."""

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(metrics_endpoint, "IN_MEMORY", tmp_path)
    monkeypatch.setattr(module, call, fails)
    port = take_port()
    metrics_endpoint.start("worker", "worker", Settings(metrics_port=port))
    assert not instruments.recorded()
    assert list(tmp_path.iterdir()) == []
    socket.create_server(("127.0.0.1", port)).close()


def test_what_killed_services_left_is_taken_away(tmp_path: Path) -> None:
    """Not what a living process still has, though its pid be of another container."""
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    names = ("left", "locked")
    left, locked = (tmp_path / f"crochet-metrics-{int(dead.stdout)}-{name}" for name in names)
    others = {tmp_path / f"crochet-metrics-{os.getpid()}-x", tmp_path / "crochet-metrics-x", tmp_path / "x"}
    for each in (left, locked, *others):
        each.mkdir()
        (each / "counter_1.db").touch()
    handle = metrics_endpoint._locked(locked)
    metrics_endpoint._sweep(tmp_path)
    os.close(handle)
    assert set(tmp_path.iterdir()) == {locked, *others}


@contextlib.contextmanager
def service(folder: Path, settings: Settings) -> Iterator[int]:
    """A process with an exporter that begins its work and does nothing; killed in the end, unless that is done."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            metrics_endpoint.IN_MEMORY = folder
            metrics_endpoint.start("worker", "worker", settings)
            os.write(writes, b"!")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writes)
    try:
        assert os.read(reads, 1) == b"!"
        yield pid
    finally:
        os.close(reads)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_variable_that_opentelemetry_refuses_is_no_end_of_prometheus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that the service's processes write into stays as long as the service."""
    tried, wait = tmp_path.with_suffix(".tried"), metrics_endpoint._Exporter._wait

    def refused(*_: object) -> None:
        raise ValueError  # as its modules do where OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT is no number

    def waits(self: Any, push: Any) -> None:
        tried.touch()
        wait(self, push)

    monkeypatch.setattr(metrics_endpoint._Exporter, "_wait", waits)
    monkeypatch.setattr(metrics_otlp, "Push", refused)
    settings = Settings(metrics_port=take_port(), otlp_url=SecretStr("http://127.0.0.1:9"))
    with service(tmp_path, settings):
        until(tried.exists)
        answer = httpx.get(f"http://127.0.0.1:{settings.metrics_port}/metrics", timeout=30)
        assert "crochet_phrases_consulted_total 0.0" in answer.text
        assert len(list(tmp_path.iterdir())) == 1
    until(lambda: list(tmp_path.iterdir()) == [])


def test_an_exporter_that_fails_leaves_the_folder_to_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its port is given back, so Prometheus sees it."""
    parent = tmp_path / "parent"

    def broken(*_: object) -> None:
        raise RuntimeError

    def removed(_: object, **__: object) -> None:
        parent.with_suffix(".new").write_text(str(os.getppid()))
        parent.with_suffix(".new").rename(parent)

    monkeypatch.setattr(metrics_reading, "Reading", broken)
    monkeypatch.setattr(shutil, "rmtree", removed)
    settings = Settings(metrics_port=take_port())
    with service(tmp_path, settings) as pid:
        until(lambda: not listens(settings.metrics_port))
    until(parent.exists)
    assert int(parent.read_text()) != pid  # whose child it was


def test_the_port_is_free_before_a_slow_collector_has_answered(tmp_path: Path) -> None:
    """The next service wants it at once."""
    with Hanging() as collector:
        settings = Settings(metrics_port=take_port(), otlp_url=SecretStr(collector.url), metrics_every=3600)
        with service(tmp_path, settings):
            httpx.get(f"http://127.0.0.1:{settings.metrics_port}/metrics", timeout=30).raise_for_status()
        until(lambda: not listens(settings.metrics_port))
        assert len(list(tmp_path.iterdir())) == 1  # the exporter still lives
    until(lambda: list(tmp_path.iterdir()) == [])


def listens(port: int | None) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port or 0)):
        return True
    return False


def until(there: Callable[[], bool]) -> None:
    for _ in range(3000):
        if there():
            return
        time.sleep(0.01)
    raise AssertionError("not in 30 s")


def test_up_gives_each_service_a_port() -> None:
    """One after the other; Flower has metrics of its own."""
    services = services_of(Options(search=1, api=True, flower=True))
    given = [service.variables for service in with_metrics(services, Settings(metrics_port=9100))]
    assert given == [(("CROCHET_METRICS_PORT", str(port)),) for port in range(9100, 9105)] + [()]
    assert with_metrics(services, Settings()) == services
