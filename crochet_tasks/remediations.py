"""Stage 3, ordered: find what is due because of new versions, and write the searches of it.

It reads the table `remediations` (db/process.py, `waited`); a row is written with its batch, by orthos.py, merging.py
and archive/load.py. A piece of *work* of the kind `remediations` is a version that waits for this stage.
"""

from __future__ import annotations

import itertools

from crochet_tasks.app import Step, app
from crochet_tasks.broker.messages import Trigger
from crochet_tasks.db import Connection, corpora, outbox, publishing, sessions, windows
from crochet_tasks.db.corpora import Lock
from crochet_tasks.db.process import here
from crochet_tasks.db.windows import Window
from crochet_tasks.engine import runs, search
from crochet_tasks.telemetry import metrics


@app.task(base=Step, name="remediations.due", message=Trigger)
def due(call: Trigger) -> None:
    """Write the searches of the versions that wait, as one window; if an older one cannot be done yet, wait for it.

    Windows follow on each other without gap or overlap, so the versions are taken in their order.
    """
    with here().database.transaction() as connection:
        corpora.take_lock(connection, call.corpus, Lock.ORDER)
        waiting = outbox.waiting_versions(connection, call.corpus)
        ready = list(itertools.takewhile(lambda each: each.ready, waiting))
        if call.work in [each.id for each in ready]:
            _open(connection, call.corpus, ready[-1].version)
            outbox.done(connection, [each.id for each in ready])
        elif call.work in [each.id for each in waiting[1:]]:
            publishing.park(connection, call.work)
        else:
            metrics.DUPLICATES.add(what="trigger")


READ_SECONDS = 15.0
"""for which a task reads remediations; the next one of its process reads the rest"""


def _open(connection: Connection, corpus: int, version: int) -> None:
    """Write the window that ends with a version, and its searches."""
    tree = here().tree(connection, corpus, version)
    since = windows.last(connection, corpus)
    # Every new phrase is due while searches are open, as not all orthos that wait are stored, or while reading takes
    # longer: phrases that nothing waits on cost a search, and find nothing more.
    waited = None
    if not windows.unfinished(connection, corpus):
        waited = here().waited(connection, corpus, tree, READ_SECONDS)
    window = search.window(tree, since, waited)
    phrases = None if window.due is None else runs.pack_set(window.due)
    windows.add(connection, corpus, Window(version, since, phrases, window.starts))
    parts = ((part.first, part.last) for part in search.parts(window, here().bounds))
    outbox.add(connection, (outbox.search(corpus, since, version, part) for part in parts))
    if window.due is not None:
        sessions.once_committed(connection, lambda: metrics.DUE.add(window.starts))
