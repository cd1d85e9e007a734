"""What is measured of requests: as their clients see it, with the wait for a thread, and those that no thread gets."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time

import pytest
from flask import Flask, request

from api import create_app
from crochet_tasks.services import gateway_flow
from crochet_tasks.services.gateway_flow import Leaving, asked_at
from crochet_tasks.telemetry import instruments, metrics
from tests.integration.services.test_gateway import THREADS, Gate, answer, gate  # noqa: F401 - a fixture

ASK = b"GET /waited HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def observed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, dict[str, object]]]:
    """What is observed of requests."""
    seen: list[tuple[float, dict[str, object]]] = []
    monkeypatch.setattr(instruments, "recorded", lambda: True)
    monkeypatch.setattr(metrics.REQUESTS, "observe", lambda seconds, **labels: seen.append((seconds, labels)))
    return seen


def test_the_wait_for_a_thread_counts(gate: Gate) -> None:  # noqa: F811 - the fixture
    """While all threads are busy: since the request was whole, and not since one of them had time for it."""
    flask, free, busy = gate.worker.wsgi, threading.Event(), threading.Semaphore(0)
    assert isinstance(flask, Flask)

    @flask.get("/waited")
    def waited() -> str:
        busy.release()
        assert free.wait(gateway_flow.BODY_SECONDS)
        return str(asked_at(request.environ))

    clients = [gate.client(ASK) for _ in range(THREADS)]
    for _ in clients:
        assert busy.acquire(timeout=gateway_flow.BODY_SECONDS)
    late = gate.client(ASK)
    pause = threading.Event()
    while len(gate.worker._handed) <= THREADS:  # what it holds is not seen from outside
        assert not pause.wait(0.01)
    before = time.monotonic()
    free.set()
    assert float(answer(late)[1]) < before


def test_metric_and_log_say_how_long_the_client_waited(
    observed: list[tuple[float, dict[str, object]]], caplog: pytest.LogCaptureFixture
) -> None:
    """And of a server that does not know since when, how long it took from there on."""
    client = create_app().test_client()
    with contextlib.closing(socket.socket()) as sock, caplog.at_level(logging.DEBUG, "api.access"):
        leaving = Leaving(sock, time.monotonic() - 7)
        for environ in ({"gunicorn.socket": leaving}, {}):
            assert client.get("/health/live", environ_base=environ).status_code == 200
    said = [vars(record)["ms"] for record in caplog.records if record.name == "api.access"]
    assert [said[0] >= 7000, said[1] >= 7000] == [True, False]
    assert [seconds >= 7 for seconds, _ in observed] == [True, False]


def test_requests_that_are_never_whole_are_counted(
    gate: Gate,  # noqa: F811 - the fixture
    observed: list[tuple[float, dict[str, object]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One too slow and one too large; not who says nothing, nor what the application answers and counts itself."""
    assert answer(gate.client(ASK))[0] == 404
    assert answer(gate.client(ASK[:-2] + b"X: " + b"x" * 100_000))[0] == 431
    monkeypatch.setattr(gateway_flow, "HEAD_SECONDS", 0.3)
    silent, slow = gate.client(b""), gate.client(ASK[:9])
    assert answer(slow)[0] == 408
    assert silent.recv(1) == b""
    labels = {"http_request_method": "_OTHER", "http_route": "none"}
    assert observed == [(0.0, {**labels, "http_response_status_code": status}) for status in (431, 408)]
