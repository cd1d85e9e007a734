"""Gunicorn in this process, in front of the API."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]

WORKERS, THREADS = 2, 8
TIMEOUT_SECONDS = 30
"""after which a worker that does not move is ended and replaced"""


def serve(listener: socket.socket, drain: float, ready: Callable[[], None]) -> None:
    """Answer until SIGTERM or SIGINT; raises SystemExit then. `drain` as in the settings: it ends within that.

    The listener is Gunicorn's from now on.
    """
    options = {
        "bind": [f"fd://{listener.detach()}"],
        "workers": WORKERS,
        "worker_class": "gthread",
        "threads": THREADS,
        "timeout": TIMEOUT_SECONDS,
        "graceful_timeout": int(drain * 0.8),
        "control_socket_disable": True,
        "logger_class": _Log,
        "post_worker_init": lambda worker: ready() if worker.age == 1 else None,
        "proc_name": "crochet-api",
    }
    _Application(options).run()


class _Application(BaseApplication):  # type: ignore[misc]
    """The API. It is made in each worker, after the fork: what it opens belongs to one process."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        from api import create_app

        return create_app()


class _Log(Logger):  # type: ignore[misc]
    """Gunicorn's messages go where ours go."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(logging.INFO)
