"""Celery's own commands on our app: a plain `celery worker` is a full worker, and the tools for operators answer."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from crochet_tasks.engine.geometry import Limits
from tests.support import steps
from tests.support.cluster import Cluster, accept, check, cluster, corpus_of, until, until_closed
from tests.support.collectors import log_lines
from tests.support.commands import PYTHON, RELAY
from tests.support.longer import by_run
from tests.support.paths import ROOT
from tests.support.server import take_port
from tests.support.waiting import SECONDS

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

STAGES = "ingest,context,remediations,orthos,maintenance"
ALL = f"{STAGES},search"


@pytest.fixture
def deployment(tmp_path: Path, distributed_database: str, vhost: str, redis_url: str) -> Iterator[Cluster]:
    servers = {
        "CROCHET_DATABASE_URL": distributed_database,
        "CROCHET_BROKER_URL": vhost,
        "CROCHET_REDIS_URL": redis_url,
    }
    with cluster(tmp_path, True, **servers) as made:
        yield made


WAYS: dict[str, list[tuple[str, ...]]] = {
    "two workers": [
        ("celery", "-A", "crochet_tasks", "worker", "-Q", "search", "-c", "2"),
        ("celery", "-A", "crochet_tasks.app", "worker", "-Q", STAGES, "-n", "stages@%h", "-c", "1"),
    ],
    "autoscale": [("celery", "-A", "crochet_tasks", "worker", "-Q", ALL, "--autoscale", "3,1")],
    "solo": [("celery", "-A", "crochet_tasks", "worker", "-P", "solo")],
    "threads": [("celery", "-A", "crochet_tasks", "worker", "-P", "threads", "-c", "8")],
    "crochet worker": [("crochet_tasks", "worker", "--autoscale", "3,1", "--", "--max-tasks-per-child=50")],
}


@pytest.mark.parametrize("way", by_run(["threads", "crochet worker"], longer=["two workers", "autoscale", "solo"]))
def test_a_worker_is_full_however_it_is_started(deployment: Cluster, way: str) -> None:
    """Each closes a corpus, prints nothing but JSON, and ends in order at SIGTERM."""
    deployment.environment["CROCHET_LOG_FORMAT"] = "json"
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        deployment.start(*RELAY)
        workers = [deployment.start(*command, program=PYTHON) for command in WAYS[way]]
        until(lambda: all(map(deployment.ready, workers)), deployment)
        accept(process, corpus, steps.TEXTS)
        until_closed(process, corpus, deployment)
        check(process, corpus, steps.expected(steps.TEXTS))
        for worker in workers:
            deployment.terminate(worker)
        assert [deployment.ended(worker) for worker in workers] == [0] * len(workers), deployment.logs()
        logs = "".join(deployment.log(worker) for worker in workers)
        assert log_lines(logs)
        assert "task_failed" not in logs
        assert "Traceback" not in logs


def test_workers_of_celery_multi_close_a_corpus(deployment: Cluster, tmp_path: Path) -> None:
    """Workers that Celery keeps in the background close a corpus, too."""
    own = [f"--pidfile={tmp_path}/%n.pid", f"--logfile={tmp_path}/%n%I.log"]

    def multi(*command: str) -> None:
        _run(deployment, "celery", "-A", "crochet_tasks", "multi", *command, *own)

    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        deployment.start(*RELAY)
        multi("start", "one", "two", "-c", "1", "-Q:one", STAGES, "-Q:two", "search")
        try:
            accept(process, corpus, steps.TEXTS)
            until_closed(process, corpus, deployment)
            check(process, corpus, steps.expected(steps.TEXTS))
        finally:
            multi("stopwait", "one", "two")
        assert not list(tmp_path.glob("*.pid"))


def test_what_operators_type_in_celery_works(deployment: Cluster) -> None:
    """What Celery's users type to look at and steer workers works with `-A crochet_tasks`."""
    worker = deployment.start("celery", "-A", "crochet_tasks", "worker", "-c", "1", "-n", "it@%h", program=PYTHON)
    until(lambda: deployment.ready(worker), deployment)

    def celery(*command: str) -> str:
        return _run(deployment, "celery", "-A", "crochet_tasks", *command)

    # By default Celery waits for a second for answers; of one worker that is named it waits for the one answer only.
    asked = (f"--destination=it@{socket.gethostname()}", f"--timeout={SECONDS:g}")
    assert "pong" in celery("inspect", *asked, "ping")
    registered = celery("inspect", *asked, "registered")
    assert {"ingest.text", "search.part", "orthos.store"} <= set(re.findall(r"[a-z]+\.[a-z]+", registered))
    assert "1 node online" in celery("status", *asked)
    assert "task_acks_late: True" in celery("report")
    assert "pool will grow" in celery("control", *asked, "pool_grow", "1")
    events = deployment.start("celery", "-A", "crochet_tasks", "events", "--dump", program=PYTHON)
    until(lambda: "HEARTBEAT" in deployment.log(events).upper(), deployment)
    port = str(take_port())
    flower = ("celery", "-A", "crochet_tasks", "flower", "--address=127.0.0.1", f"--port={port}")
    deployment.start(*flower, program=PYTHON)
    until(lambda: _answers(f"http://127.0.0.1:{port}/healthcheck"), deployment)


def test_children_that_are_spawned_are_refused_at_the_start(deployment: Cluster) -> None:
    """They do not inherit what the worker has prepared: it says so instead of failing every task."""
    worker = deployment.start("celery", "-A", "crochet_tasks", "worker", "--pool-start-method=spawn", program=PYTHON)
    assert deployment.ended(worker) == 1
    assert "children must be forked" in (deployment.folder / f"{worker}.log").read_text()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=SECONDS).is_success
    except httpx.HTTPError:
        return False


def _run(deployment: Cluster, *command: str) -> str:
    """Run a program to its end in the deployment's environment; its output."""
    ran = subprocess.run(
        [*PYTHON, *command],
        check=False,
        cwd=ROOT,
        env=deployment.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--queues", "foo"), "there is no queue 'foo'; there are ingest, "),
        (("--", "-Q", "foo"), "celery worker: .* queue 'foo' isn't defined"),
        (("--", "--nope"), "celery worker: No such option '--nope'"),
        (("--", "-P", "gevent"), "tasks do not run in the pool '.*gevent': use prefork, solo or threads"),
    ],
)
def test_wrong_options_of_a_worker_are_usage_errors(deployment: Cluster, options: tuple[str, ...], words: str) -> None:
    """Those that Celery finds, too."""
    worker = deployment.start("worker", *options, CROCHET_LOG_FORMAT="console")
    assert deployment.ended(worker) == 2
    assert re.search(rf"crochet: {words}.*\[usage\]\n$", deployment.log(worker))
