"""Stage 3, ordered: write the searches that a new version makes due: batches that wait on its phrases, and seeds."""

from __future__ import annotations

from crochet_tasks.app import Step, app
from crochet_tasks.broker.messages import Trigger
from crochet_tasks.db import batches, corpora, outbox, publishing, sessions, texts
from crochet_tasks.db.corpora import Lock
from crochet_tasks.db.process import here
from crochet_tasks.engine.seeds import seed_parts
from crochet_tasks.telemetry import metrics


@app.task(base=Step, name="remediations.due", message=Trigger)
def due(call: Trigger) -> None:
    """Write the searches of a version if it is its turn; if not, park it: the version before releases it.

    In the order of the versions: the first one that makes a batch due determines the window of its search. A batch
    whose search ends after this query is not missed: `orthos` sees the new version when it stores.
    """
    with here().database.transaction() as connection:
        corpora.take_lock(connection, call.corpus, Lock.ORDER)
        items = outbox.claim(connection, call.items)
        turn = outbox.turn(connection, call.corpus)
        if not items or turn is None:
            metrics.DUPLICATES.add(what="knock")
            return
        if turn.first != call.work:
            publishing.park(connection, call.work)
            return
        if not turn.ready:
            return
        version = items[0].subject
        continued = texts.continued(connection, call.corpus, version - 1, version)
        waiting = list(batches.due(connection, call.corpus, continued, version))
        outbox.add(
            connection,
            (
                outbox.grow(call.corpus, batch, sides, count, since=searched, version=version)
                for batch, sides, count, searched in waiting
            ),
        )
        sessions.once_committed(connection, lambda: metrics.DUE.add(len(waiting), found="version"))
        index = here().index(connection, call.corpus, version)
        parts = seed_parts(index, version - 1, version)
        outbox.add(connection, (outbox.seed(call.corpus, version, part) for part in parts))
        outbox.done(connection, [call.work])
        if turn.behind is not None:
            publishing.unpark(connection, turn.behind)
