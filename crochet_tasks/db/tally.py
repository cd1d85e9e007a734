"""The one module that counts: orthos per shape, work by state, texts by state, and the whole store for metrics.

Each count reads by an index what it counts and nothing else; where there may be millions the caller gives `most`, after
which it stops counting. How fast it goes is in statistics.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, select, text

from crochet_tasks.db import bulk
from crochet_tasks.db.corpora import Lock, take_lock
from crochet_tasks.db.tables import TAKEN_UP, corpora, counts, texts, work
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.schemas.progress import States

OF_A_TEXT = ("ingest", "context")
"""kinds of work that fail with their text"""
SEARCHING = ("remediations", "search")
"""kinds of work that find orthos: where one is dropped orthos are missing"""

BESIDE = "best"
"""the kind of work that finds no orthos for the store: a corpus is closed whether it is done or not"""

# ── where open work is ──────────────────────────────────────────────────────────────────────────

OPEN = ("ready", "held", "published", "waiting", "parked")
"""States of open work, for lists, statistics and metrics: to be published next; held back by SPENT, or because its
corpus is paused; published, so in a queue or with a worker; to be retried; parked until its turn in an ordered stage.
"""
_BUDGET = "coalesce(budget <= (SELECT sum(orthos) FROM counts WHERE counts.corpus = corpora.id), false)"
SPENT = f"({_BUDGET} OR corpora.tenant IN (SELECT id FROM tenants WHERE full_at IS NOT NULL))"
"""SQL, of a row of `corpora`: it holds as many orthos as its budget allows, or its tenant as many as its quota does"""


def open_state(now: str, spent: str = f"IN (SELECT id FROM corpora WHERE {SPENT})") -> str:
    """Return SQL for the state of an open row of `work`, one of OPEN.

    `now`: the SQL for the current time. `spent`: the SQL that tests `work.corpus` for a spent budget; where the corpora
    are known already, naming them keeps the planner on the index.
    """
    return f"""
CASE WHEN work.published_at IS NOT NULL THEN 'published'
     WHEN work.not_before = 'infinity' THEN CASE WHEN work.kind = 'search' THEN 'held' ELSE 'parked' END
     WHEN work.not_before > {now} THEN 'waiting'
     WHEN work.kind = 'search' AND work.corpus {spent} THEN 'held'
     WHEN work.corpus IN (SELECT id FROM corpora WHERE paused_at IS NOT NULL) THEN 'held'
     ELSE 'ready' END
"""


def spent(connection: Connection, corpus: int) -> bool:
    """Whether the budget of a corpus is spent: no search is published until it is raised."""
    found = connection.execute(select(corpora.c.id).where(corpora.c.id == corpus, text(SPENT)))
    return found.first() is not None


# ── orthos ──────────────────────────────────────────────────────────────────────────────────────


class Change(NamedTuple):
    """How many orthos and batches there are of a shape, or by how many that changes."""

    orthos: int
    batches: int


def count(connection: Connection, corpus: int, changes: dict[Sides, Change]) -> None:
    """Change the counters. Call it last in a transaction: it takes the COUNTS lock."""
    take_lock(connection, corpus, Lock.COUNTS)
    bulk.execute(
        connection,
        _COUNT,
        {
            "corpus": corpus,
            "sides": [bulk.array_text(sides) for sides in changes],
            "orthos": [change.orthos for change in changes.values()],
            "batches": [change.batches for change in changes.values()],
        },
    )


# An upsert would not do: ON CONFLICT checks the row to be inserted, which here may have negative numbers.
_COUNT = """
WITH change AS (
    SELECT sides::smallint[] AS sides, orthos, batches
      FROM unnest(%(sides)s::text[], %(orthos)s::bigint[], %(batches)s::bigint[]) AS change (sides, orthos, batches)
), changed AS (
    UPDATE counts SET orthos = counts.orthos + change.orthos, batches = counts.batches + change.batches
      FROM change WHERE counts.corpus = %(corpus)s AND counts.sides = change.sides
    RETURNING counts.sides
)
INSERT INTO counts (corpus, sides, orthos, batches)
SELECT %(corpus)s, sides, orthos, batches FROM change WHERE sides NOT IN (SELECT sides FROM changed)
"""


def counted(connection: Connection, corpus: int) -> dict[Sides, Change]:
    """The counters per shape."""
    rows = connection.execute(
        select(counts.c.sides, counts.c.orthos, counts.c.batches).where(counts.c.corpus == corpus)
    )
    return {tuple(sides): Change(orthos, batches) for sides, orthos, batches in rows}


def total(connection: Connection, corpus: int) -> int:
    """How many orthos are stored."""
    return int(connection.execute(_TOTAL, {"of": corpus}).scalar_one())


_TOTAL = select(func.coalesce(func.sum(counts.c.orthos), 0)).where(counts.c.corpus == bindparam("of"))
"""compiled once: every ETag needs it"""


# ── work ────────────────────────────────────────────────────────────────────────────────────────


def states(connection: Connection, corpus: int, most: int | None = None) -> States:
    """How much work of a corpus that finds orthos is in which state; at most `most` of each are counted."""
    return States(*connection.execute(text(_STATES), {"corpus": corpus, "most": most}).one())


_BY_INDEX = "ORDER BY created_at"
"""the order of work_corpus_idx: else the table may be read from its start, where all stands that was done long ago"""


def _number_in(state: str, which: str = f"kind <> '{BESIDE}'") -> str:
    few = f"SELECT FROM work WHERE corpus = :corpus AND state = '{state}' AND {which} {_BY_INDEX} LIMIT :most"
    return f"(SELECT count(*) FROM ({few}) AS few)"


_STATES = "SELECT " + ", ".join(map(_number_in, ("open", "done", "failed")))


class Left(NamedTuple):
    """The work for whose sake orthos may be missing."""

    open: int
    failed: int
    dropped: int

    @property
    def closed(self) -> bool:
        """Whether none is left: the store holds exactly the closure of the texts that are a part of the corpus.

        A text that failed is none of them, and a search for the best finds nothing for the store.
        """
        return not any(self)


def left(connection: Connection, corpus: int, most: int | None = None) -> Left:
    """Count the work for whose sake orthos may be missing; at most `most` that is open or dropped.

    Of searches that were dropped the orthos that they would find are missing. Failed texts, and searches for the best,
    are not counted.
    """
    return Left(*connection.execute(text(_LEFT), {"corpus": corpus, "most": most}).one())


_LEFT_COLUMNS = f"""
       {_number_in("open")},
       (SELECT count(*) FROM work
         WHERE corpus = :corpus AND state = 'failed' AND kind <> ALL(ARRAY{[*OF_A_TEXT, BESIDE]})),
       {_number_in("cancelled", f"kind = ANY(ARRAY{[*SEARCHING]})")}
"""
_LEFT = f"SELECT {_LEFT_COLUMNS}"


def any_open(connection: Connection, corpus: int, kind: str | None = None) -> bool:
    """Whether a corpus has open work of a kind, by default of any, also such as finds no orthos."""
    first = select(work.c.id).where(work.c.corpus == corpus, work.c.state == "open")
    if kind is not None:
        first = first.where(work.c.kind == kind)
    first = first.order_by(work.c.created_at).limit(1)
    return connection.execute(first).first() is not None


def failures(connection: Connection, corpus: int) -> tuple[int, dict[str, Any] | None]:
    """How much work failed, and the error of the oldest; that of texts, and of searches for the best, is kept with
    them and not counted here.
    """
    failed = work.c.corpus == corpus, work.c.state == "failed", work.c.kind.not_in((*OF_A_TEXT, BESIDE))
    number = connection.execute(select(func.count()).select_from(work).where(*failed)).scalar_one()
    return number, connection.execute(select(work.c.error).where(*failed).order_by(work.c.created_at).limit(1)).scalar()


def unpublished(connection: Connection, corpus: int, most: int) -> int:
    """How much work of a corpus that finds orthos is still to be published; at most `most` are counted."""
    return int(connection.execute(text(_UNPUBLISHED), {"corpus": corpus, "most": most}).scalar_one())


_UNPUBLISHED = "SELECT " + _number_in("open", f"kind <> '{BESIDE}' AND published_at IS NULL")

# ── texts ───────────────────────────────────────────────────────────────────────────────────────


def texts_by_state(connection: Connection, corpus: int) -> dict[str, int]:
    """How many texts are in which state; states that no text is in are left out."""
    query = select(texts.c.state, func.count()).where(texts.c.corpus == corpus)
    rows = connection.execute(query.group_by(texts.c.state).order_by(texts.c.state))
    return {state: int(number) for state, number in rows}


def waiting_texts(connection: Connection, corpus: int, most: int) -> int:
    """How many texts of a corpus wait; at most `most` are counted."""
    return int(connection.execute(text(_WAITING), {"corpus": corpus, "most": most}).scalar_one())


_WAITING = """
SELECT count(*) FROM (
    SELECT FROM texts WHERE corpus = :corpus AND state IN ('accepted', 'ingested') ORDER BY seq LIMIT :most
) AS few
"""

# ── a corpus ────────────────────────────────────────────────────────────────────────────────────


class Extent(NamedTuple):
    """How large a corpus is, and how far."""

    left: Left
    done: int
    failed: int
    """work without searches for the best; `failed` includes texts"""
    oldest_open: float | None
    """the age of the oldest open work, in seconds"""
    texts: dict[str, int]
    """by state"""
    words: int
    phrases: int
    """at its version"""
    packed_bytes: int
    """of its texts, phrases, orthos and remediations, as packed; no value is read for it"""


def extent(connection: Connection, corpus: int, version: int, most: int | None = None) -> Extent:
    """Read it by one statement, as it is polled; of open, done, dropped and `failed` work at most `most` is counted."""
    values = {"corpus": corpus, "version": version, "most": most}
    is_open, failed, dropped, *rest = connection.execute(text(_EXTENT), values).one()
    return Extent(Left(is_open, failed, dropped), *rest)


_EXTENT = f"""
SELECT {_LEFT_COLUMNS}, {_number_in("done")}, {_number_in("failed")},
       (SELECT greatest(0, extract(epoch FROM clock_timestamp() - created_at))::float8 FROM work
         WHERE corpus = :corpus AND state = 'open' {_BY_INDEX} LIMIT 1),
       (SELECT coalesce(json_object_agg(state, number ORDER BY state), '{{}}')
          FROM (SELECT state, count(*) AS number FROM texts WHERE corpus = :corpus GROUP BY state) AS each),
       (SELECT count(*) FROM words WHERE corpus = :corpus AND born <= :version),
       (SELECT coalesce(sum(count), 0)::bigint FROM phrases WHERE corpus = :corpus AND born <= :version),
       ((SELECT coalesce(sum(octet_length(body)), 0) FROM texts WHERE corpus = :corpus)
      + (SELECT coalesce(sum(octet_length(parent) + octet_length(word)), 0) FROM phrases WHERE corpus = :corpus)
      + (SELECT coalesce(sum(octet_length(packed) + coalesce(octet_length(phrases), 0)), 0)
           FROM batches LEFT JOIN remediations ON remediations.batch = batches.id WHERE corpus = :corpus))::bigint
"""

# ── corpora ─────────────────────────────────────────────────────────────────────────────────────


class Progress(NamedTuple):
    """How far a corpus is."""

    id: int
    tenant: int
    corpus: str
    version: int
    orthos: int
    waiting_texts: int
    open_work: int
    failed_work: int


def progress(connection: Connection, tenants: list[int], most: int) -> list[Progress]:
    """Return the progress of all corpora of these tenants, reading about `most` rows of work in all: it is polled."""
    return [Progress(*row) for row in connection.execute(text(_PROGRESS), {"tenants": tenants, "most": most})]


# In the order of an index each, or the planner may scan the whole table.
_PROGRESS = """
WITH mine AS MATERIALIZED (
    SELECT id, tenant, name, version FROM corpora WHERE removed_at IS NULL AND tenant = ANY(:tenants)
), share AS MATERIALIZED (
    SELECT 1 + :most / (1 + count(*)) AS most FROM mine
)
SELECT mine.id, tenant, name, version,
       (SELECT coalesce(sum(orthos), 0)::bigint FROM counts WHERE counts.corpus = mine.id),
       (SELECT count(*) FROM (SELECT FROM texts WHERE texts.corpus = mine.id AND state IN ('accepted', 'ingested')
                               ORDER BY seq LIMIT (SELECT most FROM share)) AS few),
       (SELECT count(*) FROM (SELECT FROM work WHERE work.corpus = mine.id AND state = 'open'
                               ORDER BY created_at LIMIT (SELECT most FROM share)) AS few),
       (SELECT count(*) FROM (SELECT FROM work WHERE work.corpus = mine.id AND state = 'failed'
                               ORDER BY created_at LIMIT (SELECT most FROM share)) AS few)
  FROM mine ORDER BY name
"""


# ── the whole store ─────────────────────────────────────────────────────────────────────────────


class Group(NamedTuple):
    """Work of one corpus that is alike. `state`: one of OPEN, or failed; ages in seconds."""

    corpus: int
    kind: str
    state: str
    number: int
    tried: int
    overdue: int
    oldest: float
    version: int | None
    """the lowest that made any of it due; None for work of texts"""

    @property
    def unclosed(self) -> bool:
        """Whether its corpus is not closed because of it, as in Left; what an operator dropped is not in a census."""
        beside = (*OF_A_TEXT, BESIDE) if self.state == "failed" else (BESIDE,)
        return self.kind not in beside


class Version(NamedTuple):
    """A corpus and the version that it is at."""

    id: int
    version: int


class Census(NamedTuple):
    """The state of the store in numbers, from one snapshot."""

    work: list[Group]
    corpora: list[Version]
    texts: dict[str, int]
    """by state"""
    oldest_text: float
    """seconds; of those that are no version yet"""
    orthos: list[tuple[Sides, int, int]]
    """(shape, orthos, batches), of all corpora"""
    dead_letters: int


def census(connection: Connection, lease: float, seconds: float) -> Census:
    """Count open and failed work, unfinished texts, shapes and corpora: what is done costs nothing.

    Raises DatabaseConflict where a statement takes longer than so many seconds.
    """
    connection.execute(
        text("SELECT set_config('statement_timeout', :most, true)"), {"most": f"{round(1000 * seconds)}"}
    )
    every = [Version(*row) for row in connection.execute(text(_VERSIONS))]
    unfinished = connection.execute(text(_UNFINISHED_TEXTS)).all()
    by_state = {state: int(number) for state, number, _ in unfinished}
    if current := sum(corpus.version for corpus in every):  # each version is a text
        by_state["current"] = current
    return Census(
        work=[Group(*row) for row in connection.execute(text(_WORK), {"lease": lease})],
        corpora=every,
        texts=by_state,
        oldest_text=max((float(age) for state, _, age in unfinished if state in ("accepted", "ingested")), default=0.0),
        orthos=[
            (tuple(sides), int(orthos), int(number)) for sides, orthos, number in connection.execute(text(_SHAPES))
        ],
        dead_letters=dead_letters(connection),
    )


def _grouped(state: str, which: str) -> str:
    return f"""
SELECT corpus, kind, {state} AS open_state, count(*), count(*) FILTER (WHERE attempts > 0),
       count(*) FILTER (WHERE published_at < clock_timestamp() - make_interval(secs => :lease)),
       greatest(0, extract(epoch FROM clock_timestamp() - min(created_at)))::float8, min(nullif(version, 0))
  FROM work WHERE {which} GROUP BY corpus, kind, open_state
"""


# Each part has an index of its own.
_WORK = " UNION ALL ".join(
    [
        _grouped("'published'", "state = 'open' AND published_at IS NOT NULL"),
        _grouped(open_state("clock_timestamp()"), f"state = 'open' AND published_at IS NULL AND {TAKEN_UP}"),
        _grouped(
            open_state("clock_timestamp()"), "state = 'open' AND published_at IS NULL AND not_before = 'infinity'"
        ),
        _grouped("'failed'", "state = 'failed'"),
    ]
)
_VERSIONS = "SELECT id, version FROM corpora WHERE removed_at IS NULL"
# By an index of those that are no versions: a store keeps all its texts.
_UNFINISHED_TEXTS = """
SELECT state, count(*), greatest(0, extract(epoch FROM clock_timestamp() - min(accepted_at))) FROM texts
 WHERE state <> 'current' GROUP BY state
"""
_SHAPES = "SELECT sides, sum(orthos), sum(batches) FROM counts GROUP BY sides"


def dead_letters(connection: Connection) -> int:
    """How many dead letters there are."""
    return int(connection.execute(text("SELECT count(*) FROM dead_letters")).scalar_one())


def ages(connection: Connection, corpus: int, since: int, upto: int) -> list[float]:
    """Seconds since the texts of the versions in (since, upto] were accepted."""
    return [float(age) for (age,) in connection.execute(text(_AGES), {"corpus": corpus, "since": since, "upto": upto})]


_AGES = """
SELECT greatest(0, extract(epoch FROM clock_timestamp() - accepted_at)) FROM texts
 WHERE corpus = :corpus AND version > :since AND version <= :upto
"""


def database_bytes(connection: Connection) -> int:
    """Bytes of the database on disk."""
    return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
