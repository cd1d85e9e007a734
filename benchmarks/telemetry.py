"""What telemetry costs: `make bench-telemetry`. Off, on, and on with collectors that are away or hang.

The same deployment as in distributed.py, with two workers that search: without telemetry, with all of it and live
receivers, and with receivers that refuse or never answer. The ways of a round run one after the other, in turn
forwards and backwards, each on a new database and with new processes; what is compared is compared within a round.
The clock runs from the acceptance of the first text until no work is open. Nothing is asserted here.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import re
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
from sqlalchemy.engine import make_url

from benchmarks import texts
from benchmarks.closure import FLAT, machine, written
from benchmarks.distributed import CUBES
from crochet_tasks.db import corpora, schema, tally
from crochet_tasks.db.process import Process
from crochet_tasks.db.sessions import Database
from crochet_tasks.settings import Settings
from tests.support import services
from tests.support.cluster import Cluster, accept, closed, cluster, until
from tests.support.collectors import HOST, Hanging, Otlp, Profiles
from tests.support.commands import SEARCH, WHOLE
from tests.support.server import take_port

COMMANDS = (*WHOLE, SEARCH)
WAYS = ("off", "on", "away", "hanging")
EVERY_TRACE = "every trace"
"""as `on`, with every trace recorded; measured only on request"""
GOAL = 1.05
SCRAPE_SECONDS = 5.0
"""three times as often as in deploy/observability, so that each run has some of it"""


class Case(NamedTuple):
    """Texts, accepted one after the other, in so many corpora at once."""

    name: str
    texts: list[str]
    limits: dict[str, int]
    corpora: int = 1


class Extent(NamedTuple):
    """How much is measured: rounds, verses in one text, corpora that get it, and short texts."""

    rounds: int
    verses: int
    corpora: int
    short: int


FULL, QUICK = Extent(4, 514, 3, 120), Extent(1, 150, 1, 10)


def cases(extent: Extent) -> list[Case]:
    verses = texts.genesis()
    name, flat = ("genesis", False) if verses else ("zipf", True)
    verses = verses or texts.zipf()
    few = verses[: extent.verses]
    return [
        Case(
            f"one text, {name}, {len(few)} paragraphs, in each of {extent.corpora} corpora",
            ["\n\n".join(few)],
            FLAT if flat else CUBES,
            extent.corpora,
        ),
        Case(f"{extent.short} short texts, a paragraph each", verses[: extent.short], CUBES),
    ]


# ── one run ─────────────────────────────────────────────────────────────────────────────────────


class Run(NamedTuple):
    """Seconds a case took, CPU seconds meanwhile by kind of process, tasks done, and what the receivers got."""

    seconds: float
    cpu: dict[str, float]
    orthos: int
    work: int
    received: int

    @property
    def services(self) -> float:
        """CPU seconds of all that serves: not of the receivers."""
        return sum(seconds for kind, seconds in self.cpu.items() if kind != RECEIVERS)


class Servers(NamedTuple):
    postgres: services.Postgres
    rabbitmq: services.RabbitMQ
    redis: services.Redis
    template: str


def measured(folder: Path, servers: Servers, way: str, every: Sequence[Case]) -> list[Run]:
    """All cases, one after the other, on a deployment with its telemetry that way."""
    folder.mkdir()
    database, vhost = servers.postgres.new_database(servers.template), servers.rabbitmq.new_vhost()
    environment = {
        "CROCHET_DATABASE_URL": database,
        "CROCHET_BROKER_URL": vhost,
        "CROCHET_REDIS_URL": servers.redis.url,
        "CROCHET_HEALTH_DIR": str(folder / "health"),
        "CROCHET_LOG_FORMAT": "json",
        "CROCHET_LEASE": "60",
    }
    ports = [take_port() for _ in COMMANDS] if way != "off" else []
    with contextlib.ExitStack() as stack:
        receivers = stack.enter_context(_telemetry(way, ports))
        deployment = stack.enter_context(cluster(folder, **environment, **receivers.environment))
        process = stack.enter_context(deployment.process())
        roles = _start(deployment, ports)
        cpu = Cpu(servers, roles, receivers.pid)
        for number in range(2):  # each process has done something
            _run(deployment, process, Case(f"warm-up-{number}", ["a b, c d, a c, b d"] * 3, CUBES), cpu, receivers)
        runs = [_run(deployment, process, case, cpu, receivers) for case in every]
    servers.postgres.drop_database(database)
    servers.rabbitmq.delete_vhost(vhost)
    return runs


def _start(deployment: Cluster, ports: list[int]) -> dict[int, str]:
    """Start all processes and wait until they serve; what each is."""
    names = {}
    for command, port in itertools.zip_longest(COMMANDS, ports):
        settings = {} if port is None else {"CROCHET_METRICS_PORT": str(port)}
        names[deployment.start(*command, **settings)] = _role(command)
    until(lambda: all(map(deployment.ready, names)), deployment)
    return {deployment.processes[name].pid: role for name, role in names.items()}


def _role(command: tuple[str, ...]) -> str:
    if command[0] != "worker":
        return command[0]
    return "stages" if "," in command[2] else command[2]


def _run(deployment: Cluster, process: Process, case: Case, cpu: Cpu, receivers: Receivers) -> Run:
    with process.database.transaction() as connection:
        name = re.sub(r"\W+", "-", case.name)
        every = [corpora.get_or_create(connection, f"{name}-{number}", case.limits) for number in range(case.corpora)]
    received, before = receivers.received(), cpu.used()
    began = time.perf_counter()
    for corpus in every:
        accept(process, corpus, case.texts)
    # Asking costs the same cores.
    until(lambda: all(closed(process, corpus) for corpus in every), deployment, pause=0.05)
    seconds = time.perf_counter() - began
    spent = cpu.used()
    spent.subtract(before)
    numbers = [corpus.id for corpus in every]
    with process.database.transaction() as connection:
        total = sum(tally.total(connection, number) for number in numbers)
        tasks = connection.exec_driver_sql("SELECT count(*) FROM work WHERE corpus = ANY(%s)", (numbers,)).scalar_one()
    return Run(seconds, dict(spent), total, int(tasks), receivers.received() - received)


class Cpu:
    """CPU seconds by kind of process, of services, servers and receivers."""

    def __init__(self, servers: Servers, roles: dict[int, str], receivers: int | None) -> None:
        self._servers, self._roles, self._receivers = servers, roles, receivers

    def used(self) -> Counter[str]:
        spent: Counter[str] = Counter()
        for pid, role in self._roles.items():
            main = psutil.Process(pid)
            for process in (main, *main.children(recursive=True)):
                _add(spent, role, process)
        for name, server in (("postgres", self._servers.postgres), ("rabbitmq", self._servers.rabbitmq)):
            for process in server.processes():
                _add(spent, name, process)
        if self._receivers is not None:
            _add(spent, RECEIVERS, psutil.Process(self._receivers))
        return spent


RECEIVERS = "receivers"


def _add(spent: Counter[str], kind: str, process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):  # a part of Postgres that has come and gone
        times = process.cpu_times()
        spent[kind] += times.user + times.system  # type: ignore[assignment]  # a Counter of seconds


# ── receivers ───────────────────────────────────────────────────────────────────────────────────


class Receivers:
    """What is at the other end of telemetry, if anything is."""

    pid: int | None = None

    def __init__(self, **environment: str) -> None:
        self.environment = environment

    def received(self) -> int:
        """Requests taken and scrapes made so far."""
        return 0


class Live(Receivers):
    """Receivers and a scraper of these ports, in a process of their own."""

    def __init__(self, ports: list[int]) -> None:
        self._ours, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_receive, args=(theirs, ports), daemon=True)
        self._process.start()
        theirs.close()
        otlp, pyroscope = self._ours.recv()
        super().__init__(CROCHET_OTLP_URL=otlp, CROCHET_PYROSCOPE_URL=pyroscope)
        self.pid = self._process.pid

    def received(self) -> int:
        self._ours.send("how many")
        return int(self._ours.recv())

    def close(self) -> None:
        self._process.kill()
        self._process.join()


_SPAWN = multiprocessing.get_context("spawn")


def _receive(pipe: Connection, ports: list[int]) -> None:
    """Be the receivers and the scraper, until killed."""
    scrapes = itertools.count()
    with Otlp() as collector, Profiles() as server:
        pipe.send((collector.url, server.url))
        threading.Thread(target=_scrape, args=(ports, scrapes), daemon=True).start()
        while True:
            pipe.recv()
            pipe.send(len(collector.posts) + len(server.posts) + next(scrapes))


def _scrape(ports: list[int], scrapes: Iterator[int]) -> None:
    with httpx.Client(timeout=10) as client:
        while True:
            began = time.monotonic()
            for port in ports:
                with contextlib.suppress(httpx.HTTPError):  # it is not there yet
                    client.get(f"http://{HOST}:{port}/metrics")
                    next(scrapes)
            time.sleep(max(0.0, began + SCRAPE_SECONDS - time.monotonic()))


@contextlib.contextmanager
def _telemetry(way: str, ports: list[int]) -> Iterator[Receivers]:
    if way == "off":
        yield Receivers()
    elif way in ("on", EVERY_TRACE):
        with contextlib.closing(Live(ports)) as live:
            if way == EVERY_TRACE:
                live.environment["CROCHET_TRACE_RATIO"] = "1"
            yield live
    elif way == "away":
        unused = f"http://{HOST}:{take_port()}"
        yield Receivers(CROCHET_OTLP_URL=unused, CROCHET_PYROSCOPE_URL=unused)
    else:
        with Hanging() as hanging:
            yield Receivers(CROCHET_OTLP_URL=hanging.url, CROCHET_PYROSCOPE_URL=hanging.url)


# ── the report ──────────────────────────────────────────────────────────────────────────────────


def report(extent: Extent, ways: Sequence[str]) -> Iterator[str]:
    began = time.perf_counter()
    yield from machine("Telemetry")
    yield (
        f"{extent.rounds} rounds. `on`: metrics, profiles and a tenth of the traces; "
        "`away` refuses connections, "
        "`hanging` takes them and never answers. Live receivers are in a process of their own on the same cores, which "
        f"also scrapes every service each {SCRAPE_SECONDS:g} s. Postgres does not wait for the disk. Ratios are "
        "medians of those within a round, with the least and the greatest. CPU is of the services, "
        f"Postgres and RabbitMQ; ms are of CPU more than without, per piece of work. Goal: at most {GOAL}."
    )
    yield ""
    every = cases(extent)
    rounds: list[dict[str, list[Run]]] = []
    with tempfile.TemporaryDirectory() as folder, _servers(Path(folder)) as servers:
        for number in range(extent.rounds):
            turn = ways if number % 2 == 0 else ways[::-1]
            rounds.append({way: measured(Path(folder) / f"{number}-{way}", servers, way, every) for way in turn})
    for number, case in enumerate(every):
        yield from _table(case, [{way: runs[number] for way, runs in each.items()} for each in rounds])
    yield f"- the whole run took {time.perf_counter() - began:.0f} s"
    yield ""


def _table(case: Case, rounds: list[dict[str, Run]]) -> Iterator[str]:
    first = rounds[0]["off"]
    yield f"## {case.name}: {first.orthos:,} orthos, {first.work} pieces of work"
    yield ""
    yield "| telemetry | seconds | / off | CPU seconds | / off | ms | CPU seconds of | receivers |"
    yield "|---|---|---|---|---|---|---|---|"
    for way in rounds[0]:
        runs = [each[way] for each in rounds]
        wrong = "" if all(run.orthos == first.orthos for run in runs) else " **OTHER ORTHOS**"
        more = statistics.median(each[way].services - each["off"].services for each in rounds)
        kinds = {kind: statistics.median(run.cpu[kind] for run in runs) for kind in runs[0].cpu if kind != RECEIVERS}
        of = ", ".join(f"{kind} {seconds:.2f}" for kind, seconds in kinds.items())
        received = ""
        if RECEIVERS in runs[0].cpu:
            cpu = statistics.median(run.cpu[RECEIVERS] for run in runs)
            received = f"{statistics.median(run.received for run in runs):.0f} requests, {cpu:.2f} CPU seconds"
        cells = [
            f"{way}{wrong}",
            f"{statistics.median(run.seconds for run in runs):.2f}",
            _ratio([each[way].seconds / each["off"].seconds for each in rounds]) if way != "off" else "1",
            f"{statistics.median(run.services for run in runs):.2f}",
            _ratio([each[way].services / each["off"].services for each in rounds]) if way != "off" else "1",
            f"{1000 * more / first.work:.2f}" if way != "off" else "",
            of,
            received,
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _ratio(ratios: list[float]) -> str:
    median = statistics.median(ratios)
    cell = f"**{median:.3f}**" if median > GOAL else f"{median:.3f}"
    return f"{cell} ({min(ratios):.2f} to {max(ratios):.2f})"


@contextlib.contextmanager
def _servers(folder: Path) -> Iterator[Servers]:
    with contextlib.ExitStack() as stack:
        postgres = services.Postgres(folder / "postgres")
        rabbitmq = services.RabbitMQ(folder / "rabbitmq")
        redis = services.Redis(folder / "redis")
        for server in (postgres, rabbitmq, redis):
            server.folder.mkdir(exist_ok=True)
            stack.callback(server.kill)
            server.start()
        url = postgres.new_database()
        with contextlib.closing(Database(url, Settings())) as database:
            schema.migrate(database)
        yield Servers(postgres, rabbitmq, redis, str(make_url(url).database))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="one round of little work; writes no results")
    options.add_argument("--rounds", type=int, help="another number of them; writes no results")
    options.add_argument(
        "--way", action="append", choices=(*WAYS[1:], EVERY_TRACE), help="only this one and `off`; writes no results"
    )
    arguments = options.parse_args()
    extent = QUICK if arguments.quick else FULL
    ways = ("off", *(arguments.way or WAYS[1:]))
    if arguments.quick or arguments.rounds or arguments.way:
        for line in report(extent._replace(rounds=arguments.rounds or extent.rounds), ways):
            print(line, flush=True)
    else:
        written("telemetry", lambda: report(extent, WAYS))


if __name__ == "__main__":
    main()
