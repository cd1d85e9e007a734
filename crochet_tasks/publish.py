"""The relay's step: publish what the outbox holds, most urgent first.

Whoever has committed a step publishes right after it; the relay (relay.py) looks for what is left. In eager mode
publishing is doing: a call of `publish_next` runs one piece of work to its end, and calling it until it answers
nothing brings a corpus to its closure.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import signals

from crochet_tasks.app import Step, app
from crochet_tasks.broker.messages import Knock, Message, SearchCall
from crochet_tasks.db import corpora, publishing
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.process import here
from crochet_tasks.db.tally import OF_A_TEXT
from crochet_tasks.engine.geometry import shape_name
from crochet_tasks.errors import CrochetError
from crochet_tasks.operate.names import text_name
from crochet_tasks.telemetry import correlation, metrics

log = logging.getLogger(__name__)

GROUP_BATCHES = 4  # batches' worth of orthos that one search takes up together

TASKS = {
    "ingest": "ingest.text",
    "context": "context.version",
    "remediations": "remediations.due",
    "seed": "search.seed",
    "grow": "search.grow",
}
"""which task does which kind of work"""


def publish_next(corpus: int | None = None) -> list[Item]:
    """Publish the most urgent open work, of one corpus or of any; what it was (nothing: there is none, or no room).

    Raises an Unavailable error when the broker did not take the message; the work is then as before.
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
            if not app.conf.task_always_eager:  # else it is the task's error, and the message got there
                metrics.NOT_PUBLISHED.add(code=error.code)
                with process.database.transaction() as connection:
                    publishing.not_published(connection, [item.id for item in items])
            raise
    return items


def _message(items: list[Item]) -> Message:
    first = items[0]
    if first.kind in ("seed", "grow"):
        return SearchCall(corpus=first.corpus, work=[item.id for item in items])
    return Knock(corpus=first.corpus, work=first.id)


def _about(first: Item) -> dict[str, object]:
    """What the log lines of a message's task say of the work, beside what its payload says."""
    about: dict[str, object] = {"kind": first.kind, "attempt": first.attempts + 1}
    if first.kind in OF_A_TEXT:
        return {**about, "text": text_name(first.subject)}
    about["version"] = first.version
    if first.sides is not None:
        about.update(batch=first.subject, shape=shape_name(first.sides))
    return about


def publish_all(corpus: int | None = None) -> int:
    """Publish until nothing is left or there is no room; how many messages that were."""
    return sum(1 for _ in iter(lambda: publish_next(corpus), []))


@signals.task_postrun.connect
def _publish_follow_up(task: object, **_: Any) -> None:
    """After a step's commit, in a worker: publish what it wrote. If that fails the relay does it later."""
    if isinstance(task, Step) and not task.request.is_eager:
        try:
            publish_all()
        except CrochetError as error:
            log.warning("left_to_relay", extra={"code": error.code, "error": str(error)})


def take_up_again(corpus: int) -> None:
    """Open what an earlier process had published but not done.

    Without a broker, that is all: nobody else works on a private store, and where another `crochet run` does on a
    shared one, some is done twice, which is harmless. With one, what workers have is theirs until its lease is over.
    """
    process = here()
    with process.database.transaction() as connection:
        while publishing.hold_searches(connection):
            pass
        if process.settings.broker_url is None:
            publishing.abandoned(connection, corpus)
        else:
            publishing.release_overdue(connection, process.settings.lease, TASKS, corpus)
