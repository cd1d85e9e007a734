"""Which work is published when: the relay's side of the outbox. Stamps are taken before a message is sent.

A crash between stamp and message, or a lost message, costs a delay: what is overdue is published again.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Collection, Sequence

from sqlalchemy import Connection, func, select, text, update

from crochet_tasks.db.outbox import BEST, COLUMNS, CONTEXT, INGEST, REMEDIATIONS, START, Item, read
from crochet_tasks.db.tables import TAKEN_UP, work
from crochet_tasks.db.tally import SPENT

PARKED = "infinity"
"""`not_before` of work of an ordered stage whose turn it is not"""


def republish(connection: Connection, ids: Sequence[uuid.UUID]) -> None:
    """Have open items published again because they were not, or only partly, processed. It counts as no attempt."""
    if not ids:
        return
    published = update(work).where(work.c.id.in_(ids), work.c.state == "open", work.c.published_at.is_not(None))
    connection.execute(published.values(published_at=None, attempts=0))


def unstamp(connection: Connection, ids: Sequence[uuid.UUID]) -> None:
    """Mark work as unpublished again because its message could not be sent."""
    stamped = update(work).where(work.c.id.in_(ids), work.c.state == "open")
    connection.execute(stamped.values(published_at=None))


def park(connection: Connection, item: uuid.UUID) -> None:
    """Make work of an ordered stage wait until its turn comes.

    The caller holds the ORDER lock, as callers of `release_next_text` do.
    """
    waiting = update(work).where(work.c.id == item, work.c.state == "open")
    connection.execute(waiting.values(published_at=None, not_before=PARKED))


def release_next_text(connection: Connection, corpus: int) -> None:
    """Have the ingestion of the text whose turn has come published, if it was parked or published too early."""
    connection.execute(text(_RELEASE_NEXT_TEXT), {"corpus": corpus})


_RELEASE_NEXT_TEXT = """
UPDATE work SET published_at = NULL, not_before = NULL
 WHERE state = 'open' AND kind = 'ingest' AND corpus = :corpus AND (not_before IS NULL OR not_before = 'infinity')
   AND subject = (
       SELECT id FROM texts WHERE corpus = :corpus AND state IN ('accepted', 'ingested') ORDER BY seq LIMIT 1
          FOR UPDATE  -- waits for a transaction that cancels it; then it is the next one's turn
       )
"""


def release_all(connection: Connection, corpus: int) -> None:
    """Have all open work published again. Only for the one process that works on this corpus."""
    published = work.c.corpus == corpus, work.c.state == "open", work.c.published_at.is_not(None)
    connection.execute(update(work).where(*published).values(published_at=None))


def release_overdue(connection: Connection, seconds: float, kinds: Collection[str], corpus: int | None = None) -> int:
    """Have items published again whose lease of so many seconds has expired; return how many.

    Their messages were lost, or the worker that took them died or hangs. Doing work twice is harmless.
    """
    since = func.clock_timestamp() - dt.timedelta(seconds=seconds)
    overdue = [work.c.state == "open", work.c.published_at < since, work.c.kind.in_(kinds)]
    if corpus is not None:
        overdue.append(work.c.corpus == corpus)
    return connection.execute(update(work).where(*overdue).values(published_at=None)).rowcount


def any_published(connection: Connection, corpus: int) -> bool:
    """Whether open work is published: a worker processes it, or its message is in a queue."""
    published = work.c.corpus == corpus, work.c.state == "open", work.c.published_at.is_not(None)
    return connection.execute(select(work.c.id).where(*published).limit(1)).first() is not None


def ordered_waits(connection: Connection, corpus: int) -> bool:
    """Whether work of the ordered stages waits to be published."""
    waits = work.c.state == "open", work.c.published_at.is_(None), work.c.priority >= REMEDIATIONS
    query = select(work.c.id).where(work.c.corpus == corpus, *waits)
    return connection.execute(query.limit(1)).first() is not None


def hold_searches(connection: Connection) -> int:
    """Hold the searches of corpora whose budget is spent, and release those of corpora with budget left.

    Returns how many were changed, at most HELD_AT_ONCE of each corpus. `take_next` publishes no search of a spent
    corpus anyway; it does not scan held ones.
    """
    statements = (text(_HOLD), text(_RELEASE_HELD))
    return sum(connection.execute(each, {"most": HELD_AT_ONCE}).rowcount for each in statements)


HELD_AT_ONCE = 10_000
"""so that the transaction stays short"""
_HOLD = f"""
WITH spent AS MATERIALIZED (
    SELECT id FROM corpora WHERE budget IS NOT NULL AND {SPENT}
), chosen AS MATERIALIZED (
    SELECT searches.id FROM spent CROSS JOIN LATERAL (
           SELECT id FROM work
            WHERE corpus = spent.id AND state = 'open' AND published_at IS NULL AND not_before IS NULL
              AND priority < {REMEDIATIONS} AND kind = 'search'
            LIMIT :most FOR UPDATE SKIP LOCKED
           ) AS searches
)
UPDATE work SET not_before = 'infinity' WHERE id IN (SELECT id FROM chosen)
"""
# The corpora with held searches are found by skipping through the index, one probe each.
_RELEASE_HELD = f"""
WITH RECURSIVE holding (corpus) AS (
    (SELECT corpus FROM work WHERE state = 'open' AND not_before = 'infinity' ORDER BY corpus LIMIT 1)
     UNION ALL
    SELECT (SELECT work.corpus FROM work WHERE state = 'open' AND not_before = 'infinity'
               AND work.corpus > holding.corpus ORDER BY work.corpus LIMIT 1)
      FROM holding WHERE holding.corpus IS NOT NULL
), roomy AS MATERIALIZED (
    SELECT id FROM holding JOIN corpora ON corpora.id = holding.corpus WHERE NOT coalesce({SPENT}, false)
), chosen AS MATERIALIZED (
    SELECT searches.id FROM roomy CROSS JOIN LATERAL (
           SELECT id FROM work
            WHERE corpus = roomy.id AND state = 'open' AND not_before = 'infinity' AND kind = 'search'
            LIMIT :most FOR UPDATE SKIP LOCKED
           ) AS searches
)
UPDATE work SET not_before = NULL WHERE id IN (SELECT id FROM chosen)
"""


def take_next(connection: Connection, corpus: int | None, published_limit: int | None = None) -> Item | None:
    """Stamp the open, unpublished work that is due next as published and return it.

    First work of the ordered stages; then searches, then parts of searches for the best: of the tenant of whom the
    fewest are published, of its corpora that of which the fewest are. So they share the room, and none waits for all
    the work of another.
    Nothing of a paused corpus, and no search of a corpus whose budget is spent; its texts still become versions, and
    its best orthos are searched for: they are not stored.

    With `published_limit` so many searches are published at a time, and so many parts of searches for the best, and of
    each corpus one message of an ordered stage: it is the only one that can be processed. Several relays may exceed it
    by a few.
    """
    row = connection.execute(text(_TAKE), {"corpus": corpus, "most": published_limit}).first()
    return None if row is None else read(row)


# The corpora that have work are found by skipping through work_unpublished_idx, one probe each; then the first row of
# each kind. Only rows that can be taken are read, however many wait.
_TAKE = f"""
WITH RECURSIVE busy (corpus) AS (
    (SELECT corpus FROM work WHERE state = 'open' AND published_at IS NULL AND {TAKEN_UP}
        AND (CAST(:corpus AS integer) IS NULL OR corpus = :corpus) ORDER BY corpus LIMIT 1)
     UNION ALL
    SELECT (SELECT work.corpus FROM work WHERE state = 'open' AND published_at IS NULL AND {TAKEN_UP}
               AND work.corpus > busy.corpus AND CAST(:corpus AS integer) IS NULL ORDER BY work.corpus LIMIT 1)
      FROM busy WHERE busy.corpus IS NOT NULL
), running AS MATERIALIZED (
    SELECT corpus, kind, count(*) AS number FROM work WHERE state = 'open' AND published_at IS NOT NULL
     GROUP BY corpus, kind
), shares AS MATERIALIZED (
    SELECT tenant, kind, sum(number) AS number FROM running JOIN corpora ON corpora.id = running.corpus
     GROUP BY tenant, kind
), kinds (kind, low, high) AS (
    VALUES ('ingest', {INGEST}, {INGEST}), ('context', {CONTEXT}, {CONTEXT}),
           ('remediations', {REMEDIATIONS}, {REMEDIATIONS}), ('search', {START}, {REMEDIATIONS} - 1),
           ('best', {BEST}, {BEST})
), room AS MATERIALIZED (
    SELECT kind, low, high FROM kinds
     WHERE low >= {REMEDIATIONS} OR CAST(:most AS integer) IS NULL
        OR :most > ALL (SELECT sum(number) FROM running WHERE running.kind IN (kinds.kind, 'search') GROUP BY kind)
), next AS MATERIALIZED (
    SELECT first.id, first.priority, first.created_at, busy.corpus, room.kind, running.number,
           coalesce(shares.number, 0) AS share
      FROM busy JOIN corpora ON corpora.id = busy.corpus AND paused_at IS NULL CROSS JOIN room
      LEFT JOIN running ON running.corpus = busy.corpus AND running.kind = room.kind
      LEFT JOIN shares ON shares.tenant = corpora.tenant AND shares.kind = room.kind
     CROSS JOIN LATERAL (
           SELECT id, priority, created_at FROM work
            WHERE work.corpus = busy.corpus AND state = 'open' AND published_at IS NULL AND {TAKEN_UP}
              AND priority BETWEEN room.low AND room.high
              AND (not_before IS NULL OR not_before <= clock_timestamp())
              AND (room.kind <> 'search' OR NOT coalesce({SPENT}, false))
              AND (room.low < {REMEDIATIONS} OR running.number IS NULL OR CAST(:most AS integer) IS NULL)
            ORDER BY work.priority DESC, work.created_at, work.id LIMIT 1
           ) AS first
), chosen AS MATERIALIZED (
    SELECT corpus, kind FROM next
     ORDER BY priority >= {REMEDIATIONS} DESC, kind = 'best',
              CASE WHEN priority < {REMEDIATIONS} THEN share END,
              CASE WHEN priority < {REMEDIATIONS} THEN coalesce(number, 0) END,
              priority DESC, created_at, id LIMIT 1
), first AS MATERIALIZED (
    SELECT work.id FROM work, chosen JOIN kinds USING (kind)
     WHERE work.corpus = chosen.corpus AND state = 'open' AND published_at IS NULL AND {TAKEN_UP}
       AND priority BETWEEN kinds.low AND kinds.high AND (not_before IS NULL OR not_before <= clock_timestamp())
     ORDER BY work.priority DESC, work.created_at, work.id
     LIMIT 1 FOR UPDATE OF work SKIP LOCKED
)
UPDATE work SET published_at = clock_timestamp(), not_before = NULL
 WHERE id IN (SELECT id FROM first)
RETURNING {", ".join(f"work.{column.name}" for column in COLUMNS)}
"""
