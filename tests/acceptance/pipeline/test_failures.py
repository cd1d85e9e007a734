"""Texts that their workers cannot ingest: they fail visibly, and the later ones get their turn."""

from __future__ import annotations

import json

import pytest

from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine.geometry import Limits
from tests.acceptance.conftest import Deploy
from tests.support import steps
from tests.support.cluster import Cluster, accept, check, corpus_of, until, until_closed
from tests.support.commands import RELAY, SEARCH, STAGES, STORE
from tests.support.faulty import faulty
from tests.support.scraping import Scraped
from tests.support.server import take_port

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

BAD = "new words here, and old a b c, then poison"
TEXTS = [steps.TEXTS[0], BAD, *steps.TEXTS[1:]]
ATTEMPTS = 3
DEAD_LETTERED = '"event": "message_died"'
"""in the relay's log"""


def start(deployment: Cluster, fault: str, **environment: str) -> tuple[str, str]:
    """A deployment in which the word "poison" does this; its relay and the worker that ingests."""
    relay, *_ = (deployment.start(*command) for command in (RELAY, SEARCH, STORE))
    return relay, deployment.start(*STAGES, program=faulty(fault, "poison"), **environment)


def failed(process: Process, corpus: Corpus) -> list[tuple[object, ...]]:
    """Of the text that failed: how it stands, its error's code, and how often it was tried."""
    rows = """
        SELECT texts.state, work.state, texts.error->>'code', work.error->>'code', work.attempts
          FROM texts JOIN work ON work.subject = texts.id AND work.kind = 'ingest'
         WHERE texts.corpus = :corpus AND texts.seq = 2
    """
    return steps.sql(process, rows, corpus=corpus.id)


def others_proceed(process: Process, corpus: Corpus, deployment: Cluster) -> None:
    """All texts but the bad one become versions, and the closure is theirs."""
    until_closed(process, corpus, deployment)
    good = [body for body in TEXTS if body != BAD]
    check(process, corpus, steps.expected(good))
    states = "SELECT state, version FROM texts WHERE corpus = :corpus ORDER BY seq"
    assert steps.sql(process, states, corpus=corpus.id) == [
        ("current", 1),
        ("failed", None),
        ("current", 2),
        ("current", 3),
    ]


def test_after_a_bug_a_retried_text_is_the_next_version(deploy: Deploy) -> None:
    """Fails at once, is dead-lettered and listed; retried after the repair, the text is the next version."""
    deployment = deploy()
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        relay, stages = start(deployment, "poison")
        accept(process, corpus, TEXTS)
        others_proceed(process, corpus, deployment)
        assert failed(process, corpus) == [("failed", "failed", "internal", "internal", 1)]
        until(lambda: DEAD_LETTERED in deployment.log(relay), deployment)
        (listed,) = json.loads(crochet(deployment, "work", "list", "--state", "failed", "--json"))["work"]
        deployment.kill(stages)
        deployment.start(*STAGES)
        crochet(deployment, "work", "retry", listed["id"])
        until_closed(process, corpus, deployment)
        assert steps.version(process, corpus) == len(TEXTS)
        check(process, corpus, steps.expected(TEXTS))


def crochet(deployment: Cluster, *command: str) -> str:
    """What a command prints; it succeeds."""
    name = deployment.start(*command)
    assert deployment.ended(name) == 0, deployment.log(name)
    return deployment.log(name)


def test_trouble_that_does_not_end(deploy: Deploy) -> None:
    """What may succeed later is tried so often, after longer and longer pauses, while the later texts wait."""
    deployment = deploy(CROCHET_MAX_ATTEMPTS=str(ATTEMPTS), CROCHET_RETRY_FIRST="0.5", CROCHET_RETRY_LONGEST="60")
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        scraped, port = Scraped(), take_port()
        _, stages = start(deployment, "later", CROCHET_METRICS_PORT=str(port))
        scraped.ports[stages] = port
        accept(process, corpus, TEXTS[:1])
        # So no second message of the bad item is in a queue, which would cut a pause short.
        until_closed(process, corpus, deployment)
        accept(process, corpus, TEXTS[1:])
        until(lambda: last_try(process, corpus), deployment, pause=0.01)
        others_proceed(process, corpus, deployment)
        assert failed(process, corpus) == [("failed", "failed", "database_conflict", "database_conflict", ATTEMPTS)]
        check_pauses(process)
        failures = {"database_conflict": 1}
        until(lambda: scraped.by("crochet_work_failures_total", "code") == failures, deployment)
        assert scraped.by("crochet_work_retried_total", "code") == {"database_conflict": ATTEMPTS - 1}
        assert scraped.by("crochet_task_retries_total", "code").keys() == {"database_conflict"}


def last_try(process: Process, corpus: Corpus) -> bool:
    """Whether it has been tried so often; until then, whenever that is asked, the later texts wait."""
    rows = """
        SELECT (SELECT count(*) FROM attempts), array_agg(state::text ORDER BY seq) FROM texts WHERE corpus = :corpus
    """
    [(tries, states)] = steps.sql(process, rows, corpus=corpus.id)
    assert tries == ATTEMPTS or states == ["current", *["accepted"] * 3], (tries, states)
    return tries == ATTEMPTS


def check_pauses(process: Process) -> None:
    """At least half of 0.5 s, and then of twice that, lies between the tries; the upper bound is test_store's."""
    rows = "SELECT number, extract(epoch FROM at - lag(at) OVER (ORDER BY number))::float FROM attempts ORDER BY number"
    tries = steps.sql(process, rows)
    assert [number for number, _ in tries] == list(range(1, ATTEMPTS + 1))
    pauses = [float(str(pause)) for _, pause in tries[1:]]
    assert all(pause > 0.5 * 0.5 * 2**place for place, pause in enumerate(pauses)), pauses


def test_a_text_that_kills_its_workers_fails_in_the_end(deploy: Deploy) -> None:
    """A worker dies over a text each time: so many deaths in a row are one try, and at last the text has failed."""
    deployment = deploy(CROCHET_DELIVERY_LIMIT="1", CROCHET_MAX_ATTEMPTS="2", CROCHET_LEASE="20")
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        _, stages = start(deployment, "deadly")
        accept(process, corpus, TEXTS)
        others_proceed(process, corpus, deployment)
        assert failed(process, corpus) == [("failed", "failed", "worker_lost", "worker_lost", 2)]
        assert deployment.log(stages).count("WorkerLostError") >= 4  # twice over each of two messages
