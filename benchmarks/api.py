"""How fast the API answers over a store of millions of orthos: `make bench-api`. Writes benchmarks/results/api.md.

Real servers, all on this machine: Postgres, RabbitMQ, Redis and `crochet api` as in production, with authentication.
Only the rate limits are raised: requests are counted, and none is refused. Each route gets requests of 1, 10 and 50
clients that send a request as soon as the one before is answered (benchmarks/load.py). They run on the same cores, so
their CPU time is reported. Then all reads are mixed, without and with running search workers. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import http.client
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import psutil
import redis
from pydantic import SecretStr

from benchmarks import texts
from benchmarks.closure import FLAT, machine, written
from benchmarks.load import ApiRequest, Load, Plan, run
from benchmarks.requests import Route, request, routes
from crochet_tasks.access import keys
from crochet_tasks.db import corpora, schema, tally
from crochet_tasks.db.process import Process
from crochet_tasks.db.sessions import Database
from crochet_tasks.embedded import pipeline, store
from crochet_tasks.embedded.server import SETTINGS
from crochet_tasks.intake import admission
from crochet_tasks.services.up import SEARCH_NICE
from crochet_tasks.settings import Settings
from tests.support import services
from tests.support.cluster import Cluster, cluster, until
from tests.support.commands import SEARCH, WHOLE
from tests.support.paths import ROOT
from tests.support.server import Server, take_port

GOAL_MS = 500
CLIENTS = (1, 10, 50)
PLENTY = "100000000"
CORPUS = "bench"
PARTS = 5


class Extent(NamedTuple):
    """How much is measured: words of a made-up text, seconds for so many clients, seconds of a mixed load."""

    words: int
    seconds: dict[int, float]
    mixed: float
    cold: int
    """the most routes that are requested of a fresh server"""
    searched: int
    """texts that are searched meanwhile"""


FULL = Extent(40_000, {1: 0.6, 10: 1.0, 50: 2.0}, 8.0, 10, 30)
QUICK = Extent(12_000, {1: 0.2, 10: 0.3, 50: 1.0}, 3.0, 2, 8)


class DurablePostgres(services.Postgres):
    """As in production: what is committed outlasts a power cut."""

    settings: ClassVar = {
        **services.Postgres.settings,
        "fsync": "on",
        "shared_buffers": "128MB",
        **{name: value for name, value in SETTINGS.items() if name.startswith("autovacuum")},
    }


class Servers(NamedTuple):
    postgres: services.Postgres
    rabbitmq: services.RabbitMQ
    redis: services.Redis


class Bench:
    """A deployment with an API to send requests to."""

    def __init__(self, servers: Servers, deployment: Cluster, key: str) -> None:
        self.servers, self.deployment, self.key = servers, deployment, key
        self.port = deployment.settings.api_port
        self.started: list[float] = []
        """seconds from the command to the line that says that it serves"""
        self._name = ""
        self._plans = 0

    def restart(self) -> None:
        """A server that has read nothing yet."""
        if self._name:
            self.deployment.terminate(self._name)
            self.deployment.ended(self._name)
        began = time.perf_counter()
        self._name = self.deployment.start("api")
        until(lambda: self.deployment.ready(self._name), self.deployment, pause=0.01)
        self.started.append(time.perf_counter() - began)

    def ask(self, request: ApiRequest) -> tuple[float, Any]:
        """Milliseconds, and what was answered."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            began = time.perf_counter()
            connection.request(*self._with_key(request).numbered(self.number()))
            answer = connection.getresponse()
            content = answer.read()
            taken = 1000 * (time.perf_counter() - began)
        if answer.status not in request.expected:
            raise RuntimeError(f"{request.method} {request.path}: {answer.status} {content[:500]!r}")
        return taken, json.loads(content) if content else None

    def load(self, requests: list[ApiRequest], clients: int, seconds: float) -> tuple[Load, dict[str, float]]:
        """What these requests took, and CPU seconds meanwhile by kind of process."""
        before = self._cpu()
        plan = Plan(self.port, clients, seconds, [self._with_key(request) for request in requests], self.number())
        loaded = run(plan)
        after = self._cpu()
        return loaded, {kind: after[kind] - before[kind] for kind in before}

    def start_search(self, number: int) -> None:
        """Have workers search so many more texts of the corpus."""
        for each in range(number):
            body = "\n\n".join(texts.zipf(seed=100 + each))
            post = {"title": f"searched {each}", "body": body}
            self.ask(request("POST", f"/v1/corpora/{CORPUS}/texts", post, expected=(202,)))
        for command in WHOLE:
            name = self.deployment.start(*command)
            if command == SEARCH:
                _give_way(self.deployment.processes[name].pid)

    def _with_key(self, request: ApiRequest) -> ApiRequest:
        return request._replace(headers={**request.headers, "Authorization": f"Bearer {self.key}"})

    def number(self) -> int:
        """Where so many numbers begin that no request has had."""
        self._plans += 1
        return self._plans * 1_000_000

    def memory(self) -> list[float]:
        """MB that each process of the API has to itself."""
        api = psutil.Process(self.deployment.processes[self._name].pid)
        return [process.memory_full_info().uss / 1e6 for process in (api, *api.children(recursive=True))]

    def _cpu(self) -> dict[str, float]:
        """CPU seconds so far. The workers of the API are as many all the time, and so are the pool's connections."""
        api = psutil.Process(self.deployment.processes[self._name].pid)
        kinds = {
            "api": [api, *api.children(recursive=True)],
            "postgres": self.servers.postgres.processes(),
            "redis": self.servers.redis.processes(),
        }
        return {kind: sum(map(_cpu_of, processes)) for kind, processes in kinds.items()}


def _give_way(session: int) -> None:
    """Searches have as little of the cores as with `crochet up` (docs/adr/0078). Here each service is a session of its
    own, between which the kernel shares cores alike (autogroup), unless it is said of a whole one.
    """
    group = Path(f"/proc/{session}/autogroup")
    os.setpriority(os.PRIO_PGRP, session, SEARCH_NICE)
    if group.exists():
        group.write_text(str(SEARCH_NICE))


def _cpu_of(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


# ── what is set up ──────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def bench(folder: Path, fill: Callable[[Process], str]) -> Iterator[tuple[Bench, str]]:
    """A deployment with a store, filled by `fill`; and a line about it, which `fill` returns."""
    with contextlib.ExitStack() as stack:
        kinds = (DurablePostgres, services.RabbitMQ, services.Redis)
        servers = Servers(*(_started(stack, folder, kind) for kind in kinds))
        url = servers.postgres.url
        settings = Settings(database_url=SecretStr(url), state_dir=folder / "state")
        _migrate(url, settings)
        with store.opened(settings) as process:
            about = fill(process)
            key = keys.create(process.database, keys.KeySpec("bench", ("admin",), tier="high")).key
        servers.postgres.stop()  # what was written lately is in its files then, as in a store that has been there
        servers.postgres.start()
        environment = {
            "CROCHET_DATABASE_URL": servers.postgres.url,
            "CROCHET_BROKER_URL": servers.rabbitmq.url,
            "CROCHET_REDIS_URL": servers.redis.url,
            "CROCHET_ENVIRONMENT": "production",
            "CROCHET_API_PORT": str(take_port()),
            "CROCHET_API_RATE_HIGH": PLENTY,
            "CROCHET_API_RATE_ANONYMOUS": PLENTY,
            "CROCHET_JWT_SECRET": "a secret of the benchmark, long enough",
            "CROCHET_MAX_WAITING_TEXTS": "100000",
            "CROCHET_LEASE": "60",
        }
        deployment = stack.enter_context(cluster(folder, **environment))
        yield Bench(servers, deployment, key), about


def _started(stack: contextlib.ExitStack, folder: Path, kind: type[Any]) -> Any:
    server: Server = kind(folder / kind.__name__)
    stack.callback(server.kill)
    server.start()
    return server


def _migrate(url: str, settings: Settings) -> None:
    database = Database(url, settings)
    try:
        schema.migrate(database)
    finally:
        database.close()


def _stored(process: Process, extent: Extent) -> str:
    """Store a text and all its orthos, in a few versions."""
    verses = None if extent is QUICK else texts.genesis()
    paragraphs = verses or texts.zipf(extent.words)
    with process.database.transaction() as connection:
        corpus = corpora.get_or_create(connection, CORPUS, FLAT)
    for part in np.array_split(np.arange(len(paragraphs)), PARTS):
        admission.accept(corpus, "part", "\n\n".join(paragraphs[number] for number in part.tolist()))
        pipeline.close(process, corpus)
    with process.database.transaction() as connection:
        total = tally.total(connection, corpus.id)
    return f"{'genesis' if verses else 'zipf'} in {PARTS} texts, 2 axes: {total:,} orthos stored"


# ── the report ──────────────────────────────────────────────────────────────────────────────────


def report(extent: Extent, only: str) -> Iterator[str]:
    began = time.perf_counter()
    yield from machine("The API")
    with (
        tempfile.TemporaryDirectory() as folder,
        bench(Path(folder), lambda process: _stored(process, extent)) as (api, about),
    ):
        yield f"{about}. Clients send as soon as they were answered; percentiles are of all answers, errors among them."
        yield "CPU ms per request: of the processes of the API and of Postgres; clients: their share of one core."
        yield ""
        for package in ("crochet_tasks", "api"):
            compileall.compile_dir(ROOT / package, quiet=1)  # as where it is installed
        api.restart()
        every = [route for route in routes(api.ask, CORPUS) if only in route.name]
        yield from _cold(api, every, extent)
        yield f"`crochet api` served {np.median(api.started):.2f} s after it was started (median of {len(api.started)} "
        yield f"starts; the slowest took {max(api.started):.2f} s; goal: less than 1)."
        yield ""
        turns = zip(*(route.spread(60) for route in every if route.reads), strict=True)
        reads = [request for turn in turns for request in turn]
        if reads:
            api.load(reads, 16, 2.0)  # both processes have read what they need
        yield from _head("Each route alone", "route")
        worst = dict.fromkeys(CLIENTS, (0.0, ""))
        for route in every:
            loads = {}
            for clients in CLIENTS:
                loads[clients] = api.load(_ground(api, route), clients, extent.seconds[clients])
                slowest = loads[clients][0].percentile(0.99), route.name
                worst[clients] = max(worst[clients], slowest)
            yield _row(route.name, loads)
        yield ""
        for clients, (ms, name) in worst.items():
            yield f"- slowest p99 with {clients} clients: **{ms:.0f} ms** ({name}; goal: at most {GOAL_MS})"
        yield ""
        if not reads:
            return
        yield from _head("All reads mixed", "while")
        loads = {clients: api.load(reads, clients, extent.mixed) for clients in CLIENTS}
        yield _row("nothing else runs", loads)
        before = api.ask(request("GET", f"/v1/corpora/{CORPUS}/status"))[1]
        api.start_search(extent.searched)
        until(lambda: _version(api) > before["version"], api.deployment)
        loads = {clients: api.load(reads, clients, extent.mixed) for clients in CLIENTS}
        yield _row("a search runs", loads)
        after = api.ask(request("GET", f"/v1/corpora/{CORPUS}/status"))[1]
        yield ""
        found, versions = after["total"] - before["total"], after["version"] - before["version"]
        open_still = "was not done" if not after["closed"] else "**WAS DONE**"
        yield f"- meanwhile {found:,} orthos were found in {versions} versions; the search {open_still} at the end"
        yield f"- the whole run took {time.perf_counter() - began:.0f} s"
        yield ""


def _version(api: Bench) -> int:
    return int(api.ask(request("GET", f"/v1/corpora/{CORPUS}/version"))[1]["version"])


def _ground(api: Bench, route: Route) -> list[ApiRequest]:
    """The requests of a route. Those that write get a corpus of their own, so that all find equally much there."""
    if route.reads:
        return route.requests
    name = f"written{api.number()}"
    api.ask(request("POST", "/v1/corpora", {"name": name}, expected=(201,)))
    return [request.instead_of("written", name) for request in route.requests]


def _cold(api: Bench, every: list[Route], extent: Extent) -> Iterator[str]:
    """The first request that a fresh server gets."""
    yield "## The first request of all to a server just started"
    yield ""
    yield "| route | ms | the second |"
    yield "|---|---|---|"
    for route in [route for route in every if route.cold][: extent.cold]:
        redis.Redis.from_url(api.servers.redis.url).flushall()
        api.restart()
        first, second = (api.ask(route.requests[0])[0] for _ in range(2))
        yield f"| {route.name} | {first:.0f} | {second:.0f} |"
    yield ""


def _head(title: str, what: str) -> Iterator[str]:
    yield f"## {title}: ms, p50 / p99 / worst"
    yield ""
    clients = " | ".join(f"{number} client{'s' * (number > 1)}" for number in CLIENTS)
    yield f"| {what} | {clients} | requests/s at {CLIENTS[-1]} | CPU ms: API | Postgres | clients | errors |"
    yield f"|---|{'---|' * len(CLIENTS)}---|---|---|---|---|"


def _row(name: str, loads: dict[int, tuple[Load, dict[str, float]]]) -> str:
    cells = []
    for load, _ in loads.values():
        p99 = load.percentile(0.99)
        cell = f"**{p99:.0f}**" if p99 > GOAL_MS else f"{p99:.0f}"
        cells.append(f"{load.percentile(0.5):.1f} / {cell} / {load.ms[-1]:.0f}")
    load, cpu = loads[CLIENTS[-1]]
    errors = ", ".join(f"{number} {what}" for each, _ in loads.values() for what, number in each.errors.items()) or "0"
    taken = [f"{1000 * cpu[kind] / len(load.ms):.1f}" for kind in ("api", "postgres")]
    return f"| {' | '.join([name, *cells, f'{load.rate:.0f}', *taken, f'{load.cpu / load.seconds:.0%}', errors])} |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="a small store and little time; writes no results")
    options.add_argument("--only", default="", metavar="WORD", help="routes whose name holds this; writes no results")
    arguments = options.parse_args()
    extent = QUICK if arguments.quick else FULL
    if arguments.quick or arguments.only:
        for line in report(extent, arguments.only):
            print(line, flush=True)
    else:
        written("api", lambda: report(extent, ""))


if __name__ == "__main__":
    main()
