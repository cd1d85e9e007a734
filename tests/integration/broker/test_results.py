"""The result backend while Redis is away: what it does not do is counted."""

from __future__ import annotations

import pytest
from celery.result import allow_join_result

from crochet_tasks.app import app
from crochet_tasks.broker.results import Results
from tests.support.recorded import Counted
from tests.support.server import take_port

pytestmark = pytest.mark.integration


def test_results_that_are_not_stored_are_counted(counted: Counted) -> None:
    """And nothing is raised: the task goes on."""
    backend = Results(app=app, url=f"redis://127.0.0.1:{take_port()}/0")
    assert backend.store_result("a task", "its result", "SUCCESS") == "its result"
    with allow_join_result():  # a worker's pool in this process, of another test, may have forbidden it
        backend.on_task_call(None, "a task")
    assert counted("crochet_redis_failures_total") == {"results": 2}
