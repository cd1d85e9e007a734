"""What services say about themselves, on real servers: metrics that are the truth, and health that means progress."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from crochet_tasks.broker import queues
from crochet_tasks.db import tally
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine.geometry import Limits, shape_name
from crochet_tasks.telemetry.metrics_endpoint import IN_MEMORY, sweep
from tests.support import services, steps
from tests.support.cluster import Cluster, accept, cluster, corpus_of, until, until_closed
from tests.support.commands import CROCHET, EVERYTHING, RELAY
from tests.support.scraping import Scraped
from tests.support.server import take_port
from tests.support.waiting import SECONDS

pytestmark = pytest.mark.acceptance


def folders(pids: list[int]) -> list[Path]:
    places = (IN_MEMORY, Path(tempfile.gettempdir()))
    return [path for pid in pids for place in places for path in place.glob(f"crochet-metrics-{pid}-*")]


def pool_children(deployment: Cluster, worker: str) -> list[int]:
    """The processes that do the work."""
    return deployment.children(worker)


def health(deployment: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CROCHET_HEALTH_DIR": str(deployment.settings.health_dir)}  # noqa: TID251 - for a child
    return subprocess.run(
        [*CROCHET, "health", *arguments], capture_output=True, text=True, env=environment, check=False
    )


def stored(process: Process, corpus: int) -> Counter[str]:
    with process.database.transaction() as connection:
        return Counter({shape_name(s): change.orthos for s, change in tally.counted(connection, corpus).items()})


class Running(NamedTuple):
    """A deployment, who asks it, and the process of the test on its database."""

    cluster: Cluster
    scraped: Scraped
    process: Process
    corpus: Corpus
    vhost: str
    api: int
    """its port"""
    pids: list[int]


def probed(running: Running, name: str, path: str) -> int:
    """The status of a probe on the port of metrics."""
    port = running.scraped.ports[name]
    return httpx.get(f"http://127.0.0.1:{port}/health/{path}", timeout=SECONDS).status_code


RELAY_NAME, WORKER_NAME, API_NAME = "1-relay", "2-worker", "3-api"


@pytest.fixture(scope="module")
def running(
    postgres: services.Postgres,
    distributed_template: str,
    rabbitmq: services.RabbitMQ,
    redis_server: services.Redis,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    """One deployment for all tests here, in their order: a relay, a worker of two processes, an API."""
    for server in (postgres, rabbitmq, redis_server):
        server.start()
    folder, vhost, port = tmp_path_factory.mktemp("metrics"), rabbitmq.new_vhost(), take_port()
    environment = {
        "CROCHET_DATABASE_URL": postgres.new_database(distributed_template),
        "CROCHET_BROKER_URL": vhost,
        "CROCHET_REDIS_URL": redis_server.url,
        "CROCHET_API_PORT": str(port),
        "CROCHET_HEALTH_DIR": str(folder / "health"),
    }
    scraped = Scraped()
    with cluster(folder, **environment) as made, made.process() as process:
        scraped.start(made, *RELAY)
        scraped.start(made, *EVERYTHING, "--concurrency", "2")
        scraped.start(made, "api")
        pids = [each.pid for each in made.processes.values()]
        until(lambda: all(map(made.ready, scraped.ports)), made)
        yield Running(made, scraped, process, corpus_of(process, Limits()), vhost, port, pids)


def test_metrics_are_the_truth_also_after_a_child_was_killed(running: Running) -> None:
    """What services have counted is what the database holds; children are replaced during scrapes."""
    deployment, scraped, process, corpus = running.cluster, running.scraped, running.process, running.corpus
    assert len(folders(running.pids)) == 3
    with scraped.all_the_time() as wrong:
        accept(process, corpus, steps.TEXTS[:2])
        until_closed(process, corpus, deployment)
        until(functools.partial(idle, scraped, time.time()), deployment)
        victim = pool_children(deployment, WORKER_NAME)[-1]
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(set(pool_children(deployment, WORKER_NAME)) - {victim}) == 2, deployment)
        accept(process, corpus, steps.TEXTS[2:])
        until_closed(process, corpus, deployment)
    assert wrong == []

    in_store = stored(process, corpus.id)
    assert in_store.total() > 0
    done = Counter(str(kind) for (kind,) in steps.sql(process, "SELECT kind FROM work WHERE state = 'done'"))
    # The last tasks may still be counting.
    until(lambda: scraped.by("crochet_work_done_total", "kind") == done, deployment)
    until(
        lambda: scraped.by("crochet_tasks_total", "task") == scraped.by("crochet_messages_published_total", "task"),
        deployment,
    )
    assert scraped.by("crochet_orthos_stored_total", "shape") == in_store
    assert scraped.by("crochet_tasks_total", "outcome").keys() == {"done"}
    assert scraped.by("crochet_task_cpu_seconds_total", "tenant").keys() == {"1"}
    assert scraped.value("crochet_text_version_seconds_count") == len(steps.TEXTS)
    until(lambda: scraped.by("crochet_processes", "role", WORKER_NAME) == {"main": 1, "children": 2}, deployment)


def idle(scraped: Scraped, since: float) -> bool:
    """Whether the worker has checked itself since then and has no message: killed now, it takes none with it."""
    checked = scraped.value("crochet_worker_progress_timestamp_seconds", WORKER_NAME) > since
    return checked and scraped.value("crochet_worker_messages_held", WORKER_NAME) == 0


def test_the_census_is_what_the_store_holds(running: Running) -> None:
    """It comes a moment later."""
    deployment, scraped = running.cluster, running.scraped
    in_store = stored(running.process, running.corpus.id)
    until(lambda: scraped.by("crochet_orthos", "shape", RELAY_NAME) == in_store, deployment)
    until(lambda: scraped.value("crochet_text_closed_seconds_count") == len(steps.TEXTS), deployment)
    assert scraped.value("crochet_work_open", RELAY_NAME) == 0
    assert scraped.value("crochet_corpora_unclosed", RELAY_NAME) == 0
    assert scraped.value("crochet_versions", RELAY_NAME) == len(steps.TEXTS)
    assert all(scraped.value("crochet_queue_consumers", RELAY_NAME, queue=name) > 0 for name in queues.WORK)


def test_requests_are_counted_by_route_and_problems_by_code(running: Running) -> None:
    """Not by path."""
    for path in ("/health/live", "/health/live", "/v1/nothing/here", "/v1/corpora"):
        httpx.get(f"http://127.0.0.1:{running.api}{path}", timeout=SECONDS)

    def by(metric: str, label: str) -> Counter[str]:
        return running.scraped.by(metric, label, API_NAME)

    # A request is counted when it has been answered.
    routes = {"/health/live": 2, "none": 1, "/v1/corpora": 1}
    until(lambda: by("http_server_request_duration_seconds_count", "http_route") == routes, running.cluster)
    assert by("crochet_api_problems_total", "code") == {"unauthorized": 1, "route_unknown": 1}


def test_a_worker_that_lost_its_consumers_ends_and_work_goes_on(running: Running, rabbitmq: services.RabbitMQ) -> None:
    """Queues are deleted under a worker that overlooks it, as Celery does now and then; it is to be started again."""
    deployment, process, corpus = running.cluster, running.process, running.corpus
    well = health(deployment)
    assert [line.split()[0] for line in well.stdout.splitlines()] == ["relay", "worker[all]"]
    assert (well.returncode, well.stderr) == (0, "")
    for name in (RELAY_NAME, WORKER_NAME):
        assert [probed(running, name, path) for path in ("live", "ready")] == [200, 200]
    assert probed(running, API_NAME, "live") == 404
    for name in queues.WORK:
        rabbitmq.api("DELETE", f"/queues/{running.vhost.rpartition('/')[2]}/{name}")
    assert deployment.ended(WORKER_NAME) == 1
    assert "worker_lost_consumers" in deployment.log(WORKER_NAME)
    until(lambda: not folders(running.pids[1:2]), deployment)
    accept(process, corpus, [MORE])
    deployment.start_again(WORKER_NAME)
    until_closed(process, corpus, deployment)
    assert steps.stored(process, corpus) == steps.expected([*steps.TEXTS, MORE])


MORE = "s t, u v, s u, t v"


def test_nothing_is_left_of_a_service_however_it_ends(running: Running) -> None:
    """Of one that was killed the next service removes what is left. The last test of this deployment: it ends it."""
    deployment = running.cluster
    deployment.terminate(API_NAME)
    assert deployment.ended(API_NAME) == 0
    assert not folders(running.pids[2:])
    for name in list(deployment.processes):
        deployment.kill(name)

    def swept() -> bool:
        sweep(IN_MEMORY)
        return not folders(running.pids)

    until(swept, deployment)  # their children end a moment later
    assert health(deployment).returncode == 1
