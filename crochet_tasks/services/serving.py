"""Services in the foreground: set up, run until a signal comes, end in order.

Each exits with 0 when SIGTERM or Ctrl-C stops it, and logs `READY` when it is ready.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import threading
from typing import Any

from crochet_tasks import telemetry
from crochet_tasks.errors import NotOnLoopback, SettingMissing, WrongCall
from crochet_tasks.net import host_port, ip_address, is_loopback, listening
from crochet_tasks.services.setup import READY, begin, imported
from crochet_tasks.settings import Settings, forget
from crochet_tasks.telemetry import logs, metrics_endpoint

log = logging.getLogger(__name__)

GONE_SECONDS = 60
"""after which Flower removes a worker that sends no heartbeats"""


# ── worker and relay ────────────────────────────────────────────────────────────────────────────


def worker(queues: str | None, concurrency: int | None, autoscale: str | None, more: list[str]) -> int:
    """Run `celery worker` with these options and `more` of Celery's own; its exit status.

    Raises WrongCall for an unknown queue, and what `readiness.wait` does.
    """
    from crochet_tasks.broker.queues import WORK

    chosen = list(WORK) if queues is None else [name.strip() for name in queues.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in WORK]
    if unknown or not chosen:
        raise WrongCall(problem=f"there is no queue '{', '.join(unknown)}'; there are {', '.join(WORK)}")
    settings = Settings.load()
    logs("worker", settings)
    from crochet_tasks.services import worker as service
    from crochet_tasks.services.heartbeat import free_name

    name = free_name(settings, chosen[0] if len(chosen) == 1 or chosen[0] == "search" else "stages")
    size = f"--concurrency={concurrency or settings.concurrency}" if autoscale is None else f"--autoscale={autoscale}"
    # Workers need not know each other: no gossip, no mingle.
    own = ["--without-gossip", "--without-mingle", f"--queues={','.join(chosen)}", f"--hostname={name}@%h", size]
    return service.run([*own, *more])


def relay() -> None:
    """Run a relay until SIGTERM or SIGINT."""
    settings = Settings.load()
    begin("relay", settings)
    from crochet_tasks.services import heartbeat

    metrics_endpoint.start("relay", "relay", settings, functools.partial(heartbeat.answer, settings))
    from crochet_tasks import readiness
    from crochet_tasks.db.process import open_process
    from crochet_tasks.services.relay import Relay

    readiness.wait(settings, readiness.warn)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    assert settings.database_url is not None
    telemetry.begin("relay", settings)
    try:
        with open_process(settings, settings.database_url.get_secret_value()) as opened:
            _log_ready()
            imported()
            Relay(opened, stopped).run()
    finally:
        telemetry.end()


def _log_ready(**_: Any) -> None:
    log.info(READY)


# ── the API ─────────────────────────────────────────────────────────────────────────────────────


def api(host: str | None, port: int | None) -> None:
    """Serve the API until SIGTERM or SIGINT; requests in progress are answered.

    Raises what readiness.wait_for_database does, AuthOff, and InvalidSetting where nothing can listen on the address.
    """
    given = {name: value for name, value in (("api_host", host), ("api_port", port)) if value is not None}
    settings = Settings.load(**given)
    begin("api", settings, given)
    metrics_endpoint.start("api", "api", settings)
    from api import security, with_secret
    from crochet_tasks import readiness
    from crochet_tasks.services import http_server
    from web import create_app

    security.check(settings)
    settings = with_secret(settings)  # before the fork: what one process signs the others must know
    readiness.wait_for_database(settings, readiness.warn)
    # Every server process listens by itself (SO_REUSEPORT), and so could another service: this one finds out.
    listening(settings.api_host, settings.api_port, "CROCHET_API_PORT").close()
    shown = f"http://{host_port(settings.api_host, settings.api_port)}"
    address = ip_address(settings.api_host), settings.api_port
    http_server.serve(
        settings, address, lambda: create_app(settings), lambda: log.info(READY, extra={"address": shown})
    )


# ── Flower ──────────────────────────────────────────────────────────────────────────────────────


def check_flower(settings: Settings) -> None:
    """Raise SettingMissing or NotOnLoopback unless Flower is protected: its users can start and stop tasks."""
    if settings.broker_url is None:
        raise SettingMissing(variable="CROCHET_BROKER_URL", needed_for="Flower shows what goes through RabbitMQ")
    if settings.flower_auth is not None:
        return
    if settings.environment != "development":
        raise SettingMissing(
            variable="CROCHET_FLOWER_AUTH",
            needed_for="users of Flower can start tasks; only CROCHET_ENVIRONMENT=development goes without",
        )
    if not is_loopback(settings.flower_host):
        raise NotOnLoopback(variable="CROCHET_FLOWER_HOST", address=settings.flower_host)


def flower() -> int:
    """Run Flower until SIGTERM or SIGINT; its exit status. Raises what `check_flower` does, and InvalidSetting."""
    settings = Settings.load()
    check_flower(settings)
    host, port = settings.flower_host, settings.flower_port
    listening(host, port, "CROCHET_FLOWER_PORT").close()  # Flower itself would only raise an OSError
    begin("flower", settings)
    from flower.options import options  # type: ignore[import-untyped]
    from flower.views import BaseHandler  # type: ignore[import-untyped]
    from tornado.ioloop import IOLoop

    from crochet_tasks.app import app
    from crochet_tasks.broker.queues import WORK, dead

    # As options, so that Flower's own variables (FLOWER_TASKS_COLUMNS, ...) win.
    options.tasks_columns = "name,args,kwargs,state,received,runtime,worker"
    options.purge_offline_workers = GONE_SECONDS
    # All queues: by itself Flower shows those of the workers that ran when it started, and no dead letters.
    BaseHandler.get_active_queue_names = lambda _: [*WORK, *map(dead, WORK)]
    # Secrets are set here, and not by arguments, which `ps` shows; nor by Flower's own variables, because it
    # takes a login with a comma for two.
    if settings.flower_auth is not None:
        forget("FLOWER_BASIC_AUTH")
        options.basic_auth = [settings.flower_auth.get_secret_value()]
    if settings.broker_api_url is not None:
        forget("FLOWER_BROKER_API")
        options.broker_api = settings.broker_api_url.get_secret_value().rstrip("/") + "/"
    address = f"http://{host_port(host, port)}"
    IOLoop.current().add_callback(lambda: log.info(READY, extra={"address": address}))
    # Arguments win over variables and over a flowerconfig.py that lies about, which Flower would execute.
    arguments = [f"--address={host}", f"--port={port}", "--unix_socket=", "--persistent=false", f"--conf={os.devnull}"]
    return int(app.start(["--quiet", "flower", *arguments]) or 0)
