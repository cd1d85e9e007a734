"""The distributed run against the embedded one on the same cores: `make bench-distributed`.

Both work on the same kind of private Postgres. The distributed run has a RabbitMQ and a Redis of its own, a relay, one
worker for the ordered stages, one for `orthos`, and one or more for `search`, all of one process each. The clock runs
from the acceptance of the text until no work is open; servers and workers are up before. Then the proof of the best as
a job of so many workers, against one process. Nothing is asserted here.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks import texts
from benchmarks.closure import FLAT, machine, written
from benchmarks.scale import bible
from crochet_tasks.broker import queues
from crochet_tasks.db import corpora, tally
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.embedded import pipeline, store
from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.engine.best.faces import Faces
from crochet_tasks.engine.best.plan import begun
from crochet_tasks.engine.best.shapes import Scope
from crochet_tasks.engine.best.solve import Solver
from crochet_tasks.engine.geometry import shape_name
from crochet_tasks.errors import Unavailable
from crochet_tasks.intake import admission
from crochet_tasks.operate import best_jobs
from crochet_tasks.operate.best_jobs import JobSpec
from crochet_tasks.query.best import threads, tree_of
from crochet_tasks.settings import Settings
from tests.support import services
from tests.support.cluster import closed, cluster, until
from tests.support.commands import SEARCH, STAGES, WHOLE

CUBES = {"max_axes": 3, "max_side": 8, "max_cells": 64}
BEST = {"max_axes": 2, "max_side": 12, "max_cells": 64}
BIBLE_SHARE = 3
"""only so much of the Bible, or each run takes half an hour"""


class Servers(NamedTuple):
    rabbitmq: services.RabbitMQ
    redis: services.Redis


class Run(NamedTuple):
    """Orthos found, seconds it took, and CPU seconds of each kind of process."""

    orthos: int
    seconds: float
    cpu: dict[str, float]


def report(repeat: int) -> Iterator[str]:
    yield from machine("The distributed run")
    yield f"Best of {repeat}, one after the other within each case."
    yield ""
    verses = texts.genesis()
    cases = [("zipf, 2 axes", texts.zipf(), FLAT)]
    if verses:
        cases += [("genesis, 2 axes", verses, FLAT), ("genesis 1-20, 3 axes", verses[:514], CUBES)]
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as servers:
        for name, paragraphs, limits in cases:
            body = "\n\n".join(paragraphs)
            runs: dict[str, list[Run]] = {"embedded": [], "1 searcher": [], "2 searchers": [], "4 searchers": []}
            for number in range(repeat):  # side by side: what disturbs the machine disturbs all of them
                place = Path(folder) / f"{name}-{number}"
                runs["embedded"].append(_embedded(place / "e", body, limits))
                for searchers in (1, 2, 4):
                    ways = runs[f"{searchers} searcher{'s' * (searchers > 1)}"]
                    ways.append(_distributed(place / str(searchers), servers, body, limits, searchers))
            yield from _table(name, {way: min(measured, key=lambda run: run.seconds) for way, measured in runs.items()})
        yield from _best(Path(folder), servers, repeat)


def _table(name: str, best: dict[str, Run]) -> Iterator[str]:
    yield f"## {name}: {best['embedded'].orthos:,} orthos"
    yield ""
    yield "| run | seconds | orthos/s | / embedded | CPU seconds |"
    yield "|---|---|---|---|---|"
    for way, run in best.items():
        cpu = ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in run.cpu.items())
        same = "" if run.orthos == best["embedded"].orthos else f" **{run.orthos:,} ORTHOS**"
        ratio = run.seconds / best["embedded"].seconds
        yield f"| {way}{same} | {run.seconds:.2f} | {run.orthos / run.seconds:,.0f} | {ratio:.2f} | {cpu} |"
    yield ""
    speed = best["1 searcher"].seconds / best["2 searchers"].seconds
    yield f"- two search workers / one: **{speed:.2f}** (goal: at least 1.6)"
    whole = best["2 searchers"].seconds / best["embedded"].seconds
    yield f"- distributed with two / embedded: **{whole:.2f}** (goal: at most 1)"
    yield ""


def _embedded(folder: Path, body: str, limits: dict[str, int]) -> Run:
    with store.opened(Settings(state_dir=folder)) as process:
        corpus = _corpus(process, limits)
        before = _cpu({})
        started = time.perf_counter()
        admission.accept(corpus, "bench", body)
        pipeline.close(process, corpus)
        return Run(_total(process, corpus), time.perf_counter() - started, _spent(before, _cpu({})))


def _distributed(
    folder: Path,
    servers: Servers,
    body: str,
    limits: dict[str, int],
    searchers: int,
) -> Run:
    with _deployment(folder, servers, limits, None, searchers) as (process, corpus, roles):
        before = _cpu(roles)
        started = time.perf_counter()
        admission.accept(corpus, "bench", body)
        while not closed(process, corpus):
            time.sleep(0.03)  # asking costs the same cores
        return Run(_total(process, corpus), time.perf_counter() - started, _spent(before, _cpu(roles)))


@contextlib.contextmanager
def _deployment(
    folder: Path, servers: Servers, limits: dict[str, int], budget: int | None, searchers: int
) -> Iterator[tuple[Process, corpora.Corpus, dict[int, str]]]:
    """An empty corpus, and processes that wait for work; their kinds, by pid."""
    vhost = servers.rabbitmq.new_vhost()
    with store.opened(Settings(state_dir=folder)) as process:
        corpus = _corpus(process, limits, budget)
    environment = {"CROCHET_BROKER_URL": vhost, "CROCHET_REDIS_URL": servers.redis.url, "CROCHET_LEASE": "60"}
    with (
        EmbeddedPostgres(folder) as server,
        cluster(folder, CROCHET_DATABASE_URL=server.url, **environment) as deployment,
        open_process(deployment.settings, server.url) as process,
    ):
        commands = [*WHOLE, *[SEARCH] * (searchers - 1)]
        roles = {deployment.processes[deployment.start(*command)].pid: _role(command) for command in commands}
        until(lambda: _ready(deployment.settings, searchers), deployment)
        yield process, corpus, roles
    servers.rabbitmq.delete_vhost(vhost)


# ── the best ────────────────────────────────────────────────────────────────────────────────────


class Proof(NamedTuple):
    """The best orthos by shape, seconds until they were proven, and CPU seconds of each kind of process."""

    found: dict[str, int]
    seconds: float
    cpu: dict[str, float]


def _best(folder: Path, servers: Servers, repeat: int) -> Iterator[str]:
    """The best as a job of the pipeline, against one process that does nothing else."""
    body = bible()
    if body is None:
        yield "The best: skipped, Debian's program `bible` is not installed (bible-kjv, bible-kjv-text)."
        return
    body = body[: len(body) // BIBLE_SHARE]
    proofs: dict[str, list[Proof]] = {}
    for number in range(repeat):
        proofs.setdefault("one process", []).append(_solved(body))
        for workers in (1, 2, 4):
            proof = _job(folder / f"best-{number}-{workers}", servers, body, workers)
            proofs.setdefault(f"{workers} worker{'s' * (workers > 1)}", []).append(proof)
    fastest = {way: min(measured, key=lambda proof: proof.seconds) for way, measured in proofs.items()}
    alone = fastest["one process"]
    found = ", ".join(f"{shape} ({number})" for shape, number in alone.found.items())
    yield f"## The best of the first {len(body.split()):,} words of the Bible, 2 axes, sides up to 12: {found}"
    yield ""
    yield "| run | seconds | / one process | CPU seconds |"
    yield "|---|---|---|---|"
    for way, proof in fastest.items():
        cpu = ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in proof.cpu.items())
        same = "" if proof.found == alone.found else f" **{proof.found}**"
        yield f"| {way}{same} | {proof.seconds:.1f} | {proof.seconds / alone.seconds:.2f} | {cpu} |"
    yield ""
    yield f"- two workers / one: **{fastest['1 worker'].seconds / fastest['2 workers'].seconds:.2f}**"
    yield ""


def _solved(body: str) -> Proof:
    before, started = _cpu({}), time.perf_counter()
    tree = tree_of([body], BEST["max_side"])
    state = begun(tree, Scope(**BEST))
    Solver(Faces(tree), state, threads()).run()
    found = {shape_name(one.record.sides): one.record.found for one in state.listed}
    return Proof(found, time.perf_counter() - started, _spent(before, _cpu({})))


def _job(folder: Path, servers: Servers, body: str, workers: int) -> Proof:
    """From the request until it is proven. The text is a version by then, and its budget of one ortho spent."""
    with _deployment(folder, servers, BEST, 1, workers) as (process, corpus, roles):
        admission.accept(corpus, "bench", body)
        version = 0
        while not version:
            time.sleep(0.1)
            with process.database.snapshot() as connection:
                version = corpora.version(connection, corpus.id)
        before, started = _cpu(roles), time.perf_counter()
        best_jobs.ask(process, corpus.tenant, corpus.name, JobSpec({}, None), None)
        while True:
            with process.database.snapshot() as connection:
                job = best_jobs.read(connection, corpora.numbered(connection, corpus.id))
            if job.state == "proven":
                return Proof(job.found, time.perf_counter() - started, _spent(before, _cpu(roles)))
            if job.state not in ("queued", "running"):
                raise SystemExit(f"the job ended as '{job.state}': {job.error}")
            time.sleep(0.1)


def _role(command: tuple[str, ...]) -> str:
    if command[0] != "worker":
        return command[0]
    return "stages" if command == STAGES else command[2].split(",")[0]


def _cpu(roles: dict[int, str]) -> dict[str, float]:
    """CPU seconds so far, by kind of process, of everything that runs under this process or is a server of its."""
    spent: dict[str, float] = {}
    for process in psutil.process_iter(["pid", "name", "cpu_times"]):
        with contextlib.suppress(psutil.Error):
            kind = {"postgres": "postgres", "beam.smp": "rabbitmq"}.get(process.info["name"])
            parents = [process, *process.parents()]
            kind = kind or next((roles[each.pid] for each in parents if each.pid in roles), None)
            if kind is None and process.pid == psutil.Process().pid:
                kind = "this process"
            if kind is not None:
                times = process.info["cpu_times"]
                spent[kind] = spent.get(kind, 0.0) + times.user + times.system
    return spent


def _spent(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {kind: seconds - before.get(kind, 0.0) for kind, seconds in sorted(after.items())}


def _corpus(process: Process, limits: dict[str, int], budget: int | None = None) -> corpora.Corpus:
    with process.database.transaction() as connection:
        return corpora.get_or_create(connection, "bench", limits, budget=budget)


def _total(process: Process, corpus: corpora.Corpus) -> int:
    with process.database.transaction() as connection:
        return tally.total(connection, corpus.id)


def _ready(settings: Settings, searchers: int) -> bool:
    """Whether all workers consume."""
    expected = {"ingest": 1, "search": searchers, "orthos": 1}
    try:
        with queues.connected(settings) as broker:
            depths = queues.depths(broker)
    except Unavailable:
        return False
    return all(depths[name].consumers >= number for name, number in expected.items())


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Servers]:
    """A RabbitMQ and a Redis."""
    with contextlib.ExitStack() as stack:
        servers = []
        for kind in (services.RabbitMQ, services.Redis):
            place = folder / kind.__name__
            place.mkdir()
            server = kind(place)
            stack.callback(server.kill)
            server.start()
            servers.append(server)
        rabbitmq, redis = servers
        assert isinstance(rabbitmq, services.RabbitMQ)
        assert isinstance(redis, services.Redis)
        yield Servers(rabbitmq, redis)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeat", type=int, default=3)
    repeat = options.parse_args().repeat
    written("distributed", lambda: report(repeat))


if __name__ == "__main__":
    main()
