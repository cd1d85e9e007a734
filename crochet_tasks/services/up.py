"""`crochet up`: everything but RabbitMQ and Redis on one machine, in the foreground.

    database     the one of CROCHET_DATABASE_URL, or the private one of the state folder; brought up to date
    services     each a child process (up_services): relay, three workers, API, Flower
    log          one, on standard error (up_log)

It ends in the reverse order: workers, then the others, the database last.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple

from pydantic import SecretStr

from crochet_tasks import startup
from crochet_tasks.db import schema
from crochet_tasks.db.sessions import Database
from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.errors import ServerFailed, SettingMissing, UsageError
from crochet_tasks.net import host_port
from crochet_tasks.retry import wait_for
from crochet_tasks.services import serving
from crochet_tasks.services.up_log import Log
from crochet_tasks.services.up_services import Crew, GaveUp, Pauses, Service, Stop
from crochet_tasks.settings import Settings, environment
from crochet_tasks.terminal import drawing

LOOK_SECONDS = 1.0
"""how often it is seen to that the private server runs"""


class Wanted(NamedTuple):
    """What is to run. `search`: processes that search, None: one for each core."""

    search: int | None
    api: bool
    flower: bool


def up(settings: Settings, wanted: Wanted) -> int:
    """Run everything until SIGTERM or SIGINT; the exit status.

    Raises, besides what startup.check does, what the private server and its folder have to say.
    """
    if "environment" not in settings.model_fields_set:
        settings = settings.model_copy(update={"environment": "development"})
    if settings.broker_url is None:
        raise SettingMissing(
            variable="CROCHET_BROKER_URL",
            needed_for="the services talk through RabbitMQ; without it 'crochet run' does everything in one process",
        )
    no_flower = _flower_problem(settings) if wanted.flower else None
    services = _with_metrics(_services(wanted._replace(flower=wanted.flower and no_flower is None)), settings)
    colour = drawing.console(stderr=True).color_system is not None
    log = Log(sys.stderr.buffer, [service.name for service in services], colour=colour)
    if no_flower is not None:
        log.say(f"without Flower: {no_flower}")
    stop = Stop()
    stop.watch()
    with _database(settings, log) as (url, server):
        settings = settings.model_copy(update={"database_url": SecretStr(url)})
        startup.check(settings, log.say)
        crew = Crew(services, _environment(settings), log, settings.drain)
        beside = [] if server is None else [_kept(server, settings, log)]
        try:
            asyncio.run(_run(crew, stop, lambda: log.say(_ready(settings, services, url, server)), beside))
        except GaveUp as failed:
            words = failed.words or f"exit code {failed.status} [unavailable]"
            log.say("everything has ended")
            sys.stderr.write(f"crochet: {failed.service} does not start: {words}\n")
            return failed.status
    log.say("everything has ended")
    return 128 + (stop.number or 0)


async def _run(crew: Crew, stop: Stop, ready: Callable[[], None], beside: Sequence[Awaitable[None]]) -> None:
    stop.listen()
    await crew.run(stop, ready, beside)


# ── what runs ───────────────────────────────────────────────────────────────────────────────────


def _services(wanted: Wanted) -> list[Service]:
    search = str(wanted.search or len(os.sched_getaffinity(0)))
    services = [
        Service("relay", ("relay",), ends_last=True),
        Service("stages", ("worker", "--queues", "ingest,context,remediations,maintenance")),
        Service("search", ("worker", "--queues", "search", "--concurrency", search)),
        Service("orthos", ("worker", "--queues", "orthos")),
    ]
    if wanted.api:
        services.append(Service("api", ("api",), ends_last=True))
    if wanted.flower:
        services.append(Service("flower", ("flower",), ends_last=True))
    return services


def _with_metrics(services: list[Service], settings: Settings) -> list[Service]:
    """Each but Flower, which has metrics of its own, with a port for Prometheus: the first one's is the setting."""
    if settings.metrics_port is None:
        return services
    ports = itertools.count(settings.metrics_port)
    return [
        service if service.name == "flower" else service._replace(variables=((METRICS_PORT, str(next(ports))),))
        for service in services
    ]


METRICS_PORT = "CROCHET_METRICS_PORT"


def _flower_problem(settings: Settings) -> UsageError | None:
    try:
        serving.check_flower(settings)
    except UsageError as problem:
        return problem
    return None


def _environment(settings: Settings) -> dict[str, str]:
    assert settings.database_url is not None
    return environment(
        CROCHET_ENVIRONMENT=settings.environment, CROCHET_DATABASE_URL=settings.database_url.get_secret_value()
    )


def _ready(settings: Settings, services: list[Service], url: str, server: EmbeddedPostgres | None) -> str:
    names = {service.name for service in services}
    there = []
    if "api" in names:
        there.append(f"API at http://{host_port(settings.api_host, settings.api_port)}")
    if "flower" in names:
        there.append(f"Flower at http://{host_port(settings.flower_host, settings.flower_port)}")
    ports = [f"{service.name} {dict(service.variables)[METRICS_PORT]}" for service in services if service.variables]
    if ports:
        there.append(f"metrics at {settings.metrics_host}: {', '.join(ports)}")
    if server is not None:  # its address holds no password
        there.append(f"for other commands: export CROCHET_DATABASE_URL='{url}'")
    return "; ".join(["everything is ready", *there, "Ctrl-C stops it"])


# ── the database ────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _database(settings: Settings, log: Log) -> Iterator[tuple[str, EmbeddedPostgres | None]]:
    """The address of the database, which has our schema; and the private server, if it is in that."""
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        _migrate(url, settings, log)
        yield url, None
        return
    log.say(f"starting the private Postgres in {settings.state_dir.absolute()}")
    with EmbeddedPostgres(settings.state_dir) as server:
        _migrate(server.url, settings, log)
        yield server.url, server


def _migrate(url: str, settings: Settings, log: Log) -> None:
    database = Database(url, settings)

    def step() -> None:
        before, after = schema.migrate(database)
        if before != after:
            log.say(f"the schema of the database is migrated: {before or 'none'} -> {after}")

    try:
        wait_for(step, settings.startup_wait, log.say)
    finally:
        database.close()


async def _kept(server: EmbeddedPostgres, settings: Settings, log: Log) -> None:
    """Start the private server again when it dies; raises ServerFailed when it cannot be where it was."""
    pauses, url, began = Pauses(), server.url, time.monotonic()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if server.pid is not None:
            continue
        pause = pauses.after(time.monotonic() - began)
        log.say(f"the private Postgres has died; it is started again in {pause:g} s")
        await asyncio.sleep(pause)
        began = time.monotonic()
        if await asyncio.to_thread(server.start) != url:
            raise ServerFailed(reason="its address has changed", log=settings.state_dir / "postgres" / "server.log")
