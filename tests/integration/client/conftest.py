"""Fixtures: an API behind a real server, for the client and the commands."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from werkzeug.serving import make_server

from crochet_tasks.client import Client
from crochet_tasks.db import corpora
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.api import SETTINGS, made


class Served(NamedTuple):
    """An API with the corpus `whole`, in which all of steps.TEXTS are searched; what needs `admin` must be signed."""

    url: str
    process: Process
    keys: dict[str, str]

    def client(self, scope: str = "admin", *, sign: bool = True) -> Client:
        return Client(self.url, self.keys[scope], sign=sign)

    def corpus(self, name: str) -> Corpus:
        with self.process.database.transaction() as connection:
            return corpora.named(connection, name)


@pytest.fixture(scope="package")
def served(create: Callable[[str], str], migrated: str) -> Iterator[Served]:
    settings = Settings(**SETTINGS, signed_admin=True, api_events_seconds=0.05)
    with open_process(Settings(), create(migrated)) as process, pytest.MonkeyPatch.context() as quick:
        quick.setattr("crochet_tasks.query.events.POLL_SECONDS", 0.05)
        quick.setattr("api.events.RECONNECT_MILLISECONDS", 10)
        api = made(process, settings)
        corpus = steps.new_corpus(process, name="whole")
        steps.ingest_all(corpus, steps.TEXTS)
        server = make_server("127.0.0.1", 0, api.app, threaded=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield Served(f"http://127.0.0.1:{server.server_port}", process, api.keys)
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with served.client() as client:
        yield client
