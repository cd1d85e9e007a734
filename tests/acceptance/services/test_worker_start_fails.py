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


@pytest.mark.parametrize(("fault", "said"), [("barren", "worker_start_failed"), ("unprepared", "receiver_failed")])
def test_a_worker_that_can_do_nothing_ends_and_leaves_its_messages_to_others(
    deploy: Deploy, fault: str, said: str
) -> None:
    """It cannot make a process ready, or cannot be set up, for which Celery would only log the error, and fail every
    task. It ends with 1, so that it is started again; long before the lease another one does what it had taken.
    """
    deployment = deploy(CROCHET_LEASE="3600")
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        accept(process, corpus, steps.TEXTS[:1])
        deployment.start(*RELAY)
        until(lambda: steps.sql(process, "SELECT FROM work WHERE published_at IS NOT NULL"), deployment)
        useless = deployment.start(*EVERYTHING, program=faulty(fault))
        assert deployment.ended(useless) == 1
        assert said in deployment.log(useless)
        deployment.start(*EVERYTHING)
        until_closed(process, corpus, deployment)
        check(process, corpus, steps.expected(steps.TEXTS[:1]))
        assert steps.sql(process, "SELECT FROM attempts") == []
