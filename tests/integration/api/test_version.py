"""The version, polled often: it grows with every text and never shrinks, in any process."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import open_process
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.api import SETTINGS, Api, made

pytestmark = pytest.mark.integration


@pytest.fixture
def api(database: str) -> Iterator[Api]:
    with open_process(Settings(), database) as process:
        yield made(process, Settings(**SETTINGS))


def test_the_version_grows_and_never_shrinks(api: Api, corpus: Corpus) -> None:
    """Asked by several all the time while versions are made; no reader sees less than another one saw before."""
    shown: list[int] = []
    lock, stopped = threading.Lock(), threading.Event()
    wrong: list[tuple[int, int]] = []

    def ask() -> None:
        while not stopped.is_set():
            least = max(shown, default=0)
            seen = api.read.get("/v1/corpora/genesis/version").get_json()["version"]
            with lock:
                shown.append(seen)
                if seen < least:
                    wrong.append((least, seen))

    readers = [threading.Thread(target=ask) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(8):
        steps.accept(corpus, f"text word{'x' * number}")
        steps.run(corpus)
    stopped.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert api.read.get("/v1/corpora/genesis/version").get_json()["version"] == 8


def test_a_deleted_corpus_has_no_version(api: Api, corpus: Corpus) -> None:
    """At once, and a new one of that name starts at 0."""
    steps.ingest_all(corpus, steps.TEXTS[:1])
    assert api.read.get("/v1/corpora/genesis/version").get_json()["version"] == 1
    api.admin.delete("/v1/corpora/genesis?confirm=genesis")
    api.problem(api.read.get("/v1/corpora/genesis/version"), "corpus_unknown", 404)
    api.write.post("/v1/corpora", json={"name": "genesis"})
    assert api.read.get("/v1/corpora/genesis/version").get_json()["version"] == 0
