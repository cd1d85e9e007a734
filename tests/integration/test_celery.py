"""The same tasks on a real Celery worker, with messages that really travel, by pytest-celery's fixtures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import celery
import pytest

from crochet_tasks import work
from crochet_tasks.app import Process, app
from crochet_tasks.db import outbox
from tests import oracle
from tests.integration import steps

pytestmark = pytest.mark.integration


@pytest.fixture
def celery_app() -> Iterator[celery.Celery]:
    """Our app with a broker in memory instead of eager tasks."""
    before = {name: app.conf[name] for name in ("task_always_eager", "broker_url", "broker_transport_options")}
    app.conf.update(
        task_always_eager=False, broker_url="memory://", broker_transport_options={"polling_interval": 0.01}
    )
    app.loader.import_default_modules()
    yield app
    app.conf.update(before)


@pytest.fixture
def celery_worker_parameters() -> dict[str, Any]:
    return {"perform_ping_check": False, "shutdown_timeout": 30}


def test_a_worker_closes_what_the_relay_publishes(process: Process, celery_worker: object) -> None:
    """Published to a worker instead of run in place, the chain reaches the same closure."""
    corpus = steps.new_corpus(process)
    for body in steps.TEXTS:
        steps.accept(corpus, body)
        _until_closed(process, corpus.id)
    assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def _until_closed(process: Process, corpus: int) -> None:
    """Relay until no work is open; fails with the pytest time-out if that never comes."""
    while True:
        while work.publish_next(corpus):
            pass
        with process.database.transaction() as connection:
            states = outbox.states(connection, corpus)
        assert not states.failed
        if not states.open:
            return
        time.sleep(0.01)  # the worker is at it


def test_messages_survive_their_encoding(process: Process) -> None:
    """What a search found arrives at `orthos` as it left: eager mode encodes and decodes like a broker."""
    corpus = steps.new_corpus(process)
    steps.accept(corpus, *steps.TEXTS)
    steps.run(corpus)
    assert sum(steps.stored(process, corpus).values()) == len(oracle.closure(steps.TEXTS))
