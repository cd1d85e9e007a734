"""Batches of orthos and the remediations written with them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Connection, delete

from crochet_tasks.db import bulk
from crochet_tasks.db.tables import batches
from crochet_tasks.engine.geometry import Cells, Sides, unpack_cells, volume
from crochet_tasks.engine.phrases import Ints


class Batch(NamedTuple):
    """A stored batch. `searched` is 0 and `phrases` None before its first search."""

    id: int
    key: uuid.UUID
    sides: Sides
    cells: Cells
    born: int
    searched: int
    phrases: Ints | None


class NewBatch(NamedTuple):
    """A batch to be written; `cells` packed."""

    key: uuid.UUID
    sides: Sides
    size: int
    width: int
    cells: bytes


def add(connection: Connection, corpus: int, new: list[NewBatch], *, by: uuid.UUID, born: int) -> list[int]:
    """Write batches; returns their ids in the same order."""
    if not new:
        return []
    keys, sides, counts, widths, cells = zip(*new, strict=True)
    rows = bulk.execute(
        connection,
        _ADD,
        {
            "corpus": corpus,
            "keys": list(keys),
            "sides": [bulk.array_text(shape) for shape in sides],
            "counts": list(counts),
            "widths": list(widths),
            "cells": list(cells),
            "by": by,
            "born": born,
        },
    )
    ids = dict(rows)
    return [ids[key] for key in keys]


_ADD = """
INSERT INTO batches (key, corpus, sides, count, width, cells, found_by, born)
SELECT key, %(corpus)s, sides::smallint[], count, width, cells, %(by)s, %(born)s
  FROM unnest(%(keys)s::uuid[], %(sides)s::text[], %(counts)s::int[], %(widths)s::smallint[], %(cells)b::bytea[])
    AS new (key, sides, count, width, cells)
RETURNING key, id
"""


def remove(connection: Connection, ids: Iterable[int]) -> None:
    """Delete batches whose orthos were rewritten into new batches; their remediations are deleted with them."""
    connection.execute(delete(batches).where(batches.c.id.in_(list(ids))))


def wait(connection: Connection, waits: Mapping[int, bytes], searched: int) -> None:
    """Write the remediations of batches that were searched up to a version: the phrases they wait on, packed."""
    if waits:
        parameters = {"batches": list(waits), "phrases": list(waits.values()), "searched": searched}
        bulk.execute(connection, _WAIT, parameters)


_WAIT = """
INSERT INTO remediations (batch, searched, phrases)
SELECT batch, %(searched)s, phrases FROM unnest(%(batches)s::bigint[], %(phrases)b::bytea[]) AS new (batch, phrases)
ON CONFLICT (batch) DO UPDATE SET searched = excluded.searched, phrases = excluded.phrases
"""


def waited_on(connection: Connection, ids: list[int]) -> list[Ints]:
    """What those of these batches that were searched before wait on."""
    rows = bulk.rows(connection, "SELECT phrases FROM remediations WHERE batch = ANY(%(ids)s)", {"ids": ids})
    return [bulk.ints(phrases) for (phrases,) in rows]


_BATCH = """
SELECT batches.id, key, sides, count, width, cells, born, coalesce(searched, 0), remediations.phrases
  FROM batches LEFT JOIN remediations ON remediations.batch = batches.id
"""


def read(connection: Connection, ids: list[int]) -> list[Batch]:
    """These batches, in the order of their ids; those that are gone are left out."""
    rows = bulk.rows(connection, f"{_BATCH} WHERE batches.id = ANY(%(ids)s) ORDER BY batches.id", {"ids": ids})
    return [_batch(row) for row in rows]


def every(connection: Connection, corpus: int, sides: Sides | None = None) -> Iterator[Batch]:
    """All batches of a corpus, or of one shape of it, one at a time from the server."""
    query = f"{_BATCH} WHERE corpus = %(corpus)s AND (%(sides)s::smallint[] IS NULL OR sides = %(sides)s) ORDER BY id"
    parameters = {"corpus": corpus, "sides": None if sides is None else list(sides)}
    return (_batch(row) for row in bulk.stream(connection, query, parameters, 8))


def cells(connection: Connection, ids: list[int]) -> Iterator[tuple[int, Cells]]:
    """Of each of these batches its id and its cells; those that are gone are left out."""
    for batch, count, width, packed in bulk.rows(connection, _CELLS, {"ids": ids}):
        yield batch, unpack_cells(packed, count, width)


_CELLS = "SELECT id, count, width, cells FROM batches WHERE id = ANY(%(ids)s)"


def listed(connection: Connection, corpus: int) -> Iterator[tuple[Sides, list[int], list[int]]]:
    """Per shape, the ids and sizes of its batches. A row per shape, as a corpus may have many thousands of batches."""
    for sides, packed in bulk.rows(connection, _LISTED, {"corpus": corpus}):
        rows = np.frombuffer(packed, _ID_AND_SIZE)
        yield tuple(sides), rows["id"].tolist(), rows["size"].tolist()


_LISTED = """
SELECT sides, string_agg(int8send(id) || int4send(count), ''::bytea) FROM batches
 WHERE corpus = %(corpus)s GROUP BY sides
"""
_ID_AND_SIZE = np.dtype([("id", ">i8"), ("size", ">i4")])


def _batch(row: tuple[Any, ...]) -> Batch:
    number, key, sides, count, width, cells, born, searched, phrases = row
    waits = None if phrases is None else bulk.ints(phrases)
    return Batch(number, key, tuple(sides), unpack_cells(cells, count, width), born, searched, waits)


class Due(NamedTuple):
    """A batch that has to be searched again because of a new version."""

    batch: int
    sides: Sides
    size: int
    searched: int


def due(connection: Connection, corpus: int, continued: Ints, version: int) -> Iterator[Due]:
    """The batches searched up to an older version that wait on one of the phrases `continued` (ascending)."""
    waiting = bulk.stream(connection, _WAITING.format(last="phrases"), {"corpus": corpus, "version": version}, 64)
    marked = np.zeros(int(continued[-1]) + 1 if len(continued) else 0, np.bool_)
    marked[continued] = True
    for batch, sides, count, searched, phrases in waiting:
        consulted = bulk.ints(phrases)
        if marked[consulted[: np.searchsorted(consulted, len(marked))]].any():
            yield Due(batch, tuple(sides), count, searched)


class Waits(NamedTuple):
    """A batch that waits; `bytes`: what its phrases take as packed."""

    id: int
    sides: Sides
    size: int
    searched: int
    bytes: int


def waiting(connection: Connection, corpus: int) -> list[Waits]:
    """What waits on phrases, oldest first; the phrases are read with `waited`."""
    query = _WAITING.format(last="octet_length(phrases)")
    rows = bulk.rows(connection, query, {"corpus": corpus, "version": None})
    return [Waits(row[0], tuple(row[1]), *row[2:]) for row in rows]


def waited(connection: Connection, ids: list[int]) -> dict[tuple[int, int], bytes]:
    """Of these batches, by id and the version up to which they were searched, the phrases as packed."""
    query = "SELECT batch, searched, phrases FROM remediations WHERE batch = ANY(%(ids)s)"
    return {(batch, searched): phrases for batch, searched, phrases in bulk.rows(connection, query, {"ids": ids})}


_WAITING = """
SELECT batches.id, sides, count, searched, {last}
  FROM remediations JOIN batches ON batches.id = remediations.batch
 WHERE corpus = %(corpus)s AND (%(version)s::int IS NULL OR searched < %(version)s)
 ORDER BY batches.id
"""


def shapes_by_rank(shapes: Iterable[Sides]) -> list[Sides]:
    """Shapes, best first: by volume, then cells, then sides."""
    return sorted(shapes, key=lambda sides: (-volume(sides), -int(np.prod(sides)), sides))
