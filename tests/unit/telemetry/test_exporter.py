"""The exporter of a service is there as long as the service, whatever becomes of it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import metrics, metrics_endpoint
from tests.support.server import take_port

COUNTED = "crochet_phrases_consulted_total 7.0"


@contextlib.contextmanager
def service(folder: Path, settings: Settings) -> Iterator[psutil.Process]:
    """A process with an exporter, that has counted something and does nothing more; killed in the end."""
    pid = os.fork()
    if pid == 0:
        try:
            metrics_endpoint.IN_MEMORY = folder
            metrics_endpoint.start("worker", "worker", settings)
            metrics.CONSULTED.add(7)
            signal.pause()
        finally:
            os._exit(1)
    try:
        yield psutil.Process(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end, "not in 60 s"
        time.sleep(0.02)


def answers(settings: Settings) -> bool:
    """Whether Prometheus gets what the service has counted."""
    with contextlib.suppress(httpx.TransportError):
        return COUNTED in httpx.get(f"http://127.0.0.1:{settings.metrics_port}/metrics", timeout=30).text
    return False


def test_an_exporter_that_is_killed_is_started_again(tmp_path: Path) -> None:
    """And tells all that was counted before. Whoever of the two is killed, the service is not harmed by it."""
    settings = Settings(metrics_port=take_port())
    with service(tmp_path, settings) as process:
        until(lambda: answers(settings))
        [keeper] = process.children()
        for _ in range(2):
            [exporter] = keeper.children()
            exporter.kill()
            until(lambda: exporter not in keeper.children() and answers(settings))  # noqa: B023 - it is not kept
        keeper.kill()
        until(lambda: keeper.status() == psutil.STATUS_ZOMBIE)
        assert answers(settings)
        assert process.is_running()
        assert len(list(tmp_path.iterdir())) == 1
    until(lambda: list(tmp_path.iterdir()) == [])
    assert not answers(settings)


@pytest.mark.parametrize(("pause", "lived", "then"), [(0.5, 1.0, 1.0), (40.0, 41.0, 60.0), (60.0, 121.0, 0.5)])
def test_one_that_dies_again_and_again_is_started_less_often(pause: float, lived: float, then: float) -> None:
    """Once a minute at last; the first pause again after one that lived."""
    assert metrics_endpoint._next(pause, lived) == then
