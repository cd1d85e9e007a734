"""What Celery pipelines are known to fail by, made to happen here; docs/failures.md lists all, with their tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import celery
import psutil
import pytest

from crochet_tasks.broker import queues
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.settings import Settings
from tests.acceptance.conftest import Deploy
from tests.support import services, steps
from tests.support.clocks import wrong_by
from tests.support.cluster import Cluster, accept, check, closed, corpus_of, until, until_closed
from tests.support.commands import EVERYTHING, RELAY
from tests.support.deployed import frozen
from tests.support.faulty import faulty
from tests.support.proxy import proxied
from tests.support.server import Missing, fail_or_skip

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

IMPATIENT = faulty("impatient")
MORE = "s t, u v, s u, t v"
LOST = "Connection to broker lost"
"""in the log of a worker"""
AWAY = '"relay_poll_failed"'
"""in the log of a relay"""


@contextlib.contextmanager
def sender(settings: Settings) -> Iterator[celery.Celery]:
    """Another program that sends messages: it knows the queues and nothing of our tasks."""
    with celery.Celery("sender", broker=queues.address(settings), set_as_current=False) as app:
        app.conf.update(task_queues=queues.celery_queues(settings), task_create_missing_queues=False)
        yield app
        app.pool.force_close_all()


# ── the broker ──────────────────────────────────────────────────────────────────────────────────


def test_a_frozen_broker_holds_nobody(deploy: Deploy, rabbitmq: services.RabbitMQ) -> None:
    """RabbitMQ is stopped (SIGSTOP) in the middle of a text: workers and relays give it up, and go on when it does."""
    deployment = deploy(CROCHET_PUBLISH_TIMEOUT="1", CROCHET_LEASE="3")
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        worker, relay = deployment.start(*EVERYTHING, program=IMPATIENT), deployment.start(*RELAY)
        accept(process, corpus, steps.TEXTS[:1])
        until_closed(process, corpus, deployment)
        with frozen(rabbitmq):
            accept(process, corpus, steps.TEXTS[1:])
            until(lambda: AWAY in deployment.log(relay) and LOST in deployment.log(worker), deployment)
        until_closed(process, corpus, deployment)
        check(process, corpus, steps.expected(steps.TEXTS))
        assert all(each.poll() is None for each in deployment.processes.values())


def test_connections_that_are_cut_or_half_open(
    deploy: Deploy, tmp_path: Path, rabbitmq: services.RabbitMQ, postgres: services.Postgres, vhost: str
) -> None:
    """Both children of a worker store results when its connections are cut; later they are half open.

    Each time it consumes again, with room for as many messages as it has children. No process shares a connection to
    Postgres with another.
    """
    gate = tmp_path / "gate"
    gate.mkdir()
    (gate / "hold").touch()
    short = {"CROCHET_CONCURRENCY": "2", "CROCHET_LEASE": "3", "CROCHET_PUBLISH_TIMEOUT": "1"}
    with proxied(rabbitmq.port) as proxy:
        deployment = deploy(CROCHET_BROKER_URL=proxy.before(vhost), **short)
        with deployment.process() as process:
            corpus = corpus_of(process, Limits())
            worker = deployment.start(
                *EVERYTHING, program=faulty("impatient", "+", "hold", "orthos.store", str(gate), "0")
            )
            deployment.start(*RELAY)
            accept(process, corpus, steps.TEXTS[:1])
            until((gate / "waits").exists, deployment)
            until(lambda: to_port(deployment, worker, postgres.port), deployment)
            sockets = to_port(deployment, worker, postgres.port)
            assert len(set(sockets)) == len(sockets)
            assert proxy.cut() > 0
            until(lambda: deployment.log(worker).count(LOST) == 1, deployment)
            (gate / "hold").unlink()
            until_closed(process, corpus, deployment)
            until(lambda: room(rabbitmq, vhost) == {2}, deployment)
            assert proxy.half_open() > 0
            accept(process, corpus, steps.TEXTS[1:])
            until(lambda: deployment.log(worker).count(LOST) == 2, deployment)
            until_closed(process, corpus, deployment)
            until(lambda: room(rabbitmq, vhost) == {2}, deployment)
            check(process, corpus, steps.expected(steps.TEXTS))


def to_port(deployment: Cluster, worker: str, port: int) -> list[int]:
    """The local ports of the sockets by which a worker and its children are connected to this one."""
    pids = [deployment.processes[worker].pid, *deployment.children(worker)]
    return [
        each.laddr.port for pid in pids for each in psutil.Process(pid).net_connections() if each.raddr[1:] == (port,)
    ]


def room(rabbitmq: services.RabbitMQ, vhost: str) -> set[int]:
    """How many messages the broker delivers to each consumer before it is acknowledged one."""
    name = vhost.rpartition("/")[2]
    return {each["prefetch_count"] for each in rabbitmq.api("GET", f"/consumers/{name}") if each["ack_required"]}


def test_alarms_of_the_broker(deploy: Deploy, rabbitmq: services.RabbitMQ) -> None:
    """RabbitMQ lacks memory and disk, and takes no messages: texts are accepted, publishers give up and try again."""
    deployment = deploy(CROCHET_PUBLISH_TIMEOUT="1", CROCHET_LEASE="3")
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        relay = deployment.start(*RELAY)
        deployment.start(*EVERYTHING)
        accept(process, corpus, steps.TEXTS[:1])
        until_closed(process, corpus, deployment)
        with rabbitmq.alarm("memory"), rabbitmq.alarm("disk"):
            accept(process, corpus, steps.TEXTS[1:])
            until(lambda: AWAY in deployment.log(relay), deployment)
        until_closed(process, corpus, deployment)
        check(process, corpus, steps.expected(steps.TEXTS))
        assert all(each.poll() is None for each in deployment.processes.values())


def test_a_queue_that_is_declared_otherwise(deploy: Deploy, rabbitmq: services.RabbitMQ, vhost: str) -> None:
    """A queue is deleted and declared as another kind under running workers: they say so, and when it is deleted again
    the work is done.
    """
    deployment = deploy(CROCHET_PUBLISH_TIMEOUT="1", CROCHET_LEASE="1.5")
    path = f"/queues/{vhost.rpartition('/')[2]}/search"
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        worker = deployment.start(*EVERYTHING)
        deployment.start(*RELAY)
        until(lambda: deployment.ready(worker), deployment)
        rabbitmq.api("DELETE", path)
        rabbitmq.api("PUT", path, {"durable": True, "arguments": {"x-queue-type": "classic"}})
        accept(process, corpus, steps.TEXTS)
        until(lambda: deployment.processes[worker].poll() is not None, deployment)
        again = deployment.start_again(worker)
        until(lambda: deployment.processes[again].poll() is not None, deployment)
        assert "queue_mismatch" in deployment.log(again)
        rabbitmq.api("DELETE", path)

        def done() -> bool:
            deployment.start_dead()
            return closed(process, corpus)

        until(done, deployment)
        check(process, corpus, steps.expected(steps.TEXTS))


# ── the result backend, ETAs, clocks ────────────────────────────────────────────────────────────


def test_tasks_run_without_redis_and_at_once(deploy: Deploy, redis_server: services.Redis) -> None:
    """Redis is stopped (SIGSTOP): a task whose result it would hold is run all the same, and its message not lost.

    An ETA is no reason to wait, nor to hold the places of other messages.
    """
    deployment = deploy(CROCHET_CONCURRENCY="1")
    later = datetime.now(UTC) + timedelta(hours=1)
    bodies = {"one": "a b c", "two": "a b, c d", "three": "b d, a c"}
    with deployment.process() as process, sender(deployment.settings) as other:
        worker = deployment.start(*EVERYTHING)
        deployment.start(*RELAY)
        until(lambda: deployment.ready(worker), deployment)
        with frozen(redis_server):
            for title, body in bodies.items():
                text = {"corpus": "main", "title": title, "body": body}
                other.send_task("ingest.accept", kwargs=text, queue="ingest", eta=later)
            until(lambda: titles(process) == set(bodies), deployment)
            corpus = corpus_of(process, Limits())
            until_closed(process, corpus, deployment)
        check(process, corpus, steps.expected(list(bodies.values())))


def titles(process: Process) -> set[object]:
    return {title for (title,) in steps.sql(process, "SELECT title FROM texts")}


@pytest.fixture
def clocks() -> Callable[[int], dict[str, str]]:
    """`wrong_by`, where libfaketime is installed."""
    try:
        wrong_by(0)
    except Missing as missing:
        fail_or_skip(missing, os.environ)  # noqa: TID251 - whether this is CI is no setting of the program
    return wrong_by


def test_clocks_that_differ(deploy: Deploy, clocks: Callable[[int], dict[str, str]]) -> None:
    """The hosts of a relay and of workers are an hour before and after the database's: leases and order are its."""
    deployment = deploy(CROCHET_LEASE="3")
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        deployment.start(*RELAY, **clocks(3600))
        early = deployment.start(*EVERYTHING, **clocks(-3600))
        deployment.start(*EVERYTHING, **clocks(7200))
        accept(process, corpus, steps.TEXTS)
        until_closed(process, corpus, deployment)
        check(process, corpus, steps.expected(steps.TEXTS))
        assert steps.sql(process, "SELECT count(*) FROM attempts") == [(0,)]
        deployment.terminate(early)
        assert deployment.ended(early) == 0


# ── who dies with whom ──────────────────────────────────────────────────────────────────────────


def test_innocents_beside_a_message_that_kills_their_worker(deploy: Deploy, tmp_path: Path) -> None:
    """A text kills its whole worker each time. Another corpus' work in the same worker dies with it, and is done.

    It takes long the first two times only, and less than the deadly text after that: what dies with each of its
    neighbours would fail as they do.
    """
    deployment = deploy(
        CROCHET_DELIVERY_LIMIT="1", CROCHET_MAX_ATTEMPTS="2", CROCHET_RETRY_FIRST="3", CROCHET_RETRY_LONGEST="5"
    )
    with deployment.process() as process:
        guilty, innocent = (corpus_of(process, Limits(), name) for name in ("guilty", "innocent"))
        deployment.start(*RELAY)
        lingers = tmp_path / "lingers"
        program = faulty("deadly", "poison", "service", "0.5", "+", "linger", "remediations.due", str(lingers))
        workers = [deployment.start(*EVERYTHING, program=program, CROCHET_CONCURRENCY="3")]
        accept(process, innocent, steps.TEXTS[:1])
        until(Path(f"{lingers}-0").exists, deployment)
        accept(process, guilty, ["poison kills"])

        def done() -> bool:
            workers.extend(deployment.start_dead())
            return closed(process, innocent) and closed(process, guilty)

        until(done, deployment)
        assert failed(process, guilty) == ["worker_lost"]
        assert failed(process, innocent) == []
        assert steps.stored(process, innocent) == steps.expected(steps.TEXTS[:1])
        assert len(workers) > 4  # twice over each of two messages


def failed(process: Process, corpus: Corpus) -> list[object]:
    rows = "SELECT error->>'code' FROM work WHERE corpus = :corpus AND state = 'failed'"
    return [code for (code,) in steps.sql(process, rows, corpus=corpus.id)]
