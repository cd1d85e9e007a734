"""Publish the outbox: the most urgent open work first.

A worker publishes right after its task's commit; the relay (services/relay.py) polls for the rest. In eager mode
to publish is to run the task: a call of `publish_next` runs one piece of work to its end, and calling it until it
returns nothing brings a corpus to its closure.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import signals

from crochet_tasks.app import Step, app
from crochet_tasks.broker.messages import Trigger
from crochet_tasks.db import publishing
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.process import here
from crochet_tasks.db.tally import OF_A_TEXT
from crochet_tasks.errors import CrochetError
from crochet_tasks.schemas.names import text_name
from crochet_tasks.telemetry import correlation, metrics

log = logging.getLogger(__name__)

TASKS = {
    "ingest": "ingest.text",
    "context": "context.version",
    "remediations": "remediations.due",
    "search": "search.part",
    "best": "best.part",
}
"""the task of each kind of work"""


def publish_next(corpus: int | None = None) -> Item | None:
    """Publish the most urgent open work, of one corpus or of any; return it (None: there is none, or no room).

    Raises an Unavailable error where the broker did not accept the message; the work is unpublished then.
    """
    process = here()
    settings = process.settings
    limit = None if app.conf.task_always_eager else settings.published_limit
    with process.database.statements() as connection:  # one round trip where a transaction takes three
        if not publishing.any_waits(connection, corpus):
            return None
    with process.database.transaction() as connection:
        taken = publishing.take_next(connection, corpus, limit)
    if taken is None:
        return None
    item = taken.item
    task: Step = app.tasks[TASKS[item.kind]]
    try:
        with correlation.published(task.name, [item.origin], corpus=taken.name, **_about(item)):
            task.publish(Trigger(corpus=item.corpus, work=item.id))
        metrics.PUBLISHED.add(kind=item.kind)
    except CrochetError as error:
        if not app.conf.task_always_eager:  # else it is an error of the task
            metrics.NOT_PUBLISHED.add(code=error.code)
            with process.database.transaction() as connection:
                publishing.unstamp(connection, [item.id])
        raise
    return item


def _about(first: Item) -> dict[str, object]:
    """Return the log context of a message: fields of the work beside those in its payload."""
    about: dict[str, object] = {"kind": first.kind, "attempt": first.attempts + 1}
    if first.kind in OF_A_TEXT:
        return {**about, "text": text_name(first.subject)}
    return {**about, "version": first.version}


def publish_all(corpus: int | None = None) -> int:
    """Publish until nothing is left or there is no room; return the number of messages."""
    return sum(1 for _ in iter(lambda: publish_next(corpus), None))


@signals.task_postrun.connect
def _publish_follow_up(task: object, **_: Any) -> None:
    """After a task's commit, in a worker: publish the work that it wrote. If that fails the relay does it later."""
    if isinstance(task, Step) and not task.request.is_eager:
        try:
            publish_all()
        except CrochetError as error:
            log.warning("publish_failed", extra={"code": error.code, "error": str(error)})


def release_unfinished(corpus: int) -> None:
    """Mark work as unpublished that an earlier process published and did not finish.

    Without a broker that is all published work: no other process works on a private store, and two `crochet run` on a
    shared one do some work twice, which is harmless. With a broker it is the work whose lease has expired.
    """
    process = here()
    with process.database.transaction() as connection:
        while publishing.hold_searches(connection):
            pass
        if process.settings.broker_url is None:
            publishing.release_all(connection, corpus)
        else:
            publishing.release_overdue(connection, process.settings.lease, TASKS, corpus)
