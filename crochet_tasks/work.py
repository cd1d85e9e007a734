"""The relay: publishes what the outbox holds, most urgent first.

In eager mode publishing is doing: a call of `publish_next` runs one piece of work to its end, and calling it until
it answers False brings a corpus to its closure.
"""

from __future__ import annotations

from crochet_tasks import context, ingest, remediations, search
from crochet_tasks.app import described, here
from crochet_tasks.db import outbox
from crochet_tasks.db.outbox import Item
from crochet_tasks.errors import Retry, retry_class
from crochet_tasks.schemas import Knock, SearchCall

GROUP_BATCHES = 4  # batches' worth of orthos that one search takes up together

_STAGES = {
    "ingest": ingest.ingest,
    "context": context.version,
    "remediations": remediations.due,
    "seed": search.seed,
    "grow": search.grow,
}


def publish_next(corpus: int | None = None) -> list[Item]:
    """Publish the most urgent open work, of one corpus or of any; what it was (nothing: there is none)."""
    process = here()
    with process.database.transaction() as connection:
        items = outbox.take_next(connection, corpus, GROUP_BATCHES * process.settings.batch_orthos)
    if items:
        first = items[0]
        ids = [item.id for item in items]
        call = (
            SearchCall(corpus=first.corpus, work=ids)
            if first.kind in ("seed", "grow")
            else Knock(corpus=first.corpus, work=first.id)
        )
        try:
            _STAGES[first.kind].publish(call.payload())
        except Exception as error:
            _note(items, error)
            raise
    return items


def _note(items: list[Item], error: Exception) -> None:
    """Keep with the work what befell it: what can succeed later stays open, the rest has failed.

    An ingestion notes for itself which text it was that failed: it need not be the one whose message knocked.
    """
    ids = [item.id for item in items if item.kind != "ingest"]
    if retry_class(error) is Retry.NEVER:
        with here().database.transaction() as connection:
            outbox.fail(connection, ids, described(error))


def take_up_again(corpus: int) -> None:
    """Open what an earlier process had published but not done: in eager mode, nobody else is doing it."""
    with here().database.transaction() as connection:
        outbox.abandoned(connection, corpus)
