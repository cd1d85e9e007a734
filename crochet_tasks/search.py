"""Stage 4, parallel: search a part of a window, a pure computation on the phrases. Its result goes to `orthos`."""

from __future__ import annotations

import time

from crochet_tasks import orthos, telemetry
from crochet_tasks.app import Step, app
from crochet_tasks.broker.messages import FoundBatch, SearchResult, Trigger
from crochet_tasks.db import corpora, outbox, tally, windows
from crochet_tasks.db.process import here
from crochet_tasks.engine import search
from crochet_tasks.engine.search import Part
from crochet_tasks.telemetry import labels, metrics


@app.task(base=Step, name="search.part", message=Trigger)
def part(call: Trigger) -> None:
    """Find the new boxes of some starts of a window, or those that another search left over."""
    with here().database.snapshot() as connection:  # its corpus may be deleted meanwhile, table by table
        items = outbox.opened(connection, call.items, runnable=True)
        if not items:  # done, or deleted with its corpus
            metrics.DUPLICATES.add(what="search")
            return
        (item,) = items
        corpus = corpora.numbered(connection, item.corpus)
        window = windows.read(connection, corpus.id, item.version)
        boxes = outbox.boxes(connection, item)
        bounds = here().search_bounds(corpus.budget, tally.total(connection, corpus.id))
        tree = here().tree(connection, corpus.id, item.version)
    wanted = windows.searched(window, tree)
    which = Part(boxes=boxes) if item.part is None else Part(*item.part)
    began = time.perf_counter()
    with telemetry.span("search.engine", version=item.version):
        outcome = search.search(wanted, corpus.limits, which, bounds)
        telemetry.result(found=sum(len(run.rows) for run in outcome.found))
    metrics.SEARCH_SECONDS.observe(time.perf_counter() - began)
    for run in outcome.found:
        metrics.FOUND.add(len(run.rows), shape=labels.shape(run.sides))
    result = SearchResult(
        corpus=corpus.id,
        work=item.id,
        written=item.written,
        found=list(FoundBatch.cut(tree, outcome.found, bounds.batch_orthos)),
        left_over=[(left.first, left.last) if left.boxes is None else left.boxes for left in outcome.left_over],
    )
    orthos.store.publish(result)
