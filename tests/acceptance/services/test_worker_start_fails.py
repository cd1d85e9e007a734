"""A worker that can do nothing keeps nothing from others."""

from __future__ import annotations

import pytest

from crochet_tasks.engine.geometry import Limits
from tests.acceptance.conftest import Deploy
from tests.support import steps
from tests.support.cluster import accept, check, corpus_of, until, until_closed
from tests.support.commands import EVERYTHING, RELAY
from tests.support.faulty import faulty

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


def test_a_worker_that_cannot_make_a_process_ready_ends_and_gives_its_messages_back(deploy: Deploy) -> None:
    """With 1, so that it is started again; long before the lease another one does what it had taken."""
    deployment = deploy(CROCHET_LEASE="3600")
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        accept(process, corpus, steps.TEXTS[:1])
        deployment.start(*RELAY)
        until(lambda: steps.sql(process, "SELECT FROM work WHERE published_at IS NOT NULL"), deployment)
        barren = deployment.start(*EVERYTHING, program=faulty("barren"))
        assert deployment.ended(barren) == 1
        assert "worker_start_failed" in deployment.log(barren)
        deployment.start(*EVERYTHING)
        until_closed(process, corpus, deployment)
        check(process, corpus, steps.expected(steps.TEXTS[:1]))


def test_a_worker_that_cannot_be_set_up_takes_no_message(deploy: Deploy) -> None:
    """Whatever the reason: Celery would only log it, and the worker would fail every task for good."""
    deployment = deploy(CROCHET_LEASE="3600")
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        accept(process, corpus, steps.TEXTS[:1])
        deployment.start(*RELAY)
        unprepared = deployment.start(*EVERYTHING, program=faulty("unprepared"))
        assert deployment.ended(unprepared) == 1
        assert "a test" in deployment.log(unprepared)
        deployment.start(*EVERYTHING)
        until_closed(process, corpus, deployment)
        check(process, corpus, steps.expected(steps.TEXTS[:1]))
        assert steps.sql(process, "SELECT FROM attempts") == []
