"""The page for one person: served on loopback over a store, with the whole pipeline beside it, in this one process."""

from __future__ import annotations

import contextlib
import logging
import secrets
import signal
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator

from pydantic import SecretStr
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from api.asgi import THREADS
from crochet_tasks import telemetry
from crochet_tasks.db import corpora, tally
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.embedded import pipeline, store
from crochet_tasks.errors import CrochetError, ProcessExhausted
from crochet_tasks.net import listening
from crochet_tasks.settings import SECRET_BYTES, Settings
from crochet_tasks.telemetry import correlation
from crochet_tasks.terminal.streams import note
from web import local

HOST = "127.0.0.1"
PAUSE_SECONDS, LONG_PAUSE_SECONDS = 0.3, 3.0
"""between two looks for open work; and where the work that is open cannot be done now"""


TURN_SECONDS = 10.0
"""for which a corpus is worked on at least while others wait; it ends behind a piece of work"""


def view(settings: Settings, port: int, show: Callable[[str], None], *, open_browser: bool) -> None:
    """Serve until SIGINT or SIGTERM; `show` is called with the address, which lets in once. `port` 0: any free one.

    Raises InvalidSetting where nothing can listen there, and what `store.opened` does.
    """
    logging.basicConfig(level=logging.ERROR, format="crochet: %(message)s")  # bugs, with their traceback
    stopped = threading.Event()
    settings = settings.model_copy(
        update={
            "api_auth": True,
            "api_proxies": 0,
            "api_origins": None,
            "redis_url": None,  # requests are counted in the store
            "jwt_secret": SecretStr(secrets.token_urlsafe(2 * SECRET_BYTES)),
        }
    )
    with (
        _stopping(stopped),
        telemetry.running("cli", settings),
        store.opened(settings, threads=pipeline.WORKERS + THREADS) as process,
    ):
        door = local.Door()
        app = local.create_app(settings, process, door)
        if port:
            listening(HOST, port, "--port").close()
        server = make_server(HOST, port, app, threaded=True, request_handler=_Quiet)
        with _serving(server):
            address = f"http://{HOST}:{server.server_port}/enter?token={door.token}"
            show(address)
            if open_browser:
                webbrowser.open(address)
            _work(process, stopped)


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - it is Werkzeug's
        """The application has an access log of its own."""


@contextlib.contextmanager
def _serving(server: BaseWSGIServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="server")
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def _stopping(stopped: threading.Event) -> Iterator[None]:
    """The first signal stops cleanly; a second one at once: what was begun is repeated by the next run."""

    def received(number: int, _frame: object) -> None:
        if stopped.is_set():
            raise SystemExit(128 + number)
        stopped.set()

    before = {number: signal.signal(number, received) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _work(process: Process, stopped: threading.Event) -> None:
    """Do what there is to do, until stopped: corpora take turns."""
    pause = PAUSE_SECONDS
    while not stopped.wait(pause):
        pause = PAUSE_SECONDS
        for corpus in _with_work(process):
            turn = _Turn(process, corpus, stopped)
            with correlation.command("crochet view"):
                if not _closed(process, corpus, turn.over) and not turn.given_up:
                    pause = LONG_PAUSE_SECONDS


class _Turn:
    """How long one corpus is worked on."""

    def __init__(self, process: Process, corpus: Corpus, stopped: threading.Event) -> None:
        self.given_up = False
        """another corpus had work, too"""
        self._process, self._corpus, self._stopped = process, corpus, stopped
        self._begun = False
        self._ends = time.monotonic() + TURN_SECONDS

    def over(self) -> bool:
        """Asked before each piece of work. The first one is always done."""
        if self._stopped.is_set():
            return True
        if not self._begun:
            self._begun = True
        elif not self.given_up and time.monotonic() >= self._ends:
            self.given_up = any(each.id != self._corpus.id for each in _with_work(self._process))
            self._ends = time.monotonic() + TURN_SECONDS
        return self.given_up


def _with_work(process: Process) -> list[Corpus]:
    with process.database.transaction() as connection:
        return [each for each in corpora.every(connection) if tally.any_open(connection, each.id)]


def _closed(process: Process, corpus: Corpus, stopped: Callable[[], bool]) -> bool:
    """Whether the corpus has no open work any more; what went wrong is in the store, or is said here."""
    try:
        pipeline.close(process, corpus, stopped=stopped)
    except ProcessExhausted:
        raise
    except CrochetError as error:
        note(f"{corpus.name}: {error} [{error.code}]")
        return False
    with process.database.transaction() as connection:
        return not tally.any_open(connection, corpus.id)
