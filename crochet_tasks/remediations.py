"""Stage 3: what a new version makes due. Batches that waited on a phrase it continues, and the empty ortho."""

from __future__ import annotations

from crochet_tasks.app import Step, app, here
from crochet_tasks.db import batches, corpora, outbox, texts
from crochet_tasks.db.corpora import Lock
from crochet_tasks.engine.seeds import seed_parts
from crochet_tasks.schemas import Knock


@app.task(base=Step, name="remediations.due", message=Knock)
def due(call: Knock) -> None:
    """Write the work that a version asks for.

    A batch whose search ends after this looked is not missed: `orthos` sees the new version when it stores.
    """
    corpus = call.corpus
    with here().database.transaction() as connection:
        corpora.hold(connection, corpus, Lock.ORDER)
        if not outbox.opened(connection, call.items):  # done, or deleted with its corpus
            return
        # In the order of the versions: the first one that makes a batch due names the window of its search.
        for item in outbox.due_before(connection, corpus, corpora.version(connection, corpus)):
            version = item.subject
            continued = texts.continued(connection, corpus, version - 1, version)
            waiting = list(batches.due(connection, corpus, continued, version))
            outbox.add(
                connection,
                (
                    outbox.grow(corpus, batch, sides, count, since=searched, version=version)
                    for batch, sides, count, searched in waiting
                ),
            )
            index = here().index(connection, corpus, version)
            parts = seed_parts(index, version - 1, version)
            outbox.add(connection, (outbox.seed(corpus, version, part) for part in parts))
            outbox.done(connection, [item.id])
