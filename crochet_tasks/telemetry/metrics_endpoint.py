"""A service's exporter: a small process of its own that answers Prometheus and reports to an OTLP address.

It reads what the service's processes have recorded into files in memory (metrics.py), and ends with the service. So
nothing that scrapes or collects can hold up the service, and what a process counted before it was killed is kept: one
record, two ways out.

    service ── keeper ── exporter

The keeper is forked before the service has threads, locks or connections, and has none itself: so it can fork another
exporter whenever one dies, and no thread of ours is there when a worker forks.
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
from typing import TYPE_CHECKING, NoReturn

from crochet_tasks.errors import InvalidSetting
from crochet_tasks.net import host_port, listening
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import instruments

if TYPE_CHECKING:
    from crochet_tasks.telemetry.metrics_otlp import Push
    from crochet_tasks.telemetry.metrics_reading import Reading

log = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
"""that a scraper may take to send its request or take the answer"""
PUSH_SECONDS = 3.0
"""that the OTLP address may take"""
IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a private folder is made in it
"""where to write to a mapped file costs no disk anything; where there is none, the temporary folder has to do"""
FOLDER = "crochet-metrics-"
"""how the folder's name begins; the service's pid comes next"""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 60.0
"""before another exporter is started: the first, and after some that did not live long"""


def start(kind: str, service: str, settings: Settings) -> None:
    """Record metrics from now on and have them exported, where the settings ask for it.

    To be called while this process has one thread. `kind`: of metrics.ALL; `service`: its name. Raises InvalidSetting
    where nothing can listen on CROCHET_METRICS_PORT. Where anything else fails, the service has no metrics.
    """
    if settings.metrics_port is None and settings.otlp_url is None:
        return
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
        address = host_port(settings.metrics_host, settings.metrics_port or 0)
        log.info("metrics_served", extra={"address": f"http://{address}/metrics"})
    from crochet_tasks.telemetry import metrics  # noqa: F401 - it declares what is to begin; the API has not imported it yet

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
    """Fork the keeper."""
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
    try:
        try:
            _detach()
            _Keeper(_Exporter(handle, folder, parent, kind, service, settings)).run(listener)
        except Exception:
            log.exception("metrics_exporter_failed")
            select.select([handle], [], [])  # the service still writes into the folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)


def _detach() -> None:
    """Nothing but the end of the service ends the keeper or the exporter."""
    os.setsid()  # signals from a terminal are for the service
    _outlive_parent()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class _Keeper:
    """Has one exporter as long as the service's process lives."""

    def __init__(self, exporter: _Exporter) -> None:
        self._exporter = exporter

    def run(self, listener: socket.socket | None) -> None:
        """Start one, and another whenever it has died, after a pause; return when the service has ended, and it too."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            began = time.monotonic()
            died = self._one(listener)
            if self._exporter.service_ended(0.0):
                return
            log.warning("metrics_exporter_died", extra={"error": died, "pause": pause})
            if self._exporter.service_ended(pause):
                return
            pause = _next(pause, time.monotonic() - began)
            listener = None

    def _one(self, listener: socket.socket | None) -> str:
        """Start one and wait for its end; how it ended."""
        with contextlib.ExitStack() as stack:
            try:
                listener = listener or self._exporter.listening()
                if listener is not None:
                    stack.enter_context(listener)
                pid = os.fork()
            except (OSError, InvalidSetting) as error:  # no process; somebody else has the port by now
                return str(error)
            if pid == 0:
                self._exporter.become(listener)
        return f"status {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}"


def _next(pause: float, lived: float) -> float:
    """The pause after this one, where an exporter lived for so long, its pause counted."""
    return FIRST_PAUSE_SECONDS if lived > 2 * LONGEST_PAUSE_SECONDS else min(2 * pause, LONGEST_PAUSE_SECONDS)


class _Exporter:
    """Made in the keeper; what it has of its own it gets in its process."""

    def __init__(self, handle: int, folder: Path, parent: int, kind: str, service: str, settings: Settings) -> None:
        self._handle, self._folder, self._parent = handle, folder, parent
        self._kind, self._service, self._settings = kind, service, settings
        self._began = time.time_ns()

    def service_ended(self, seconds: float | None) -> bool:
        """Whether it has, or does within so many seconds; for ever where that is None."""
        waiter = select.poll()
        waiter.register(self._handle, select.POLLIN)
        return bool(waiter.poll(None if seconds is None else seconds * 1000))

    def listening(self) -> socket.socket | None:
        """As the first one has it from the service. Raises InvalidSetting."""
        settings = self._settings
        if settings.metrics_port is None:
            return None
        return listening(settings.metrics_host, settings.metrics_port, "CROCHET_METRICS_PORT")

    def become(self, listener: socket.socket | None) -> NoReturn:
        """Be the exporter, in a process just forked."""
        status = 1
        try:
            _detach()
            from crochet_tasks.telemetry.metrics_reading import Reading

            self._run(listener, Reading(self._folder, self._parent, self._service, self._settings.state_dir))
            shutil.rmtree(self._folder, ignore_errors=True)  # the keeper may have been killed
            status = 0
        except Exception:
            log.exception("metrics_exporter_failed")
        finally:
            os._exit(status)

    def _run(self, listener: socket.socket | None, reading: Reading) -> None:
        """Until the service's process has ended, however that was."""
        server = _served(listener, reading) if listener is not None else None
        if server is not None:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            push = self._push(reading)
            self._wait(push)
        finally:
            if server is not None:
                _close(server)  # the next service may want the port before a slow collector has answered
        if push is not None:
            push.send(ended=True)

    def _wait(self, push: Push | None) -> None:
        every = self._settings.metrics_every if push is not None else None
        due = time.monotonic() + (every or 0.0)
        while not self.service_ended(None if every is None else max(0.0, due - time.monotonic())):
            due = time.monotonic() + (every or 0.0)
            if push is not None:
                push.send()

    def _push(self, reading: Reading) -> Push | None:
        """None also where the library cannot do what OpenTelemetry's own variables ask for."""
        if self._settings.otlp_url is None:
            return None
        try:
            from crochet_tasks.telemetry.metrics_otlp import Push

            url = self._settings.otlp_url.get_secret_value()
            return Push(url, self._kind, reading, PUSH_SECONDS, self._began)
        except Exception as error:  # noqa: BLE001 - whatever it raises, Prometheus is answered
            log.warning("metrics_not_sent", extra={"error": f"{type(error).__name__}: {error}"})
            return None


def _outlive_parent() -> None:
    """Not be killed at once when the service is: see services/supervisor.py. What is left is to be taken away."""
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
            log.debug("asked", extra={"line": format % args})

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = listener.family

        def handle_error(self, *_: object) -> None:
            log.debug("scraper_gone", extra={"error": str(sys.exc_info()[1])})

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
