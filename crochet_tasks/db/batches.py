"""Batches of orthos, each a sorted run of one shape, and the remediations written with them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete

from crochet_tasks.db import bulk
from crochet_tasks.db.tables import KEY_CHARACTERS, batches
from crochet_tasks.engine import runs
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.tree import Tree
from crochet_tasks.errors import StoreCorrupt


class Stored(NamedTuple):
    """A stored batch without its orthos: what a reader needs to choose batches."""

    id: int
    sides: Sides
    count: int  # type: ignore[assignment]  # no tuple.count is needed
    numbering: int
    """the version whose phrase ids it holds"""
    first: str
    """the words of its first ortho, separated by spaces; so of the last"""
    last: str
    born: int
    """the version at which all its orthos existed"""


class Batch(NamedTuple):
    """A whole stored batch and its remediation; `phrases` is None where that is missing."""

    stored: Stored
    key: uuid.UUID
    packed: bytes
    phrases: bytes | None


class NewBatch(NamedTuple):
    """A batch to be written, with its remediation: `phrases`, the packed set of all lines of its orthos."""

    key: uuid.UUID
    sides: Sides
    count: int  # type: ignore[assignment]  # no tuple.count is needed
    first: str
    last: str
    packed: bytes
    phrases: bytes


def add(
    connection: Connection, corpus: int, new: list[NewBatch], *, by: uuid.UUID, born: int, numbering: int | None = None
) -> list[int]:
    """Write batches and their remediations; returns their ids in the same order. `numbering`: if not `born`.

    Raises StoreCorrupt where one was damaged on its way here.
    """
    if not new:
        return []
    for batch in new:
        _check(batch)
    keys, sides, counts, firsts, lasts, packed_orthos, phrases = zip(*new, strict=True)
    rows = bulk.execute(
        connection,
        _ADD,
        {
            "corpus": corpus,
            "keys": list(keys),
            "sides": [bulk.array_text(shape) for shape in sides],
            "counts": list(counts),
            "firsts": list(firsts),
            "lasts": list(lasts),
            "packed": list(packed_orthos),
            "phrases": list(phrases),
            "by": by,
            "born": born,
            "numbering": born if numbering is None else numbering,
        },
    )
    ids = dict(rows)
    return [ids[key] for key in keys]


def _check(batch: NewBatch) -> None:
    """Whether it is as it was packed: by its checksums, some microseconds; its orthos are not unpacked."""
    try:
        if (held := runs.held(batch.packed)) != batch.count:
            raise runs.DamagedRun(f"it holds {held} orthos, not {batch.count}")  # noqa: TRY301
        runs.held(batch.phrases)
    except runs.DamagedRun as error:
        raise StoreCorrupt(problem=f"a batch that is to be stored is damaged ({error})") from error


# One statement: no batch without its remediation. The foreign key is checked at its end.
_ADD = """
WITH new AS MATERIALIZED (
    SELECT * FROM unnest(%(keys)s::uuid[], %(sides)s::text[], %(counts)s::int[], %(firsts)b::text[], %(lasts)b::text[],
                         %(packed)b::bytea[], %(phrases)b::bytea[])
               AS new (key, sides, count, first, last, packed, phrases)
), added AS (
    INSERT INTO batches (key, corpus, sides, count, numbering, first, last, packed, found_by, born)
    SELECT key, %(corpus)s, sides::smallint[], count, %(numbering)s, first, last, packed, %(by)s, %(born)s FROM new
    RETURNING key, id
), waiting AS (
    INSERT INTO remediations (batch, phrases) SELECT id, phrases FROM added JOIN new USING (key)
)
SELECT key, id FROM added
"""


def remove(connection: Connection, ids: Iterable[int]) -> None:
    """Delete batches whose orthos were rewritten into new batches; their remediations are deleted with them."""
    connection.execute(delete(batches).where(batches.c.id.in_(list(ids))))


class Span(NamedTuple):
    """A shape, and positions in it from `low` up to `high`; None: to its end."""

    sides: Sides
    low: str = ""
    high: str | None = None


def covering(
    connection: Connection,
    corpus: int,
    spans: Sequence[Span],
    *,
    most: int | None = None,
    skip: int = 0,
    back: bool = False,
) -> list[list[Stored]]:
    """Per span the batches whose ranges meet it, ascending by their first ortho.

    At most `most` of each, without the first `skip`. With `back` they descend by their last ortho, which no index has:
    the rows of all batches of the shape are looked at, some thousands of a large store.
    """
    values = {
        "corpus": corpus,
        "sides": [bulk.array_text(each.sides) for each in spans],
        "lows": [each.low for each in spans],
        "highs": [_LAST if each.high is None else each.high for each in spans],
        "most": most,
        "skip": skip,
    }
    found: list[list[Stored]] = [[] for _ in spans]
    for place, *row in bulk.rows(connection, _COVERING_BACK if back else _COVERING, values):
        found[place - 1].append(_stored(row))
    return found


_LAST = chr(0x10FFFF)
"""behind all words"""
# The index has the beginnings of the first orthos only.
_MEETING = """
SELECT place, id, found.sides, count, numbering, first, last, born
  FROM unnest(%(sides)s::text[], %(lows)s::text[], %(highs)s::text[]) WITH ORDINALITY AS span (sides, low, high, place)
 CROSS JOIN LATERAL (
       SELECT * FROM batches
        WHERE corpus = %(corpus)s AND sides = span.sides::smallint[]
          AND left(first, 64) <= left(span.high COLLATE "C", 64)
          AND first <= span.high COLLATE "C" AND last >= span.low COLLATE "C"
        ORDER BY {order} LIMIT %(most)s OFFSET %(skip)s
       ) AS found
 ORDER BY place, {order}
""".replace("64", str(KEY_CHARACTERS))
_COVERING = _MEETING.format(order=f"left(first, {KEY_CHARACTERS}), first, id")
_COVERING_BACK = _MEETING.format(order="last DESC, id DESC")


def orthos_before(connection: Connection, corpus: int, sides: Sides, place: str) -> int:
    """How many orthos the batches of a shape hold that end before this place."""
    query = """
SELECT coalesce(sum(count), 0) FROM batches
 WHERE corpus = %(corpus)s AND sides = %(sides)s::smallint[] AND last < %(place)s
"""
    ((found,),) = bulk.rows(connection, query, {"corpus": corpus, "sides": list(sides), "place": place})
    return int(found)


def lines(connection: Connection, ids: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """Of each of these batches its id and its remediation, packed; those that have none are left out."""
    query = "SELECT batch, phrases FROM remediations WHERE batch = ANY(%(ids)s)"
    yield from bulk.rows(connection, query, {"ids": list(ids)})


def packed(connection: Connection, ids: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """Of each of these batches its id and its packed orthos; those that are gone are left out."""
    query = "SELECT id, packed FROM batches WHERE id = ANY(%(ids)s)"
    yield from bulk.rows(connection, query, {"ids": list(ids)})


def unpacked(batch: Stored, value: bytes, tree: Tree) -> Ids:
    """The orthos of a batch in its own numbering; `tree`: of that version or a later one.

    Raises StoreCorrupt where they are damaged.
    """
    levels = tree.levels_at(batch.numbering)
    try:
        base, limit = levels[batch.sides[-1] - 1 : batch.sides[-1] + 1]
        return runs.unpack(value, batch.count, runs.height(batch.sides), base, limit)
    except ValueError as error:  # DamagedRun, or there are no such long phrases
        raise StoreCorrupt(problem=f"batch {batch.id} is damaged ({error}); see 'crochet verify'") from error


def unpacked_lines(batch: int, value: bytes | None, limit: int) -> Ids:
    """The lines that a batch waits on, in its own numbering, where ids are below `limit`.

    Raises StoreCorrupt where its remediation is missing (None) or damaged.
    """
    try:
        if value is None:
            raise StoreCorrupt(problem=f"the remediation of batch {batch} is missing; see 'crochet verify'")
        return runs.unpack_set(value, limit)
    except runs.DamagedRun as error:
        problem = f"the remediation of batch {batch} is damaged ({error}); see 'crochet verify'"
        raise StoreCorrupt(problem=problem) from error


def every(connection: Connection, corpus: int, sides: Sides | None = None) -> Iterator[Batch]:
    """All batches of a corpus, or of one shape of it, in their order; a few at a time from the server."""
    values = {"corpus": corpus, "sides": None if sides is None else list(sides)}
    for row in bulk.stream(connection, _EVERY, values, 8):
        yield Batch(_stored(row[:-3]), *row[-3:])


_EVERY = """
SELECT id, sides, count, numbering, first, last, born, key, packed, phrases
  FROM batches LEFT JOIN remediations ON remediations.batch = batches.id
 WHERE corpus = %(corpus)s AND (%(sides)s::smallint[] IS NULL OR sides = %(sides)s)
 ORDER BY sides, first, id
"""


def oldest(connection: Connection, corpus: int, most: int) -> list[Stored]:
    """The oldest batches of a corpus, `most` of them."""
    query = """
SELECT id, sides, count, numbering, first, last, born FROM batches
 WHERE corpus = %(corpus)s ORDER BY id LIMIT %(most)s
"""
    return [_stored(row) for row in bulk.rows(connection, query, {"corpus": corpus, "most": most})]


def _stored(row: Sequence[Any]) -> Stored:
    number, sides, *rest = row
    return Stored(number, tuple(sides), *rest)


def crowded(connection: Connection, most: int, size: int, corpus: int | None = None) -> list[tuple[int, Sides]]:
    """The (corpus, shape) of which more than `most` batches overlap, or follow on each other and together have `size`
    orthos or fewer; merging.py merges them.
    """
    values = {"corpus": corpus, "most": most, "size": size}
    return [(number, tuple(sides)) for number, sides in bulk.rows(connection, _CROWDED, values)]


_CROWDED = """
WITH candidates AS MATERIALIZED (
    SELECT corpus, sides FROM counts WHERE batches > %(most)s AND (%(corpus)s::int IS NULL OR corpus = %(corpus)s)
), mine AS MATERIALIZED (
    SELECT id, corpus, sides, count, first, last FROM batches JOIN candidates USING (corpus, sides)
), depths AS (
    SELECT corpus, sides, sum(step) OVER (PARTITION BY corpus, sides ORDER BY place, step DESC) AS depth
      FROM (SELECT corpus, sides, first AS place, 1 AS step FROM mine
             UNION ALL SELECT corpus, sides, last, -1 FROM mine) AS steps
), rows AS (
    SELECT corpus, sides, sum(count) OVER following AS total, count(*) OVER following AS number
      FROM mine WINDOW following AS (PARTITION BY corpus, sides ORDER BY first, id
                                     ROWS BETWEEN CURRENT ROW AND %(most)s FOLLOWING)
)
SELECT corpus, sides FROM depths GROUP BY corpus, sides HAVING max(depth) > %(most)s
 UNION
SELECT corpus, sides FROM rows WHERE number > %(most)s AND total <= %(size)s
"""


def waiting(connection: Connection, corpus: int, after: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Of batches with ids above `after`: id, numbering, and their remediations; None where one has none."""
    query = f"{_WAITING} ORDER BY batches.id"
    yield from bulk.stream(connection, query, {"corpus": corpus, "after": after}, 64)


_WAITING = """
SELECT batches.id, numbering, phrases FROM batches LEFT JOIN remediations ON remediations.batch = batches.id
 WHERE corpus = %(corpus)s AND batches.id > %(after)s
"""
