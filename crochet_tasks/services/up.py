"""`crochet up`: everything but RabbitMQ and Redis on one machine, in the foreground.

    database     the one of CROCHET_DATABASE_URL, or the private one of the state folder; brought up to date
    services     each a child process (supervisor.py): relay, three workers, API, Flower
    log          one, on standard error

It ends in the reverse order: workers, then the others, the database last.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from pydantic import SecretStr

from crochet_tasks import readiness
from crochet_tasks.db import schema
from crochet_tasks.db.sessions import Database
from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.errors import ServerFailed, SettingMissing, UsageError
from crochet_tasks.net import host_port
from crochet_tasks.retry import wait_for
from crochet_tasks.services import serving
from crochet_tasks.services.setup import READY
from crochet_tasks.services.supervisor import Log, Restarts, Service, StartFailed, Supervisor
from crochet_tasks.settings import Settings, environment
from crochet_tasks.terminal import drawing
from crochet_tasks.terminal.streams import note

METRICS_PORT = "CROCHET_METRICS_PORT"
SEARCH_NICE = 10
"""Searches use every core for hours; the API answers and the stages go on beside them. Why: docs/adr/0078."""


class Options(NamedTuple):
    """What is to run. `search`: processes that search, None: one for each core."""

    search: int | None
    api: bool
    flower: bool


def up(settings: Settings, options: Options) -> int:
    """Run everything until SIGTERM or SIGINT; the exit status.

    Raises, in addition to what readiness.wait does, the errors of the private server and its folder.
    """
    if "environment" not in settings.model_fields_set:
        settings = settings.model_copy(update={"environment": "development"})
    if settings.broker_url is None:
        raise SettingMissing(
            variable="CROCHET_BROKER_URL",
            needed_for="the services talk through RabbitMQ; without it 'crochet run' does everything in one process",
        )
    no_flower = _flower_problem(settings) if options.flower else None
    services = with_metrics(services_of(options._replace(flower=options.flower and no_flower is None)), settings)
    colour = drawing.console(stderr=True).color_system is not None
    log = Log(sys.stderr.buffer, [service.name for service in services], colour=colour)
    if no_flower is not None:
        log.note(f"without Flower: {no_flower}")
    for warning in settings.warnings():
        log.note(f"settings: {warning}")
    supervisor = Supervisor(log, settings.drain, READY)
    with _database(settings, log) as (url, server):
        settings = settings.model_copy(update={"database_url": SecretStr(url)})
        log.note("checking the database and RabbitMQ")
        readiness.wait(settings, log.note)
        keep = None if server is None else _PrivateServer(server, settings, log)
        variables = environment(CROCHET_ENVIRONMENT=settings.environment, CROCHET_DATABASE_URL=url)
        ready = ready_lines(settings, services, None if server is None else url)
        try:
            supervisor.run(services, variables, lambda: log.note("; ".join(ready)), keep or (lambda: None))
        except StartFailed as failed:
            message = failed.message or f"exit code {failed.status} [unavailable]"
            log.note("everything has ended")
            note(f"{failed.service} does not start: {message}")
            return failed.status
    log.note("everything has ended")
    return 128 + supervisor.signals[0]


# ── what runs ───────────────────────────────────────────────────────────────────────────────────


def services_of(options: Options) -> list[Service]:
    search = str(options.search or len(os.sched_getaffinity(0)))
    services = [
        Service("relay", ("relay",), ends_last=True),
        Service("stages", ("worker", "--queues", "ingest,context,remediations,maintenance")),
        Service("search", ("worker", "--queues", "search,best", "--concurrency", search), nice=SEARCH_NICE),
        Service("orthos", ("worker", "--queues", "orthos")),
    ]
    if options.api:
        services.append(Service("api", ("api",), ends_last=True))
    if options.flower:
        services.append(Service("flower", ("flower",), ends_last=True))
    return services


def with_metrics(services: list[Service], settings: Settings) -> list[Service]:
    """Each but Flower, which has metrics of its own, with a port for Prometheus: the first one's is the setting."""
    if settings.metrics_port is None:
        return services
    ports = itertools.count(settings.metrics_port)
    return [
        service if service.name == "flower" else service._replace(variables=((METRICS_PORT, str(next(ports))),))
        for service in services
    ]


def _flower_problem(settings: Settings) -> UsageError | None:
    try:
        serving.check_flower(settings)
    except UsageError as problem:
        return problem
    return None


def ready_lines(settings: Settings, services: list[Service], private: str | None) -> list[str]:
    """Return the addresses of all services; `private`: that of the private database, which has no password."""
    names = {service.name for service in services}
    lines = ["everything is ready"]
    if "api" in names:
        key = "'crochet keys create NAME --scope write' makes the key it needs"
        lines.append(f"API at http://{host_port(settings.api_host, settings.api_port)}")
        lines.append(key if settings.api_auth else "it needs no key (CROCHET_API_AUTH=off)")
    if "flower" in names:
        lines.append(f"Flower at http://{host_port(settings.flower_host, settings.flower_port)}")
        lines += ["it asks for the login of CROCHET_FLOWER_AUTH"] * (settings.flower_auth is not None)
        if settings.broker_api_url is None:
            lines.append("CROCHET_BROKER_API_URL lets it show the lengths of queues")
    ports = [f"{service.name} {dict(service.variables)[METRICS_PORT]}" for service in services if service.variables]
    if ports:
        lines.append(f"metrics at {settings.metrics_host}: {', '.join(ports)}")
    if private is not None:
        lines.append(f"for other commands: export CROCHET_DATABASE_URL='{private}'")
    return [*lines, "Ctrl-C stops it"]


# ── the database ────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _database(settings: Settings, log: Log) -> Iterator[tuple[str, EmbeddedPostgres | None]]:
    """The address of the database, migrated; and the private server, if it is in that."""
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        log.note("bringing the schema of the database up to date")
        _migrate(url, settings, log)
        yield url, None
        return
    log.note(f"starting the private Postgres in {settings.state_dir.absolute()}")
    with EmbeddedPostgres(settings.state_dir) as server:
        _migrate(server.url, settings, log)
        yield server.url, server


def _migrate(url: str, settings: Settings, log: Log) -> None:
    database = Database(url, settings)

    def step() -> None:
        before, after = schema.migrate(database)
        if before != after:
            log.note(f"the schema of the database is migrated: {before or 'none'} -> {after}")

    try:
        wait_for(step, settings.startup_wait, log.note)
    finally:
        database.close()


class _PrivateServer:
    """Starts the private server again when it has died; called every second."""

    def __init__(self, server: EmbeddedPostgres, settings: Settings, log: Log) -> None:
        self._server, self._log = server, log
        self._errors = settings.state_dir / "postgres" / "server.log"
        self._url, self._restarts = server.url, Restarts()
        self._began, self._restart_at = time.monotonic(), 0.0

    def __call__(self) -> None:
        """Raises ServerFailed when it cannot start at the same address."""
        now = time.monotonic()
        if self._server.pid is not None:
            self._restart_at = 0.0
        elif not self._restart_at:
            pause = self._restarts.pause(now - self._began)
            self._log.note(f"the private Postgres has died; it is started again in {pause:.1f} s")
            self._restart_at = now + pause
        elif now >= self._restart_at:
            self._began, self._restart_at = now, 0.0
            if self._server.start() != self._url:
                raise ServerFailed(reason="its address has changed", log=self._errors)
