"""What the relay knows of every kind of work."""

from __future__ import annotations

from crochet_tasks.app import app
from crochet_tasks.broker.queues import WORK
from crochet_tasks.publish import TASKS
from crochet_tasks.services.relay import QUEUES


def test_each_kind_of_work_is_released_when_it_is_overdue() -> None:
    """Else a lost message would leave its work open for ever."""
    assert QUEUES.keys() == TASKS.keys()
    for kind, names in QUEUES.items():
        first = app.amqp.router.route({}, TASKS[kind])["queue"].name
        assert first in names
        assert set(names) <= set(WORK)
