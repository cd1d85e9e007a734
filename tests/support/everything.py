"""A whole deployment of its own, for campaigns that last: servers, proxies before them, all kinds of processes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from crochet_tasks.access import keys
from crochet_tasks.access.keys import KeySpec
from crochet_tasks.db import schema
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.db.sessions import Database
from crochet_tasks.embedded.server import SETTINGS
from crochet_tasks.settings import Settings
from tests.support import services
from tests.support.cluster import Cluster, cluster, until
from tests.support.commands import CROCHET, RELAY, SEARCH, WHOLE
from tests.support.proxy import Proxy, proxied
from tests.support.replicated import Standby
from tests.support.server import take_port

APIS = 2
WAL_KEPT = "256MB"
"""for a standby that was away"""
VACUUM = {name: value for name, value in SETTINGS.items() if name.startswith("autovacuum_")}
"""as in production"""


class Everything(NamedTuple):
    """`process` is connected to the database without a proxy; `keys`: an administrator's for each tenant."""

    deployment: Cluster
    process: Process
    postgres: services.Postgres
    rabbitmq: services.RabbitMQ
    redis: services.Redis
    proxies: dict[str, Proxy]
    """by the names of the servers' classes"""
    ports: list[int]
    """of the APIs"""
    keys: dict[str, str]
    standby: Standby | None
    metrics_port: int
    """of the last API"""


@contextlib.contextmanager
def everything(
    folder: Path,
    tenants: Sequence[str],
    environment: Mapping[str, str],
    *,
    program: Sequence[str] = CROCHET,
    hosts: Sequence[Mapping[str, str]] = ({},),
    standby: bool = False,
    forked: bool = True,
) -> Iterator[Everything]:
    """Two relays, two workers that search, one of each other kind, two APIs, which have begun to serve.

    `program`: of relays and workers. `hosts`: what the environments of processes have in addition, one host's after the
    other. `standby`: the last API reads from one, where that has what it needs. `forked`: as in Cluster.
    """
    with contextlib.ExitStack() as opened:
        postgres = services.Postgres(folder / "postgres", **VACUUM, wal_keep_size=WAL_KEPT)
        rabbitmq = services.RabbitMQ(folder / "rabbitmq")
        redis = services.Redis(folder / "redis")
        for server in (postgres, rabbitmq, redis):
            opened.callback(server.kill)
            server.start()
        url = postgres.new_database()
        database = Database(url, Settings())
        schema.migrate(database)
        database.close()
        copy = Standby(folder / "standby", postgres) if standby else None
        if copy is not None:
            opened.callback(copy.kill)
            copy.start()
        proxies = {
            type(server).__name__: opened.enter_context(proxied(server.port))
            for server in (postgres, rabbitmq, redis, copy)
            if server is not None
        }
        addresses = {
            "CROCHET_DATABASE_URL": proxies["Postgres"].before(url),
            "CROCHET_BROKER_URL": proxies["RabbitMQ"].before(rabbitmq.url),
            "CROCHET_REDIS_URL": proxies["Redis"].before(redis.url),
        }
        logs = folder / "logs"
        logs.mkdir()
        deployment = opened.enter_context(cluster(logs, forked, **environment, **addresses))
        process = opened.enter_context(open_process(Settings(), url))
        made = {
            tenant: keys.create(process.database, KeySpec("campaign", ("admin",), tenant), new_tenant=True).key
            for tenant in tenants
        }
        host = itertools.cycle(hosts)
        for command in (*WHOLE, RELAY, SEARCH):
            deployment.start(*command, program=program, **next(host))
        ports, metrics_port = [take_port() for _ in range(APIS)], take_port()
        for port in ports:
            own = {"CROCHET_API_PORT": str(port)}
            if port == ports[-1]:
                own["CROCHET_METRICS_PORT"] = str(metrics_port)
                own |= {"CROCHET_DATABASE_READ_URL": proxies["Standby"].before(url)} if copy else {}
            deployment.start("api", **own, **next(host))
        until(lambda: all(map(deployment.ready, deployment.processes)), deployment)
        yield Everything(deployment, process, postgres, rabbitmq, redis, proxies, ports, made, copy, metrics_port)
