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
from tests.support.server import take_port

APIS = 2
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


@contextlib.contextmanager
def everything(
    folder: Path,
    tenants: Sequence[str],
    environment: Mapping[str, str],
    *,
    programs: Sequence[Sequence[str]] = (CROCHET,),
    forked: bool = True,
) -> Iterator[Everything]:
    """Two relays, two workers that search, one of each other kind, two APIs, which have begun to serve.

    Relays and workers are started by one of `programs` after the other. `forked`: as in Cluster.
    """
    with contextlib.ExitStack() as opened:
        postgres = services.Postgres(folder / "postgres", **VACUUM)
        rabbitmq = services.RabbitMQ(folder / "rabbitmq")
        redis = services.Redis(folder / "redis")
        for server in (postgres, rabbitmq, redis):
            opened.callback(server.kill)
            server.start()
        url = postgres.new_database()
        database = Database(url, Settings())
        schema.migrate(database)
        database.close()
        proxies = {
            type(server).__name__: opened.enter_context(proxied(server.port)) for server in (postgres, rabbitmq, redis)
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
        for program, command in zip(itertools.cycle(programs), (*WHOLE, RELAY, SEARCH), strict=False):
            deployment.start(*command, program=program)
        ports = [take_port() for _ in range(APIS)]
        for port in ports:
            deployment.start("api", CROCHET_API_PORT=str(port))
        until(lambda: all(map(deployment.ready, deployment.processes)), deployment)
        yield Everything(deployment, process, postgres, rabbitmq, redis, proxies, ports, made)
