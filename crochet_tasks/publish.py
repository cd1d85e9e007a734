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
from crochet_tasks.broker.messages import Message, SearchCall, Trigger
from crochet_tasks.db import corpora, publishing
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.process import here
from crochet_tasks.db.tally import OF_A_TEXT
from crochet_tasks.engine.geometry import shape_name
from crochet_tasks.errors import CrochetError
from crochet_tasks.schemas.names import text_name
from crochet_tasks.telemetry import correlation, metrics

log = logging.getLogger(__name__)

GROUP_BATCHES = 4  # at most so many full batches of orthos are searched by one task

TASKS = {
    "ingest": "ingest.text",
    "context": "context.version",
    "remediations": "remediations.due",
    "seed": "search.seed",
    "grow": "search.grow",
}
"""the task of each kind of work"""


def publish_next(corpus: int | None = None) -> list[Item]:
    """Publish the most urgent open work, of one corpus or of any; return it (empty: there is none, or no room).

    Raises an Unavailable error where the broker did not accept the message; the work is unpublished then.
    """
    process = here()
    settings = process.settings
    limit = None if app.conf.task_always_eager else settings.published_limit
    with process.database.transaction() as connection:
        items = publishing.take_next(connection, corpus, GROUP_BATCHES * settings.batch_orthos, limit)
        name = corpora.name_of(connection, items[0].corpus) if items else None
    if items:
        task: Step = app.tasks[TASKS[items[0].kind]]
        try:
            with correlation.published(task.name, [item.origin for item in items], corpus=name, **_about(items[0])):
                task.publish(_message(items))
            metrics.PUBLISHED.add(len(items), kind=items[0].kind)
        except CrochetError as error:
            if not app.conf.task_always_eager:  # else it is an error of the task
                metrics.NOT_PUBLISHED.add(code=error.code)
                with process.database.transaction() as connection:
                    publishing.unstamp(connection, [item.id for item in items])
            raise
    return items


def _message(items: list[Item]) -> Message:
    first = items[0]
    if first.kind in ("seed", "grow"):
        return SearchCall(corpus=first.corpus, work=[item.id for item in items])
    return Trigger(corpus=first.corpus, work=first.id)


def _about(first: Item) -> dict[str, object]:
    """Return the log context of a message: fields of the work beside those in its payload."""
    about: dict[str, object] = {"kind": first.kind, "attempt": first.attempts + 1}
    if first.kind in OF_A_TEXT:
        return {**about, "text": text_name(first.subject)}
    about["version"] = first.version
    if first.sides is not None:
        about.update(batch=first.subject, shape=shape_name(first.sides))
    return about


def publish_all(corpus: int | None = None) -> int:
    """Publish until nothing is left or there is no room; return the number of messages."""
    return sum(1 for _ in iter(lambda: publish_next(corpus), []))


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
