"""Logs of real processes in the JSON form: every line is an object, its keys in one order, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from crochet_tasks.engine.geometry import Limits
from tests.acceptance.conftest import Deploy
from tests.support import services, steps
from tests.support.cluster import accept, corpus_of, until, until_closed
from tests.support.collectors import log_lines
from tests.support.commands import EVERYTHING, RELAY
from tests.support.server import take_port

pytestmark = pytest.mark.acceptance

DIES = """
import sys, threading, warnings
from billiard import Process
from crochet_tasks import telemetry
from crochet_tasks.settings import Settings

def fails():
    raise ValueError("one\\ntwo")

telemetry.logs("test", Settings())
warnings.warn("old")
print("printed", file=sys.stderr)
print("without end", end="", file=sys.stderr, flush=True)
sys.__stderr__.write("worker: Warm shutdown\\n")
child = Process(target=fails)
child.start()
child.join()
thread = threading.Thread(target=fails)
thread.start()
thread.join()
class Fails:
    def __del__(self):
        fails()
Fails()
fails()
"""


def test_whatever_a_process_prints_is_json() -> None:
    """Warnings, prints of libraries, and the tracebacks of a child, a thread and the process itself: one event each."""
    environment = {**os.environ, "CROCHET_LOG_FORMAT": "json"}  # noqa: TID251 - for a child
    done = subprocess.run([sys.executable, "-c", DIES], capture_output=True, text=True, env=environment, check=False)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert all(list(line)[:3] == ["timestamp", "level", "event"] for line in lines)
    messages = [str(line.get("message", line["event"])) for line in lines]
    for part in ("UserWarning: old", "printed", "without end", "worker: Warm shutdown"):
        assert any(part in each for each in messages), part
    assert [line["event"] for line in lines if "ValueError" in line.get("exception", "")][-3:] == [
        "thread_crashed",
        "error_ignored",
        "crashed",
    ]
    assert done.returncode == 1


def test_logs_of_a_deployment(deploy: Deploy, rabbitmq: services.RabbitMQ) -> None:
    """A child is killed and the broker restarts: one line each, a warning, without a traceback; then work goes on."""
    cluster = deploy(
        CROCHET_LOG_FORMAT="json",
        CROCHET_ENVIRONMENT="development",
        CROCHET_API_PORT=str(take_port()),
        CROCHET_FLOWER_PORT=str(take_port()),
    )
    names = [cluster.start(*command) for command in (RELAY, EVERYTHING, ("api",), ("flower",))]
    until(lambda: all(map(cluster.ready, names)), cluster)
    _, worker, _, _ = names
    with cluster.process() as process:
        corpus = corpus_of(process, Limits())
        accept(process, corpus, steps.TEXTS[:2])
        until_closed(process, corpus, cluster)
        # The child that is killed has said of every task what it did, and has none.
        stored = len(steps.stored(process, corpus))
        until(lambda: stored_by(log_lines(cluster.log(worker).rpartition("\n")[0])) == stored, cluster)
        os.kill(cluster.children(worker)[-1], signal.SIGKILL)
        rabbitmq.kill()
        until(lambda: "Connection to broker lost" in cluster.log(worker), cluster)
        rabbitmq.start()
        accept(process, corpus, steps.TEXTS[2:])
        until_closed(process, corpus, cluster)
        stored = len(steps.stored(process, corpus))
    for name in names:
        cluster.terminate(name)
    assert [cluster.ended(name) for name in names] == [0, 0, 0, 0]
    lines = {name: log_lines(cluster.log(name)) for name in names}
    for name in names:
        for line in lines[name]:
            assert list(line)[:3] == ["timestamp", "level", "event"], line
            assert line["level"] != "critical", line
            assert "Connection" not in line.get("exception", ""), line
    lost = [line for line in lines[worker] if "Connection to broker lost" in str(line.get("message"))]
    assert {line["level"] for line in lost} == {"warning"}
    done = tasks_done(lines[worker])
    assert {line["corpus"] for line in done} == {corpus.name}
    assert stored_by(lines[worker]) == stored
    assert sum(line.get("found", 0) for line in done if line["task"].startswith("search.")) >= stored
    of_work = [line for line in done if "kind" in line]
    assert of_work
    assert all(isinstance(line["seconds"], float) and isinstance(line["attempt"], int) for line in of_work)
    assert {type(line["version"]) for line in done if "version" in line} == {int}


def tasks_done(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == "task_done"]


def stored_by(lines: list[dict[str, Any]]) -> int:
    """How many orthos these tasks stored."""
    return sum(line.get("stored", 0) for line in tasks_done(lines))
