"""Stage 2, ordered: make an ingested text the next version of the context. From then on searches see it."""

from __future__ import annotations

from crochet_tasks.app import Step, app
from crochet_tasks.broker.messages import Trigger
from crochet_tasks.db import corpora, outbox, publishing, sessions, texts
from crochet_tasks.db.corpora import Lock
from crochet_tasks.db.process import here
from crochet_tasks.telemetry import metrics


@app.task(base=Step, name="context.version", message=Trigger)
def version(call: Trigger) -> None:
    """Make the next version. Searches of older ones go on: what they find does not depend on it."""
    corpus = call.corpus
    with here().database.transaction() as connection:
        corpora.take_lock(connection, corpus, Lock.ORDER)
        text = texts.lock_first_waiting(connection, corpus)
        items = outbox.claim(connection, call.items, runnable=True)
        if text is None or text.state != "ingested" or not items or items[0].subject != text.id:
            metrics.DUPLICATES.add(what="trigger")
            return
        made, seconds = texts.make_version(connection, text)
        sessions.once_committed(connection, lambda: metrics.TEXT_VERSION.observe(seconds))
        outbox.add(connection, [outbox.remediations(corpus, made)])
        outbox.done(connection, [outbox.context(corpus, text.id).id])
        publishing.release_next_text(connection, corpus)
