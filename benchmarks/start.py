"""The CPU time that each kind of process takes until it is ready: `make bench-start`.

Beside it the least that it can be: of a Python that imports the packages which such a process cannot do without, and
does nothing else. All in turns. The seconds depend on the speed of the machine, their ratio hardly. Nothing is asserted
here.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.closure import machine, written
from benchmarks.distributed import running
from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.embedded.store import opened
from crochet_tasks.settings import Settings
from tests.support.cluster import Cluster, cluster
from tests.support.commands import PYTHON, RELAY, SEARCH, STAGES, STORE
from tests.support.server import take_port

GOAL = 1.0
"""CPU seconds"""
KINDS = {"api": ("api",), "relay": RELAY, "worker, stages": STAGES, "worker, search": SEARCH, "worker, orthos": STORE}
NEEDED = {
    "api": "sqlalchemy.dialects.postgresql.psycopg, psycopg, pydantic, flask, kombu, redis, numpy",
    "worker": "sqlalchemy.dialects.postgresql.psycopg, psycopg, pydantic, celery.bin.celery, celery.worker.consumer, "
    "celery.concurrency.prefork, kombu.transport.pyamqp, redis, numpy",
}
NEEDED["relay"] = NEEDED["worker"]
"""packages that a process imports before it can do anything"""


def report(repeat: int) -> Iterator[str]:
    yield from machine("CPU time until ready")
    yield f"Median of {repeat}, in turns; of a process with its children, until the first of them is ready."
    yield f"Goal: less than {GOAL:.0f} s."
    yield ""
    spent: dict[str, list[float]] = {kind: [] for kind in KINDS}
    floor: dict[str, list[float]] = {kind: [] for kind in NEEDED}
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as servers:
        state = Path(folder) / "state"
        with opened(Settings(state_dir=state)):
            pass
        with (
            EmbeddedPostgres(state) as server,
            cluster(
                Path(folder),
                CROCHET_DATABASE_URL=server.url,
                CROCHET_BROKER_URL=servers.rabbitmq.new_vhost(),
                CROCHET_REDIS_URL=servers.redis.url,
                CROCHET_API_PORT=str(take_port()),
            ) as deployment,
        ):
            for _ in range(repeat + 1):
                for kind, command in KINDS.items():
                    spent[kind].append(_until_ready(deployment, command))
                for kind, packages in NEEDED.items():
                    floor[kind].append(_importing(packages))
    yield "| process | CPU seconds | importing packages it needs | ratio |"
    yield "|---|---|---|---|"
    for kind in KINDS:
        least = statistics.median(floor[kind.split(",")[0]][1:])  # the first one fills caches
        whole = statistics.median(spent[kind][1:])
        yield f"| {kind} | **{whole:.2f}** | {least:.2f} | {whole / least:.2f} |"
    yield ""


def _until_ready(deployment: Cluster, command: tuple[str, ...]) -> float:
    name = deployment.start(*command)
    process = deployment.processes[name]
    while not deployment.ready(name):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.005)
    root = psutil.Process(process.pid)
    taken = 0.0
    for each in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            taken += times.user + times.system
    times = root.cpu_times()
    deployment.kill(name)
    return taken + times.children_user + times.children_system


def _importing(packages: str) -> float:
    program = f"import time, {packages}; print(time.process_time())"
    done = subprocess.run([PYTHON[0], "-c", program], check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeat", type=int, default=9)
    repeat = options.parse_args().repeat
    written("start", lambda: report(repeat))


if __name__ == "__main__":
    main()
