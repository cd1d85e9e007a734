"""Servers that go away in the middle of a run and come back, with and without what they held."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest

from crochet_tasks.broker import queues
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine.geometry import Limits
from tests.acceptance.conftest import Deploy
from tests.support import services, steps
from tests.support.bodies import pieces
from tests.support.broken import break_queues
from tests.support.cluster import Cluster, accept, check, closed, corpus_of, until, until_closed
from tests.support.commands import EVERYTHING, RELAY
from tests.support.faulty import faulty

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

TEXTS = pieces("market.txt", 4)
SIZES = {"CROCHET_BATCH_ORTHOS": "10", "CROCHET_PART_WORDS": "100", "CROCHET_RESULT_ORTHOS": "100"}
RIGHTS = {"configure": ".*", "write": ".*", "read": ".*"}


class Servers(NamedTuple):
    """Those that the deployment works on."""

    deployment: Cluster
    postgres: services.Postgres
    rabbitmq: services.RabbitMQ
    redis: services.Redis
    vhost: str


def postgres_crashes(servers: Servers) -> None:
    servers.postgres.stop(mode="immediate")
    servers.postgres.start()


def redis_is_flushed(servers: Servers) -> None:
    servers.redis.flush()


def redis_is_gone(servers: Servers) -> None:
    servers.redis.kill()


def rabbitmq_restarts(servers: Servers) -> None:
    servers.rabbitmq.stop()
    servers.rabbitmq.start()


def rabbitmq_crashes(servers: Servers) -> None:
    servers.rabbitmq.settle()
    servers.rabbitmq.kill()
    servers.rabbitmq.start()


def messages_are_lost(servers: Servers) -> None:
    """All of them: with the workers gone none is unacknowledged, so that a purge removes every one."""
    workers = [name for name in servers.deployment.processes if name.endswith("worker")]
    for name in workers:
        servers.deployment.kill(name)
    with queues.connected(servers.deployment.settings) as broker:
        channel = broker.channel()
        until(lambda: queues.depths(broker)["search"].ready > 0, servers.deployment)
        for name in queues.WORK:
            channel.queue_purge(name)
    for name in workers:
        servers.deployment.start_again(name)


def queues_are_lost(servers: Servers) -> None:
    """As when the broker comes back with an empty disk."""
    name = unquote(servers.vhost.rpartition("/")[2])
    servers.rabbitmq.delete_vhost(servers.vhost)
    servers.rabbitmq.api("PUT", f"/vhosts/{name}")
    servers.rabbitmq.api("PUT", f"/permissions/{name}/{services.USER}", RIGHTS)


TROUBLE: dict[str, Sequence[Callable[[Servers], None]]] = {
    "postgres": [postgres_crashes],
    "redis": [redis_is_flushed, redis_is_gone],
    "rabbitmq": [rabbitmq_restarts, rabbitmq_crashes],
    "messages": [messages_are_lost],
    "queues": [queues_are_lost],
}


@pytest.mark.parametrize("happenings", TROUBLE.values(), ids=TROUBLE)
def test_trouble_in_the_middle(
    deploy: Deploy,
    tmp_path: Path,
    postgres: services.Postgres,
    rabbitmq: services.RabbitMQ,
    redis_server: services.Redis,
    vhost: str,
    happenings: Sequence[Callable[[Servers], None]],
) -> None:
    """Each of these happens while a text is being searched: no process ends by it, and the closure is exact.

    But where the queues are gone a worker may end, and is started again. No result is committed until it
    has happened.
    """
    gate = tmp_path / "gate"
    deployment = deploy(**SIZES, CROCHET_LEASE="3")
    servers = Servers(deployment, postgres, rabbitmq, redis_server, vhost)
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        deployment.start_whole(program=faulty("hold", "orthos.store", str(gate), "3"))
        ended: list[str] = []

        def done() -> bool:
            ended.extend(deployment.start_dead())
            return closed(process, corpus)

        for body, happens in zip(TEXTS, happenings, strict=False):
            shutil.rmtree(gate, ignore_errors=True)
            gate.mkdir()
            (gate / "hold").touch()
            accept(process, corpus, [body])
            in_the_middle(process, corpus, deployment)
            happens(servers)
            (gate / "hold").unlink()
            until(done, deployment)
        assert ended == [] or happenings == [queues_are_lost]
        check(process, corpus, steps.expected(TEXTS[: len(happenings)]))


def in_the_middle(process: Process, corpus: Corpus, deployment: Cluster) -> None:
    """Return when the newest text has become a version, and some of its searches are done and many more are not."""
    states = """
        SELECT count(*) FILTER (WHERE state = 'done') > 2 AND count(*) FILTER (WHERE state = 'open') > 10 FROM work
         WHERE corpus = :corpus AND kind = 'search' AND version = (SELECT count(*) FROM texts)
    """
    until(lambda: steps.sql(process, states, corpus=corpus.id) == [(True,)], deployment)


def test_a_broken_queue_stops_no_worker_for_ever(deploy: Deploy, rabbitmq: services.RabbitMQ, vhost: str) -> None:
    """RabbitMQ is killed when it has just declared the queues, and loses one; a relay that starts then repairs it."""
    settings, _ = break_queues(rabbitmq, vhost)
    assert settings.broker_url is not None
    deployment = deploy(CROCHET_BROKER_URL=settings.broker_url.get_secret_value(), CROCHET_PUBLISH_TIMEOUT="1")
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        accept(process, corpus, steps.TEXTS)
        relay = deployment.start(*RELAY)
        until(lambda: "queue_broken" in deployment.log(relay), deployment)
        worker = deployment.start(*EVERYTHING)  # while the queue is deleted and declared
        until_closed(process, corpus, deployment)
        check(process, corpus, steps.expected(steps.TEXTS))
        deployment.terminate(worker)
        assert deployment.ended(worker) == 0
