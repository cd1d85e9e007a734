"""The same tasks on a real Celery worker, with messages that really travel."""

from __future__ import annotations

from collections.abc import Iterator

import celery
import pytest
from celery.contrib.testing.worker import start_worker

from crochet_tasks import publish
from crochet_tasks.app import app
from crochet_tasks.broker import queues
from crochet_tasks.db import tally
from crochet_tasks.db.process import here, open_process
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.celery_app import on_broker
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def celery_app(vhost: str) -> Iterator[celery.Celery]:
    """Our app on a real broker instead of eager tasks, in the place of the plugin's empty one."""
    with on_broker(vhost) as app:
        queues.declare(Settings.load(broker_url=vhost), report=print)
        yield app


def test_a_worker_closes_what_the_relay_publishes(database: str, vhost: str, celery_app: celery.Celery) -> None:
    """Published to a worker instead of run in place, the chain reaches the same closure."""
    with open_process(Settings.load(broker_url=vhost), database) as process:
        corpus = steps.new_corpus(process)
        # The plugin's own fixture celery_worker is one in a container; this is Celery's, a thread of ours.
        with start_worker(celery_app, perform_ping_check=False, shutdown_timeout=30):
            for body in steps.TEXTS:
                steps.accept(corpus, body)
                eventually(lambda: _closed(corpus.id))
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def _closed(corpus: int) -> bool:
    """Publish what is ready, as the relay does; whether no work is open."""
    publish.publish_all(corpus)
    with here().database.transaction() as connection:
        states = tally.states(connection, corpus)
    assert not states.failed
    return not states.open


def test_every_stage_is_a_task() -> None:
    """The stages are registered under names that say what they do, and take JSON, or msgpack where bytes travel."""
    ours = {name: task for name, task in app.tasks.items() if task.__module__.startswith("crochet_tasks")}
    serializers = {name: task.serializer for name, task in ours.items()}
    assert serializers == {
        "ingest.accept": "json",
        "ingest.text": "json",
        "context.version": "json",
        "remediations.due": "json",
        "search.part": "json",
        "best.part": "json",
        "orthos.store": "msgpack",
        "maintenance.merge": "json",
        "maintenance.probe": "json",
    }
    assert set(publish.TASKS.values()) < set(ours)
