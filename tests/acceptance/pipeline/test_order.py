"""Texts become versions in the order of their acceptance, and reading the version never waits for them."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from crochet_tasks.db import corpora
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.db.sessions import Database
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.intake import admission
from crochet_tasks.settings import Settings
from tests.acceptance.conftest import Deploy
from tests.support import steps
from tests.support.bodies import pieces
from tests.support.cluster import check, corpus_of, until, until_closed
from tests.support.commands import RELAY, SEARCH, STAGES, STORE

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

log = logging.getLogger(__name__)

TEXTS = pieces("garden.txt", 10)
READS = 2000
BIG_BYTES, WORDS = 1_000_000, 50_000


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> threading.local:
    """What `here` is in a thread while it accepts texts: its `process`."""
    own = threading.local()
    monkeypatch.setattr(admission, "here", lambda: own.process)
    return own


def accept_at_once(own: threading.local, process: Process, corpus: Corpus) -> None:
    """Ten clients, each with a text and a connection of its own."""
    start = threading.Barrier(len(TEXTS))

    def client(number: int) -> None:
        with contextlib.closing(database(process.settings)) as its:
            own.process = Process(process.settings, its)
            start.wait()
            admission.accept(corpus, f"text {number}", TEXTS[number])

    with ThreadPoolExecutor(len(TEXTS)) as clients:
        list(clients.map(client, range(len(TEXTS))))


def database(settings: Settings) -> Database:
    assert settings.database_url is not None
    return Database(settings.database_url.get_secret_value(), settings)


def in_order(process: Process, corpus: Corpus) -> None:
    """All are versions, in the order of acceptance, without gaps."""
    rows = "SELECT seq, version FROM texts WHERE corpus = :corpus ORDER BY seq"
    assert steps.sql(process, rows, corpus=corpus.id) == [(number, number) for number in range(1, len(TEXTS) + 1)]


def test_texts_at_once(deploy: Deploy, own: threading.local) -> None:
    """Ten texts accepted at the same time become versions 1 to 10 in the order of acceptance."""
    deployment = deploy()
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        for command in (RELAY, STAGES, STAGES, SEARCH, STORE):
            deployment.start(*command)
        accept_at_once(own, process, corpus)
        until_closed(process, corpus, deployment, 60)
        in_order(process, corpus)
        check(process, corpus, steps.expected(TEXTS))


def test_a_worker_dies_amid_a_text(deploy: Deploy, own: threading.local) -> None:
    """The one that ingests is killed when a part of a text is in, not of the first: the other one goes on, in order."""
    deployment = deploy(CROCHET_PART_WORDS="1", CROCHET_LEASE="2")
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        stages = [deployment.start(*STAGES) for _ in range(2)]
        until(lambda: all(map(deployment.ready, stages)), deployment, 30)
        accept_at_once(own, process, corpus)
        deployment.start(*RELAY)  # now, or it would all be done before the test polls
        # Some texts have one part only, and which of them is the third is decided by chance.
        amid = "SELECT seq FROM texts WHERE corpus = :corpus AND seq > 2 AND state = 'accepted' AND sentences > 0"
        until(lambda: bool(steps.sql(process, amid, corpus=corpus.id)), deployment, 30, pause=0.001)
        (active,) = [name for name in stages if '"task": "ingest.text"' in deployment.log(name)]
        deployment.kill(active)
        left = "SELECT min(seq), count(*) FROM texts WHERE corpus = :corpus AND state <> 'current'"
        ((first, number),) = steps.sql(process, left, corpus=corpus.id)
        assert 2 < int(str(first)) == len(TEXTS) - int(str(number)) + 1
        for command in (SEARCH, STORE):
            deployment.start(*command)
        until_closed(process, corpus, deployment, 60)
        in_order(process, corpus)
        check(process, corpus, steps.expected(TEXTS))


# ── reads ───────────────────────────────────────────────────────────────────────────────────────


def big() -> str:
    """A large text, in which no word comes twice, and one with orthos."""
    words = map("".join, itertools.product("bcdfghjklmnprstvw", "aeiou", "bcdfghjklmnprstvw", "aeiou", "lmnrs", "ae"))
    sentences = iter(lambda: " ".join(itertools.islice(words, 10)), "")
    rare = "".join(f"{sentence}. " for sentence in itertools.islice(sentences, WORDS // 10))
    return rare + rare.upper() * (BIG_BYTES // len(rare)) + steps.TEXTS[0]


def test_reading_the_version_takes_no_lock(deploy: Deploy) -> None:
    """While a large text is ingested the version is read again and again, and no read ever waits for a lock."""
    text, limits = big(), Limits(2, 3, 6)
    deployment = deploy()
    with deployment.process() as process:
        corpus = corpus_of(process, limits)
        for command in (RELAY, STAGES):
            deployment.start(*command)
        steps.accept(corpus, text)
        began = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND classid = 2"
        until(lambda: bool(steps.sql(process, began)), deployment, 60)
        took = sorted(reads(process.settings.model_copy(update={"lock_timeout": 0.001}), corpus))
        assert len(took) >= READS // 10
        median, slowest = took[len(took) // 2] * 1000, took[len(took) * 99 // 100] * 1000
        log.info("%d reads: p50 %.2f ms, p99 %.2f ms", len(took), median, slowest)
        for command in (SEARCH, STORE):
            deployment.start(*command)
        until_closed(process, corpus, deployment, 60)
        check(process, corpus, steps.expected([text], limits))


def reads(settings: Settings, corpus: Corpus) -> Iterator[float]:
    """How long each read takes, in seconds, until the text is a version; raises DatabaseConflict where one waits."""
    with contextlib.closing(database(settings)) as its:
        for _ in range(READS):
            began = time.perf_counter()
            with its.transaction() as connection:
                version = corpora.version(connection, corpus.id)
            if version > 0:
                return
            yield time.perf_counter() - began
