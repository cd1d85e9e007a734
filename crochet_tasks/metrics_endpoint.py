"""A service's exporter: a small process of its own that answers Prometheus and reports to an OTLP address.

It is forked before the service has threads, locks or connections, reads what the service's processes have recorded
into files in memory (metrics.py), and ends with the service. So nothing that scrapes or collects can hold up the
service, no thread of ours is there when a worker forks, and what a process counted before it was killed is kept:
one record, two ways out.
"""

from __future__ import annotations

import logging
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from crochet_tasks import instruments
from crochet_tasks.settings import Settings

if TYPE_CHECKING:
    from crochet_tasks.metrics_reading import Reading

log = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
"""that a scraper may take to send its request or take the answer"""
PUSH_SECONDS = 3.0
"""that the OTLP address may take"""
IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a private folder is made in it
"""A full disk kills who writes to a mapped file on it; elsewhere the temporary folder has to do."""


def start(kind: str, service: str, settings: Settings) -> None:
    """Record metrics from now on and have them exported, where the settings ask for it.

    To be called while this process has one thread. `kind`: of metrics.ALL; `service`: its name. Raises InvalidSetting
    where nothing can listen on CROCHET_METRICS_PORT.
    """
    if settings.metrics_port is None and settings.otlp_url is None:
        return
    from crochet_tasks.serving import listening, shown

    listener = None
    if settings.metrics_port is not None:
        listener = listening(settings.metrics_host, settings.metrics_port, "CROCHET_METRICS_PORT")
    memory = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix=f"crochet-metrics-{os.getpid()}-", dir=memory))
    parent = os.getpid()
    handle = os.pidfd_open(parent)
    if os.fork() == 0:
        status = 1
        try:
            from crochet_tasks.metrics_reading import Reading

            _Exporter(handle, settings, Reading(folder, parent, service, settings.state_dir)).run(listener, kind)
            status = 0
        except BaseException:
            log.exception("metrics_exporter_failed")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(status)
    os.close(handle)
    if listener is not None:
        listener.close()
        address = shown(settings.metrics_host, settings.metrics_port or 0)
        log.info("metrics_served", extra={"address": f"http://{address}/metrics"})
    from crochet_tasks import metrics  # noqa: F401 - it declares what is to begin; the API has not imported it yet

    instruments.begin(folder, kind)


class _Exporter:
    def __init__(self, handle: int, settings: Settings, reading: Reading) -> None:
        self._handle, self._settings, self._reading = handle, settings, reading

    def run(self, listener: socket.socket | None, kind: str) -> None:
        """Until the service's process has ended, however that was."""
        os.setsid()  # signals from a terminal are for the service
        _outlive_parent()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        if listener is not None:
            threading.Thread(target=_served(listener, self._reading).serve_forever, daemon=True).start()
        push = None
        if self._settings.otlp_url is not None:
            from crochet_tasks.metrics_otlp import Push

            push = Push(self._settings.otlp_url.get_secret_value(), kind, self._reading, PUSH_SECONDS)
        waiter = select.poll()
        waiter.register(self._handle, select.POLLIN)
        every = self._settings.metrics_every if push is not None else None
        due = time.monotonic() + (every or 0.0)
        while not waiter.poll(None if every is None else max(0.0, due - time.monotonic()) * 1000):
            due = time.monotonic() + (every or 0.0)
            if push is not None:
                push.send()
        if push is not None:
            push.send(ended=True)


def _outlive_parent() -> None:
    """Not be killed at once when the service is: see up_child.py. What is left is to be taken away."""
    import ctypes

    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)


def _served(listener: socket.socket, reading: Reading) -> ThreadingHTTPServer:
    from prometheus_client.exposition import choose_encoder

    class Handler(BaseHTTPRequestHandler):
        timeout = ANSWER_SECONDS

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404)
                return
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            body = encode(reading)
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            log.debug(format, *args)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = listener.family

        def handle_error(self, *_: object) -> None:
            log.debug("a scraper went away: %s", sys.exc_info()[1])

    server = Server(listener.getsockname()[:2], Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    return server
