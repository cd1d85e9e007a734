"""Which work is published when: the relay's side of the outbox. Stamps are taken before a message is sent.

A crash between stamp and message, or a lost message, costs a delay: what is overdue is published again.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select, text, update

from crochet_tasks.db import quotas
from crochet_tasks.db.outbox import (
    BEST,
    COLUMNS,
    CONTEXT,
    INGEST,
    REMEDIATIONS,
    START,
    Item,
    ingest,
    locked,
    read,
)
from crochet_tasks.db.tables import TAKEN_UP, work
from crochet_tasks.db.tally import SPENT

PARKED = "infinity"
"""`not_before` of work of an ordered stage whose turn it is not"""


def republish(connection: Connection, ids: Sequence[uuid.UUID]) -> None:
    """Have open items published again because they were not, or only partly, processed. It counts as no attempt."""
    if not ids:
        return
    published = locked(work.c.id.in_(ids), work.c.state == "open", work.c.published_at.is_not(None))
    connection.execute(update(work).where(published).values(published_at=None, attempts=0))


def unstamp(connection: Connection, ids: Sequence[uuid.UUID]) -> None:
    """Mark work as unpublished again because its message could not be sent."""
    stamped = locked(work.c.id.in_(ids), work.c.state == "open")
    connection.execute(update(work).where(stamped).values(published_at=None))


def park(connection: Connection, item: uuid.UUID) -> None:
    """Make work of an ordered stage wait until its turn comes.

    The caller holds the ORDER lock, as callers of `release_next_text` do.
    """
    waiting = update(work).where(work.c.id == item, work.c.state == "open")
    connection.execute(waiting.values(published_at=None, not_before=PARKED))


def release_next_text(connection: Connection, corpus: int) -> None:
    """Have the ingestion of the text whose turn has come published, if it was parked or published too early."""
    number = connection.execute(_NEXT_TEXT, {"of": corpus}).scalar()
    if number is None:
        return
    waiting = work.c.id == ingest(corpus, number).id, work.c.state == "open"
    not_backing_off = work.c.not_before.is_(None) | (work.c.not_before == text(f"'{PARKED}'"))
    released = update(work).where(*waiting, not_backing_off)
    connection.execute(released.values(published_at=None, not_before=None))


# It waits for a transaction that cancels the text; then it is the next one's turn.
_NEXT_TEXT = text("""
SELECT id FROM texts WHERE corpus = :of AND state IN ('accepted', 'ingested') ORDER BY seq LIMIT 1 FOR UPDATE
""")


def release_all(connection: Connection, corpus: int) -> None:
    """Have all open work of a corpus published again, but for what a transaction has locked: it is just being done."""
    connection.execute(_RELEASE_ALL, {"corpus": corpus})


_RELEASE_ALL = text("""
UPDATE work SET published_at = NULL
 WHERE id = ANY(ARRAY(
    SELECT id FROM work WHERE corpus = :corpus AND state = 'open' AND published_at IS NOT NULL FOR UPDATE SKIP LOCKED
 ))
""")


def release_overdue(connection: Connection, seconds: float, kinds: Collection[str], corpus: int | None = None) -> int:
    """Have items published again whose lease of so many seconds has expired; return how many.

    Their messages were lost, or the worker that took them died or hangs. Doing work twice is harmless. Not those that a
    transaction has locked: it may be the one that ends them.
    """
    about = {"seconds": seconds, "kinds": list(kinds), "corpus": corpus}
    return connection.execute(_RELEASE_OVERDUE, about).rowcount


_RELEASE_OVERDUE = text("""
UPDATE work SET published_at = NULL
 WHERE id = ANY(ARRAY(
    SELECT id FROM work
     WHERE state = 'open' AND published_at < clock_timestamp() - make_interval(secs => :seconds)
       AND kind = ANY(CAST(:kinds AS text[])) AND corpus = coalesce(CAST(:corpus AS integer), corpus)
       FOR UPDATE SKIP LOCKED
 ))
""")


def any_published(connection: Connection, corpus: int) -> bool:
    """Whether open work is published: a worker processes it, or its message is in a queue."""
    published = work.c.corpus == corpus, work.c.state == "open", work.c.published_at.is_not(None)
    return connection.execute(select(work.c.id).where(*published).limit(1)).first() is not None


def ordered_waits(connection: Connection, corpus: int) -> bool:
    """Whether work of the ordered stages waits to be published, and is not parked."""
    waits = work.c.state == "open", work.c.published_at.is_(None), text(TAKEN_UP), work.c.priority >= REMEDIATIONS
    query = select(work.c.id).where(work.c.corpus == corpus, *waits)
    return connection.execute(query.order_by(work.c.priority.desc()).limit(1)).first() is not None


def hold_searches(connection: Connection) -> int:
    """Hold the searches of corpora whose budget is spent, or their tenant's quota of orthos, and release the others.

    Returns how many were changed, at most HELD_AT_ONCE of each corpus. `take_next` publishes no search of a spent
    corpus anyway; it does not scan held ones. Whether a tenant is full is only known from here: it takes reading the
    counts of all its corpora.
    """
    quotas.mark_full(connection)
    statements = (text(_HOLD), text(_RELEASE_HELD))
    return sum(connection.execute(each, {"most": HELD_AT_ONCE}).rowcount for each in statements)


HELD_AT_ONCE = 10_000
"""so that the transaction stays short"""
_HOLD = f"""
WITH spent AS MATERIALIZED (
    SELECT id FROM corpora WHERE {SPENT}
), chosen AS MATERIALIZED (
    SELECT searches.id FROM spent CROSS JOIN LATERAL (
           SELECT id FROM work
            WHERE corpus = spent.id AND state = 'open' AND published_at IS NULL AND not_before IS NULL
              AND priority < {REMEDIATIONS} AND kind = 'search'
            ORDER BY work.priority DESC LIMIT :most FOR UPDATE SKIP LOCKED
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
    SELECT id FROM holding JOIN corpora ON corpora.id = holding.corpus WHERE NOT {SPENT}
), chosen AS MATERIALIZED (
    SELECT searches.id FROM roomy CROSS JOIN LATERAL (
           SELECT id FROM work
            WHERE corpus = roomy.id AND state = 'open' AND not_before = 'infinity' AND kind = 'search'
            LIMIT :most FOR UPDATE SKIP LOCKED
           ) AS searches
)
UPDATE work SET not_before = NULL WHERE id IN (SELECT id FROM chosen)
"""


class Taken(NamedTuple):
    item: Item
    name: str
    """of its corpus, for log lines"""


def any_waits(connection: Connection, corpus: int | None) -> bool:
    """Whether open work is not published: a cheap look before `take_next`, which takes longer to plan than to run."""
    return connection.execute(_ANY, {"corpus": corpus}).first() is not None


def take_next(connection: Connection, corpus: int | None, published_limit: int | None = None) -> Taken | None:
    """Stamp the open, unpublished work that is due next as published and return it.

    First work of the ordered stages; then searches, then parts of searches for the best. Of each kind that of the
    tenant of whom the fewest are published for its weight, and of its corpora that of which the fewest are for its
    priority: each step of it doubles what a corpus gets. While what is due next of a corpus is of a text, or of one
    before it, the corpus has at least the priority of that text: it cannot pass others of its corpus. Where several
    are equal, one of them by chance, in the same proportion: so none waits for all the work of another, also where more
    wait than may be published at a time.
    Nothing of a paused corpus, and no search of a corpus whose budget is spent, or of a tenant whose quota of orthos
    is; its texts still become versions, and its best orthos are searched for: they are not stored.

    With `published_limit` so much work of each kind is published at a time, of a tenant no more searches than its
    `max_searches`, and of each corpus one message of an ordered stage: it is the only one that can be processed.
    Several relays may exceed it by a few.
    """
    row = connection.execute(_TAKE, {"corpus": corpus, "most": published_limit}).first()
    return None if row is None else Taken(read(row[:-1]), row.name)


# One corpus is asked for as a range, and the order is that of work_unpublished_idx: so that index is read from there
# on, however many rows that are done stand in the table.
_FIRST = f"""
SELECT corpus FROM work
 WHERE state = 'open' AND published_at IS NULL AND {TAKEN_UP}
   AND corpus BETWEEN coalesce(CAST(:corpus AS integer), 0) AND coalesce(CAST(:corpus AS integer), 2147483647)
 ORDER BY corpus, work.priority DESC LIMIT 1
"""
_ANY = text(_FIRST)
# The corpora that have work are found by skipping through work_unpublished_idx, one probe each; then the first row of
# each kind. Only rows that can be taken are read, however many wait. The smallest of the numbers -ln(random()) / share
# is that of a tenant, or corpus, as often as its share says.
_TAKE = text(f"""
WITH RECURSIVE busy (corpus) AS (
    ({_FIRST})
     UNION ALL
    SELECT (SELECT work.corpus FROM work WHERE state = 'open' AND published_at IS NULL AND {TAKEN_UP}
               AND work.corpus > busy.corpus AND CAST(:corpus AS integer) IS NULL ORDER BY work.corpus LIMIT 1)
      FROM busy WHERE busy.corpus IS NOT NULL
), running AS MATERIALIZED (
    SELECT corpus, tenant, kind, count(*) AS number
      FROM work JOIN corpora ON corpora.id = work.corpus AND paused_at IS NULL
     WHERE state = 'open' AND published_at IS NOT NULL GROUP BY corpus, tenant, kind
), shares AS MATERIALIZED (
    SELECT tenant, kind, sum(number) AS number FROM running GROUP BY tenant, kind
), theirs AS MATERIALIZED (
    SELECT id, weight::float8 AS share, max_searches, -ln(1 - random()) / weight AS lot FROM tenants
     WHERE id IN (SELECT tenant FROM busy JOIN corpora ON corpora.id = busy.corpus)
), kinds (kind, place, low, high) AS (
    VALUES ('context', 1, {CONTEXT}, {CONTEXT}), ('ingest', 2, {INGEST}, {INGEST}),
           ('remediations', 3, {REMEDIATIONS}, {REMEDIATIONS}), ('search', 4, {START}, {REMEDIATIONS} - 1),
           ('best', 5, {BEST}, {BEST})
), room AS MATERIALIZED (
    SELECT kind, place, low, high FROM kinds
     WHERE CAST(:most AS integer) IS NULL
        OR :most > ALL (SELECT sum(number) FROM running
                         WHERE running.kind = kinds.kind OR (kinds.kind = 'best' AND running.kind = 'search')
                         GROUP BY kind)
), chosen AS MATERIALIZED (
    SELECT busy.corpus, room.kind
      FROM busy JOIN corpora ON corpora.id = busy.corpus AND paused_at IS NULL
      JOIN theirs ON theirs.id = corpora.tenant CROSS JOIN room
      LEFT JOIN running ON running.corpus = busy.corpus AND running.kind = room.kind
      LEFT JOIN shares ON shares.tenant = corpora.tenant AND shares.kind = room.kind
     CROSS JOIN LATERAL (
           SELECT since, version FROM work
            WHERE work.corpus = busy.corpus AND state = 'open' AND published_at IS NULL AND {TAKEN_UP}
              AND work.priority BETWEEN room.low AND room.high
              AND (not_before IS NULL OR not_before <= clock_timestamp())
              AND (room.kind <> 'search' OR NOT {SPENT})
            ORDER BY work.priority DESC, work.created_at, work.id LIMIT 1
           ) AS first
     CROSS JOIN LATERAL (
           SELECT 2.0::float8 ^ greatest(corpora.priority, max(texts.priority)) AS share FROM texts
            WHERE texts.corpus = busy.corpus AND texts.priority > 0
              AND (texts.version > CASE room.kind WHEN 'search' THEN first.since
                                                  WHEN 'remediations' THEN first.version - 1 END
                   OR (texts.version IS NULL AND texts.state IN ('accepted', 'ingested') AND room.kind <> 'best'))
           ) AS its
     WHERE (room.kind NOT IN ('search', 'best') OR max_searches IS NULL OR coalesce(shares.number, 0) < max_searches)
       AND (room.low < {REMEDIATIONS} OR running.number IS NULL OR CAST(:most AS integer) IS NULL)
     ORDER BY place, coalesce(shares.number, 0) / theirs.share, lot,
              coalesce(running.number, 0) / its.share, -ln(1 - random()) / its.share
     LIMIT 1
), first AS MATERIALIZED (
    SELECT item.id FROM chosen JOIN kinds USING (kind) CROSS JOIN LATERAL (
           SELECT id FROM work
            WHERE work.corpus = chosen.corpus AND state = 'open' AND published_at IS NULL AND {TAKEN_UP}
              AND work.priority BETWEEN kinds.low AND kinds.high
              AND (not_before IS NULL OR not_before <= clock_timestamp())
            ORDER BY work.priority DESC, work.created_at, work.id LIMIT 1 FOR UPDATE SKIP LOCKED
           ) AS item
)
UPDATE work SET published_at = clock_timestamp(), not_before = NULL
 WHERE id IN (SELECT id FROM first)
RETURNING {", ".join(f"work.{column.name}" for column in COLUMNS)},
          coalesce((SELECT name FROM corpora WHERE corpora.id = work.corpus), work.corpus::text) AS name
""")
