"""The state of the whole store in numbers, in a few statements that stay cheap however much was done before.

Open work is read by its partial indexes, so what is done costs nothing; the number of texts and shapes is small beside
it. Taken in one snapshot.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from crochet_tasks.db.positions import standing
from crochet_tasks.engine.geometry import Sides


class Group(NamedTuple):
    """Work of one corpus that is alike. `state`: one of standing.OPEN, or failed; ages in seconds."""

    corpus: int
    kind: str
    sides: Sides | None
    state: str
    number: int
    tried: int
    overdue: int
    oldest: float
    version: int | None
    """the lowest that made any of it due; None for work of texts"""


class Corpus(NamedTuple):
    id: int
    version: int


class Census(NamedTuple):
    work: list[Group]
    corpora: list[Corpus]
    texts: dict[str, int]
    """by state"""
    oldest_text: float
    """seconds; of those that are no version yet"""
    orthos: list[tuple[Sides, int, int]]
    """(shape, orthos, batches), of all corpora"""
    dead_letters: int


def take(connection: Connection, lease: float, seconds: float) -> Census:
    """Raises DatabaseConflict where a statement takes longer than so many seconds."""
    connection.execute(
        text("SELECT set_config('statement_timeout', :most, true)"), {"most": f"{round(1000 * seconds)}"}
    )
    work = connection.execute(text(_WORK), {"lease": lease}).all()
    waiting = connection.execute(text(_TEXTS)).all()
    return Census(
        work=[_group(row) for row in work],
        corpora=[Corpus(*row) for row in connection.execute(text(_CORPORA))],
        texts={state: int(number) for state, number, _ in waiting},
        oldest_text=max((float(age) for state, _, age in waiting if state in ("accepted", "ingested")), default=0.0),
        orthos=[
            (tuple(sides), int(orthos), int(number)) for sides, orthos, number in connection.execute(text(_SHAPES))
        ],
        dead_letters=int(connection.execute(text("SELECT count(*) FROM dead_letters")).scalar_one()),
    )


def _group(row: Any) -> Group:
    group = Group(*row)
    return group._replace(sides=None if group.sides is None else tuple(group.sides), oldest=float(group.oldest))


def _counted(state: str, which: str) -> str:
    return f"""
SELECT corpus, kind, sides, {state} AS standing, count(*), count(*) FILTER (WHERE attempts > 0),
       count(*) FILTER (WHERE published_at < clock_timestamp() - make_interval(secs => :lease)),
       greatest(0, extract(epoch FROM clock_timestamp() - min(created_at))), min(nullif(version, 0))
  FROM work WHERE {which} GROUP BY corpus, kind, sides, standing
"""


# Each part has an index of its own.
_WORK = " UNION ALL ".join(
    [
        _counted("'published'", "state = 'open' AND published_at IS NOT NULL"),
        _counted(standing("clock_timestamp()"), "state = 'open' AND published_at IS NULL"),
        _counted("'failed'", "state = 'failed'"),
    ]
)
_CORPORA = "SELECT id, version FROM corpora WHERE removed_at IS NULL"
_TEXTS = """
SELECT state, count(*), greatest(0, extract(epoch FROM clock_timestamp() - min(accepted_at))) FROM texts GROUP BY state
"""
_SHAPES = "SELECT sides, sum(orthos), sum(batches) FROM counts GROUP BY sides"


def ages(connection: Connection, corpus: int, since: int, upto: int) -> list[float]:
    """Seconds since the texts of the versions in (since, upto] were accepted."""
    return [float(age) for (age,) in connection.execute(text(_AGES), {"corpus": corpus, "since": since, "upto": upto})]


_AGES = """
SELECT greatest(0, extract(epoch FROM clock_timestamp() - accepted_at)) FROM texts
 WHERE corpus = :corpus AND version > :since AND version <= :upto
"""


def size(connection: Connection) -> int:
    """Bytes of the database on disk."""
    return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
