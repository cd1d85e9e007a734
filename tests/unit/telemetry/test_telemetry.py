"""That what a process says about itself costs it nothing but that, whatever the libraries do."""

from __future__ import annotations

import contextlib
import os
from typing import NoReturn

import psycopg
import pytest
from flask import Flask
from opentelemetry.instrumentation.redis import RedisInstrumentor
from pydantic import SecretStr

from api import process as context
from crochet_tasks import telemetry
from crochet_tasks.db.process import here
from crochet_tasks.services import http_server, worker
from crochet_tasks.settings import Settings

SETTINGS = Settings(
    otlp_url=SecretStr("http://127.0.0.1:4318"),
    pyroscope_url=SecretStr("http://127.0.0.1:4040"),
    database_url=SecretStr("postgresql://nobody@127.0.0.1:9/none"),
)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither traces nor profiles can be begun."""
    monkeypatch.setenv("OTEL_ATTRIBUTE_COUNT_LIMIT", "-1")
    monkeypatch.setattr("pyroscope.configure", fails)


def fails(*_: object, **__: object) -> NoReturn:
    raise ValueError("as a library may")


def test_a_worker_works_without_telemetry(broken: None, caplog: pytest.LogCaptureFixture) -> None:
    """Both parts are tried, what fails is logged, and the process has what its tasks work with."""
    process = worker._Processes(SETTINGS, ["search"], worker.FailedStarts(5, lambda: None))
    process.begin()
    try:
        assert here().settings is SETTINGS
        with telemetry.span("something"):
            assert telemetry.traceparent() is None
    finally:
        process.end()
    parts = [vars(record)["part"] for record in caplog.records if record.message == "telemetry_start_failed"]
    assert parts == ["traces", "profiles"]


def test_traces_that_are_half_begun_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stays instrumented."""
    connect = psycopg.Connection.connect
    monkeypatch.setattr(RedisInstrumentor, "instrument", fails)
    monkeypatch.setattr("pyroscope.configure", fails)
    telemetry.begin("test", SETTINGS)
    assert telemetry.traceparent() is None
    assert psycopg.Connection.connect == connect


def test_a_child_that_cannot_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool makes another one; with Celery's ways it would go on and fail every task."""
    monkeypatch.setattr(worker, "FAILED_START_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(worker, "open_process", fails)
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            settings = Settings(database_url=SETTINGS.database_url)
            worker._Processes(settings, ["search"], worker.FailedStarts(5, lambda: None)).begin()
        os._exit(77)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == worker.NOT_STARTED


def test_a_part_that_cannot_end_keeps_the_other_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends in order, and is neither traced nor profiled any more."""
    ended: list[str] = []

    class Broken:
        def __init__(self, *_: object) -> None: ...

        def stop(self) -> NoReturn:
            ended.append("a part")
            fails()

    monkeypatch.setattr("crochet_tasks.telemetry.tracing.Tracing", Broken)
    monkeypatch.setattr("crochet_tasks.telemetry.profiles.Profiles", Broken)
    telemetry.begin("test", SETTINGS)
    assert telemetry.traced()
    telemetry.end()
    assert (len(ended), telemetry.traced()) == (2, False)


def test_results_of_a_task_add_up_and_are_its_own() -> None:
    """A task that runs within another one, as without a broker, reports to itself."""
    with telemetry.results() as outer:
        telemetry.result(found=2)
        with telemetry.results() as inner:
            telemetry.result(stored=5)
        telemetry.result(found=3, searched=1)
    telemetry.result(found=100)
    assert (outer, inner) == ({"found": 5, "searched": 1}, {"stored": 5})


def test_telemetry_ends_whatever_the_application_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a process of the API."""
    ended: list[None] = []
    monkeypatch.setattr(context, "close", fails)
    monkeypatch.setattr(telemetry, "end", lambda: ended.append(None))
    with pytest.raises(ValueError, match="as a library may"):
        http_server.end_process(Flask("test"))
    assert ended == [None]
