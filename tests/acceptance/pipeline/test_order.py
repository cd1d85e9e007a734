"""Texts become versions in the order of their acceptance, and reading the version never waits for them."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
from tests.support.faulty import faulty

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

log = logging.getLogger(__name__)

TEXTS = pieces("garden.txt", 10)
HALT = "halt"
"""in the last sentence of each of `HALTING`: a worker with that fault stops during the third text, and once"""
HALTING = [f"{body} Now we {HALT}." for body in TEXTS]
READS = 200
"""while the ingestion stands still"""
BIG_BYTES, WORDS = 1_000_000, 50_000


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> threading.local:
    """What `here` is in a thread while it accepts texts: its `process`."""
    own = threading.local()
    monkeypatch.setattr(admission, "here", lambda: own.process)
    return own


def accept_at_once(own: threading.local, process: Process, corpus: Corpus, texts: list[str]) -> None:
    """Ten clients, each with a text and a connection of its own."""
    start = threading.Barrier(len(texts))

    def client(number: int) -> None:
        with contextlib.closing(database(process.settings)) as its:
            own.process = Process(process.settings, its)
            start.wait()
            admission.accept(corpus, f"text {number}", texts[number])

    with ThreadPoolExecutor(len(texts)) as clients:
        list(clients.map(client, range(len(texts))))


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
        accept_at_once(own, process, corpus, TEXTS)
        until_closed(process, corpus, deployment)
        in_order(process, corpus)
        check(process, corpus, steps.expected(TEXTS))


def test_a_worker_dies_during_a_text(deploy: Deploy, own: threading.local, tmp_path: Path) -> None:
    """The one that ingests is killed when a part of the third text is in: the other one goes on, in order."""
    marker = tmp_path / "marker"
    deployment = deploy(CROCHET_PART_WORDS="1", CROCHET_LEASE="2")
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        program = faulty("halt", HALT, str(marker), "3")
        stages = [deployment.start(*STAGES, program=program) for _ in range(2)]
        deployment.start(*RELAY)
        accept_at_once(own, process, corpus, HALTING)
        until(marker.exists, deployment)
        (active,) = [name for name in stages if '"task": "ingest.text"' in deployment.log(name)]
        deployment.kill(active)
        left = "SELECT seq, sentences > 0 FROM texts WHERE corpus = :corpus AND state = 'accepted' ORDER BY seq"
        assert steps.sql(process, left, corpus=corpus.id) == [(seq, seq == 3) for seq in range(3, len(TEXTS) + 1)]
        for command in (SEARCH, STORE):
            deployment.start(*command)
        until_closed(process, corpus, deployment)
        in_order(process, corpus)
        check(process, corpus, steps.expected(HALTING))


# ── reads ───────────────────────────────────────────────────────────────────────────────────────


def big() -> str:
    """A large text, in which no word comes twice, and one with orthos; in the middle of it HALT."""
    words = map("".join, itertools.product("bcdfghjklmnprstvw", "aeiou", "bcdfghjklmnprstvw", "aeiou", "lmnrs", "ae"))
    sentences = iter(lambda: " ".join(itertools.islice(words, 10)), "")
    rare = "".join(f"{sentence}. " for sentence in itertools.islice(sentences, WORDS // 10))
    return rare + f"Now we {HALT}. " + rare.upper() * (BIG_BYTES // len(rare)) + steps.TEXTS[0]


def test_reading_the_version_takes_no_lock(deploy: Deploy, tmp_path: Path) -> None:
    """While a large text is ingested the version is read again and again, and no read ever waits for a lock."""
    text, limits, marker = big(), Limits(2, 3, 6), tmp_path / "marker"
    deployment = deploy()
    with deployment.process() as process:
        corpus = corpus_of(process, limits)
        deployment.start(*RELAY)
        deployment.start(*STAGES, program=faulty("halt", HALT, str(marker), "1"))
        steps.accept(corpus, text)
        until(marker.exists, deployment)
        reading = reads(process.settings.model_copy(update={"lock_timeout": 0.001}), corpus)
        took = list(itertools.islice(reading, READS))
        Path(f"{marker}-end").touch()
        took = sorted([*took, *reading])
        median, slowest = took[len(took) // 2] * 1000, took[len(took) * 99 // 100] * 1000
        log.info("%d reads: p50 %.2f ms, p99 %.2f ms", len(took), median, slowest)
        for command in (SEARCH, STORE):
            deployment.start(*command)
        until_closed(process, corpus, deployment)
        check(process, corpus, steps.expected([text], limits))


def reads(settings: Settings, corpus: Corpus) -> Iterator[float]:
    """How long each read takes, in seconds, until the text is a version; raises DatabaseConflict where one waits."""
    with contextlib.closing(database(settings)) as its:
        while True:
            began = time.perf_counter()
            with its.transaction() as connection:
                version = corpora.version(connection, corpus.id)
            if version > 0:
                return
            yield time.perf_counter() - began
