"""The rows of `work`: what is to be done. Written in the transaction of the step that wants it, published after."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from psycopg.types.range import Range
from sqlalchemy import Connection, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from crochet_tasks.db.tables import texts, work
from crochet_tasks.engine.geometry import Sides, volume

NAMESPACE = uuid.UUID("6a7e1f2c-58a1-5f0e-9c39-0d5f6b3d7c11")
"""Fixed for ever: ids of work and keys of batches are uuid5 in it."""

CONTEXT, INGEST, REMEDIATIONS = 4_000_000, 3_000_000, 2_000_000
"""Priorities of the ordered stages. Searches come after them, larger volumes first."""
SEED = 0


class Item(NamedTuple):
    """A piece of work; what it means is said in 2-pipeline, "Work item"."""

    id: uuid.UUID
    corpus: int
    kind: str
    subject: int
    part: tuple[int, int] | None
    since: int
    version: int
    priority: int
    size: int
    sides: Sides | None

    @property
    def window(self) -> int:
        """The version after which lines count as new to the search.

        What the batch consulted was not continued between `since` and the version that made it due, else that
        earlier version would have made it due. So it is enough to look from there on, and all batches that one
        version made due are searched through the same window.
        """
        return 0 if self.since == 0 else self.version - 1


def _id(kind: str, corpus: int, subject: int, part: tuple[int, int] | None, since: int) -> uuid.UUID:
    return uuid.uuid5(NAMESPACE, f"{kind}:{corpus}:{subject}:{part}:{since}")


def _stage(kind: str, corpus: int, subject: int, version: int, priority: int) -> Item:
    return Item(_id(kind, corpus, subject, None, 0), corpus, kind, subject, None, 0, version, priority, 1, None)


def ingest(corpus: int, text: int) -> Item:
    return _stage("ingest", corpus, text, 0, INGEST)


def context(corpus: int, text: int) -> Item:
    return _stage("context", corpus, text, 0, CONTEXT)


def remediations(corpus: int, version: int) -> Item:
    return _stage("remediations", corpus, version, version, REMEDIATIONS)


def seed(corpus: int, version: int, part: tuple[int, int]) -> Item:
    """Play the empty ortho: start pairs [first, last) of a version."""
    since = version - 1
    identity = _id("seed", corpus, version, part, since)
    return Item(identity, corpus, "seed", version, part, since, version, SEED, 1, None)


def grow(corpus: int, batch: int, sides: Sides, size: int, *, since: int, version: int) -> Item:
    """Search a batch; `since` is up to where it was searched before, `version` what made it due."""
    identity = _id("grow", corpus, batch, None, since)
    return Item(identity, corpus, "grow", batch, None, since, version, volume(sides), size, sides)


def add(connection: Connection, items: Iterable[Item]) -> None:
    """Write work; what is there already stays as it is."""
    rows = [_row(item) for item in sorted(items)]  # in one order everywhere: so no two wait for each other
    if rows:
        connection.execute(insert(work).on_conflict_do_nothing(), rows)


def _row(item: Item) -> dict[str, Any]:
    return item._asdict() | {
        "part": None if item.part is None else Range(*item.part),
        "sides": None if item.sides is None else list(item.sides),
    }


_COLUMNS = [work.c[name] for name in Item._fields]


def _read(row: Any) -> Item:
    item = Item(*row)
    return item._replace(
        part=None if item.part is None else (item.part.lower, item.part.upper),  # type: ignore[attr-defined]
        sides=None if item.sides is None else tuple(item.sides),
    )


def claim(connection: Connection, ids: Sequence[uuid.UUID]) -> list[Item]:
    """Lock those of these items that are still open, in the order of their ids."""
    query = select(*_COLUMNS).where(work.c.id.in_(ids), work.c.state == "open").order_by(work.c.id)
    return [_read(row) for row in connection.execute(query.with_for_update())]


def opened(connection: Connection, ids: Sequence[uuid.UUID]) -> list[Item]:
    """Those of these items that are still open, in the order of their ids."""
    query = select(*_COLUMNS).where(work.c.id.in_(ids), work.c.state == "open").order_by(work.c.id)
    return [_read(row) for row in connection.execute(query)]


def done(connection: Connection, ids: Iterable[uuid.UUID], upto: int | None = None) -> None:
    finished = update(work).where(work.c.id.in_(list(ids)), work.c.state == "open")
    connection.execute(finished.values(state="done", upto=upto, finished_at=func.now(), error=None))


def due_before(connection: Connection, corpus: int, version: int) -> list[Item]:
    """Lock the open `remediations` of a corpus up to a version, oldest first."""
    query = select(*_COLUMNS).where(
        work.c.corpus == corpus, work.c.kind == "remediations", work.c.state == "open", work.c.subject <= version
    )
    return [_read(row) for row in connection.execute(query.order_by(work.c.subject).with_for_update())]


def hand_back(connection: Connection, ids: Sequence[uuid.UUID]) -> None:
    """Let the relay publish open items again: this time they were not, or not wholly, worked on."""
    if not ids:
        return
    connection.execute(update(work).where(work.c.id.in_(ids), work.c.state == "open").values(published_at=None))


def fail(connection: Connection, ids: Iterable[uuid.UUID], error: dict[str, str]) -> None:
    failed = update(work).where(work.c.id.in_(list(ids)), work.c.state == "open")
    connection.execute(failed.values(state="failed", attempts=work.c.attempts + 1, error=error))


def abandoned(connection: Connection, corpus: int) -> None:
    """Have everything open published again: for a process that knows that nobody else works on it."""
    published = work.c.corpus == corpus, work.c.state == "open", work.c.published_at.is_not(None)
    connection.execute(update(work).where(*published).values(published_at=None))


def reopen(connection: Connection, ids: Iterable[uuid.UUID]) -> None:
    """Open failed items again, for another try."""
    failed = update(work).where(work.c.id.in_(list(ids)), work.c.state == "failed")
    connection.execute(failed.values(state="open", published_at=None))


def reopen_failed(connection: Connection, corpus: int) -> int:
    """Open failed work again, for another try; how many there were. A text that failed stays so: others overtook it."""
    failed = update(work).where(work.c.corpus == corpus, work.c.state == "failed", work.c.kind != "ingest")
    return connection.execute(failed.values(state="open", published_at=None)).rowcount


def knock(connection: Connection, corpus: int) -> None:
    """Have the ingestion of the corpus' waiting texts published again: it may be their turn."""
    waiting = select(texts.c.id).where(texts.c.corpus == corpus, texts.c.state == "accepted")
    due = work.c.state == "open", work.c.kind == "ingest", work.c.corpus == corpus, work.c.subject.in_(waiting)
    connection.execute(update(work).where(*due).values(published_at=None))


class States(NamedTuple):
    """How many items are in which state."""

    open: int
    done: int
    failed: int


def states(connection: Connection, corpus: int) -> States:
    rows = connection.execute(
        select(work.c.state, func.count()).where(work.c.corpus == corpus).group_by(work.c.state)
    ).all()
    by_state = {state: int(number) for state, number in rows}
    return States(*(by_state.get(name, 0) for name in States._fields))


def failures(connection: Connection, corpus: int) -> tuple[int, dict[str, str] | None]:
    """How much work failed, and the error of the oldest; that of texts is kept with them and not counted here."""
    failed = work.c.corpus == corpus, work.c.state == "failed", work.c.kind != "ingest"
    number = connection.execute(select(func.count()).select_from(work).where(*failed)).scalar_one()
    return number, connection.execute(select(work.c.error).where(*failed).order_by(work.c.created_at).limit(1)).scalar()


def ordered_waits(connection: Connection, corpus: int) -> bool:
    """Whether there is work of the ordered stages to be published."""
    waits = work.c.state == "open", work.c.published_at.is_(None), work.c.priority >= REMEDIATIONS
    query = select(work.c.id).where(work.c.corpus == corpus, *waits)
    return connection.execute(query.limit(1)).first() is not None


def take_next(connection: Connection, corpus: int | None, group_orthos: int) -> list[Item]:
    """Stamp the most urgent open, unpublished work as published and return it.

    Items that one search can do together come together: batches of the same shape that are searched through the
    same window (the first time, or since the same version), `group_orthos` orthos in all or a little more; four
    times as many when they were searched before, because little comes of most of them.
    """
    rows = connection.execute(text(_TAKE), {"corpus": corpus, "orthos": group_orthos, "again": 4 * group_orthos})
    return sorted((_read(row) for row in rows), key=lambda item: item.id)


_TAKE = f"""
WITH first AS MATERIALIZED (
    SELECT * FROM work
     WHERE state = 'open' AND published_at IS NULL AND (not_before IS NULL OR not_before <= clock_timestamp())
       AND (CAST(:corpus AS integer) IS NULL OR corpus = :corpus)
     ORDER BY priority DESC, created_at, id
     LIMIT 1 FOR UPDATE SKIP LOCKED
), alike AS MATERIALIZED (
    SELECT work.id, work.size, work.since, work.created_at FROM work, first
     WHERE work.state = 'open' AND work.published_at IS NULL AND work.priority = first.priority
       AND (work.not_before IS NULL OR work.not_before <= clock_timestamp())
       AND work.kind = 'grow' AND first.kind = 'grow' AND work.corpus = first.corpus AND work.sides = first.sides
       AND (work.since = 0) = (first.since = 0) AND (first.since = 0 OR work.version = first.version)
     ORDER BY work.created_at, work.id
     LIMIT 64 FOR UPDATE OF work SKIP LOCKED
), together AS (
    SELECT id, since, sum(size) OVER (ORDER BY created_at, id) - size AS before FROM alike
)
UPDATE work SET published_at = clock_timestamp()
 WHERE id IN (
       SELECT id FROM first
        UNION
       SELECT id FROM together WHERE before < CASE WHEN since = 0 THEN :orthos ELSE :again END
       )
RETURNING {", ".join(f"work.{column.name}" for column in _COLUMNS)}
"""
