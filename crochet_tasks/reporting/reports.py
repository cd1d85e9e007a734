"""The status of the store, of a corpus, and of the broker's queues.

db/tally.py says when a corpus is closed (Left), statistics.py why one does not close.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from crochet_tasks.db import Connection, corpora, schema, tally
from crochet_tasks.db import statistics as store
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.db.statistics import Counts
from crochet_tasks.engine.geometry import best_first, shape_name
from crochet_tasks.errors import Unavailable
from crochet_tasks.reporting import statistics, worker_use
from crochet_tasks.schemas.reports import CorpusStatus, QueueStatus, Status
from crochet_tasks.settings import Settings


def nothing_yet() -> Status:
    """The status where there is no store."""
    return Status(
        database="none",
        schema_version="none",
        bytes=0,
        dead_letters=0,
        broker="none",
        queues={},
        corpora=[],
        statistics=None,
    )


def status(process: Process) -> Status:
    """The status of all corpora, in one snapshot, and the lengths of the queues. A broker that is down is no error."""
    queues, use = queues_of(process.settings), worker_use.read(process.settings, process.database)
    with process.database.snapshot() as connection:
        every, mine = store.of_tenant(connection, None, statistics.COUNTED), corpora.every(connection)
        return Status(
            database=f"Postgres {schema.server_version(connection)}",
            schema_version=schema.revision(connection) or "none",
            bytes=tally.database_bytes(connection),
            dead_letters=tally.dead_letters(connection),
            broker=queues.broker,
            broker_problem=queues.problem,
            queues=queues.depths,
            corpora=[corpus_status(connection, corpus, counts=every.get(corpus.id)) for corpus in mine],
            statistics=statistics.now(every.values(), statistics.for_operators, use),
        )


class Queues(NamedTuple):
    """The state of the broker and its queues; as in Status."""

    broker: Literal["none", "answers", "unknown"]
    problem: str | None
    depths: dict[str, QueueStatus]


def queues_of(settings: Settings) -> Queues:
    """The lengths of the queues, if there is a broker and it answers within its time-out."""
    if settings.broker_url is None:
        return Queues("none", None, {})
    from crochet_tasks.broker import queues

    try:
        with queues.connected(settings) as broker:
            depths = queues.depths(broker)
    except Unavailable as error:
        return Queues("unknown", str(error), {})
    return Queues("answers", None, {name: QueueStatus(**depth._asdict()) for name, depth in depths.items()})


def corpus_status(
    connection: Connection,
    corpus: Corpus,
    most: int | None = None,
    counts: Counts | None = None,
    message: statistics.Message = statistics.for_operators,
) -> CorpusStatus:
    """The progress of a corpus; counts at most `most` work items per state, and by kind at most COUNTED."""
    if counts is None:
        counts = store.read(connection, [corpus.id], statistics.COUNTED)[corpus.id]
    counted = tally.counted(connection, corpus.id)
    extent = tally.extent(connection, corpus.id, corpus.version, most)
    shapes = [sides for sides in best_first(counted) if counted[sides].orthos]
    rates = statistics.report(counts, message)
    return CorpusStatus(
        corpus=corpus.name,
        limits=corpus.limits._asdict(),
        version=corpus.version,
        texts=extent.texts,
        words=extent.words,
        phrases=extent.phrases,
        orthos={shape_name(sides): counted[sides].orthos for sides in shapes},
        total=sum(change.orthos for change in counted.values()),
        batches=sum(change.batches for change in counted.values()),
        work={"open": extent.left.open, "done": extent.done, "failed": extent.failed},
        by_kind=counts.by_kind(),
        oldest_open=extent.oldest_open,
        dropped=extent.left.dropped,
        closed=extent.left.closed,
        paused=corpus.paused,
        bytes=extent.packed_bytes,
        rate=rates.paces[0].orthos_per_second,
        statistics=rates,
    )
