"""Gunicorn in this process, in front of the API."""

from __future__ import annotations

import gc
import logging
import socket
import struct
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from crochet_tasks import telemetry
from crochet_tasks.services.gateway_shares import Shares
from crochet_tasks.services.gateway_worker import Worker
from crochet_tasks.settings import Settings

WORKERS, THREADS = 2, 8
TIMEOUT_SECONDS = 30
"""after which a worker that does not move is ended and replaced"""
KEEPALIVE_SECONDS = 15
SILENT_SECONDS = 10
"""that a thread waits for a client at the most, where it has to say something itself"""


def serve(listener: socket.socket, settings: Settings, ready: Callable[[], None]) -> None:
    """Answer until SIGTERM or SIGINT; raises SystemExit then. It ends within CROCHET_DRAIN.

    The listener is Gunicorn's from now on.
    """
    # Connections get it from their listener. Requests and answers wait elsewhere (gateway_flow.py): this is for what
    # Gunicorn writes by itself.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SILENT_SECONDS, 0))
    shares = Shares(4 * WORKERS)  # one that is ending may have its place still when its successor begins
    options = {
        "bind": [f"fd://{listener.detach()}"],
        "workers": WORKERS,
        "worker_class": Worker,
        "threads": THREADS,
        "timeout": TIMEOUT_SECONDS,
        "graceful_timeout": int(settings.drain * 0.8),
        "keepalive": KEEPALIVE_SECONDS,
        "sendfile": False,  # it would wait for the client
        "limit_request_line": 8190,
        "limit_request_field_size": 8190,
        "control_socket_disable": True,
        "logger_class": _Log,
        "pre_fork": lambda _, worker: shares.seat(worker),
        "child_exit": lambda _, worker: shares.left(worker),
        "when_ready": lambda _: _keep_what_is_there(),
        "post_worker_init": lambda worker: ready() if worker.age == 1 else None,
        "worker_exit": lambda _, worker: _close(worker),
        "proc_name": "crochet-api",
    }
    _Application(options, settings).run()


def _keep_what_is_there() -> None:
    """What was imported is never garbage: so it is not looked through, and the workers share it."""
    gc.freeze()
    gc.enable()


def _close(worker: Worker) -> None:
    """In a process that ends; one that did not even begin has no application."""
    from api import process

    try:
        if isinstance(worker.wsgi, Flask):
            process.close(worker.wsgi)
    finally:
        telemetry.end()


class _Application(BaseApplication):  # type: ignore[misc]
    """The API. It is made in each worker, after the fork: what it opens belongs to one process."""

    def __init__(self, options: dict[str, Any], settings: Settings) -> None:
        self._options, self._settings = options, settings
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        from api import create_app

        telemetry.begin("api", self._settings)
        return create_app(self._settings)


class _Log(Logger):  # type: ignore[misc]
    """Gunicorn's messages go where ours go."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(logging.INFO)
