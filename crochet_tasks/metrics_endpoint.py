"""A service's exporter: a small process of its own that answers Prometheus and reports to an OTLP address.

It is forked before the service has threads, locks or connections, reads what the service's processes have recorded
into files in memory (metrics.py), and ends with the service. So nothing that scrapes or collects can hold up the
service, no thread of ours is there when a worker forks, and what a process counted before it was killed is kept:
one record, two ways out.
"""

from __future__ import annotations

import contextlib
import fcntl
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
    from crochet_tasks.metrics_otlp import Push
    from crochet_tasks.metrics_reading import Reading

log = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
"""that a scraper may take to send its request or take the answer"""
PUSH_SECONDS = 3.0
"""that the OTLP address may take"""
IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a private folder is made in it
"""where to write to a mapped file costs no disk anything; where there is none, the temporary folder has to do"""
FOLDER = "crochet-metrics-"
"""how the folder's name begins; the service's pid comes next"""


def start(kind: str, service: str, settings: Settings) -> None:
    """Record metrics from now on and have them exported, where the settings ask for it.

    To be called while this process has one thread. `kind`: of metrics.ALL; `service`: its name. Raises InvalidSetting
    where nothing can listen on CROCHET_METRICS_PORT. Where anything else fails, the service has no metrics.
    """
    if settings.metrics_port is None and settings.otlp_url is None:
        return
    from crochet_tasks.serving import listening, shown

    with contextlib.ExitStack() as failed:
        listener = None
        if settings.metrics_port is not None:
            listener = listening(settings.metrics_host, settings.metrics_port, "CROCHET_METRICS_PORT")
            failed.callback(listener.close)
        try:
            folder = _folder()
            failed.callback(shutil.rmtree, folder, ignore_errors=True)
            _export(folder, listener, kind, service, settings)
        except OSError as error:  # no room, no right to, no process
            log.warning("metrics_not_recorded", extra={"error": str(error)})
            return
        failed.pop_all()
    if listener is not None:
        listener.close()
        address = shown(settings.metrics_host, settings.metrics_port or 0)
        log.info("metrics_served", extra={"address": f"http://{address}/metrics"})
    from crochet_tasks import metrics  # noqa: F401 - it declares what is to begin; the API has not imported it yet

    instruments.begin(folder, kind)


def _folder() -> Path:
    """A new one, locked for as long as a process of this service lives; those of killed services are taken away."""
    place = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    _sweep(place)
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-", dir=place))
    _locked(folder)  # never closed: each process that is forked has it, too, and the last one that ends unlocks it
    return folder


def _sweep(place: Path) -> None:
    """Take away our user's folders whose processes have all ended; a pid alone says little across containers."""
    for folder in place.glob(f"{FOLDER}*"):
        pid = folder.name.removeprefix(FOLDER).partition("-")[0]
        with contextlib.suppress(OSError):
            if not pid.isdecimal() or folder.lstat().st_uid != os.getuid() or Path(f"/proc/{pid}").exists():
                continue
            lock = _locked(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _locked(folder: Path) -> int:
    """Raises OSError where somebody else has it locked."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def _export(folder: Path, listener: socket.socket | None, kind: str, service: str, settings: Settings) -> None:
    """Fork the exporter."""
    parent = os.getpid()
    handle = os.pidfd_open(parent)
    try:
        pid = os.fork()
    except OSError:
        os.close(handle)
        raise
    if pid != 0:
        os.close(handle)
        return
    status = 1
    try:
        try:
            _detach()
            from crochet_tasks.metrics_reading import Reading

            _Exporter(handle, settings, Reading(folder, parent, service, settings.state_dir)).run(listener, kind)
            status = 0
        except Exception:
            log.exception("metrics_exporter_failed")
            if listener is not None:
                listener.close()
            select.select([handle], [], [])  # the service still writes into the folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(status)


def _detach() -> None:
    """Nothing but the end of the service ends the exporter."""
    os.setsid()  # signals from a terminal are for the service
    _outlive_parent()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class _Exporter:
    def __init__(self, handle: int, settings: Settings, reading: Reading) -> None:
        self._handle, self._settings, self._reading = handle, settings, reading

    def run(self, listener: socket.socket | None, kind: str) -> None:
        """Until the service's process has ended, however that was."""
        server = _served(listener, self._reading) if listener is not None else None
        if server is not None:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            push = self._push(kind)
            self._wait(push)
        finally:
            if server is not None:
                _close(server)  # the next service may want the port before a slow collector has answered
        if push is not None:
            push.send(ended=True)

    def _wait(self, push: Push | None) -> None:
        waiter = select.poll()
        waiter.register(self._handle, select.POLLIN)
        every = self._settings.metrics_every if push is not None else None
        due = time.monotonic() + (every or 0.0)
        while not waiter.poll(None if every is None else max(0.0, due - time.monotonic()) * 1000):
            due = time.monotonic() + (every or 0.0)
            if push is not None:
                push.send()

    def _push(self, kind: str) -> Push | None:
        """None also where the library cannot do what OpenTelemetry's own variables ask for."""
        if self._settings.otlp_url is None:
            return None
        try:
            from crochet_tasks.metrics_otlp import Push

            return Push(self._settings.otlp_url.get_secret_value(), kind, self._reading, PUSH_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever it raises, Prometheus is answered
            log.warning("metrics_not_sent", extra={"error": f"{type(error).__name__}: {error}"})
            return None


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


def _close(server: ThreadingHTTPServer) -> None:
    """Give the port back."""
    with contextlib.suppress(OSError):
        server.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it
    server.shutdown()
    server.server_close()
