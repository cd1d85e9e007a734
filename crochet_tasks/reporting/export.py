"""Orthos written out: the best of a corpus, and all of them as JSON lines, CSV or text."""

from __future__ import annotations

import abc
import enum
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from crochet_tasks.db import Connection, batches, corpora, sessions, tally
from crochet_tasks.db.process import Process
from crochet_tasks.engine import geometry
from crochet_tasks.engine.geometry import Cells, Sides, shape_name, tiles, volume
from crochet_tasks.engine.phrases import Longs, PhraseIndex
from crochet_tasks.errors import InvalidShape, StoreCorrupt

Strings = npt.NDArray[np.object_]


class Ortho(NamedTuple):
    """One ortho with its words in canonical form, row-major."""

    sides: Sides
    words: tuple[str, ...]
    id: str


def sides_of(shape: str) -> Sides:
    """The sides of a shape such as '2x3'; raises InvalidShape."""
    if not re.fullmatch(r"[1-9][0-9]{0,8}(x[1-9][0-9]{0,8})+", shape):
        raise InvalidShape(shape=shape)
    sides = tuple(map(int, shape.split("x")))
    if min(sides) < 2 or list(sides) != sorted(sides):
        raise InvalidShape(shape=shape)
    return sides


def stored_shapes(connection: Connection, corpus: int) -> list[Sides]:
    """The shapes that there are orthos of, best first."""
    return batches.shapes_by_rank(s for s, change in tally.counted(connection, corpus).items() if change.orthos)


# ── the best ────────────────────────────────────────────────────────────────────────────────────


def best(connection: Connection, index: PhraseIndex, corpus: int, most: int) -> list[Ortho]:
    """The best orthos: largest volume, then most cells, then lowest id. Reads the batches of the top shapes only."""
    found: list[Ortho] = []
    ranked = itertools.groupby(stored_shapes(connection, corpus), lambda sides: (volume(sides), math.prod(sides)))
    for _, equals in ranked:
        if len(found) == most:
            break
        left = most - len(found)
        lowest: list[Ortho] = []
        for sides in equals:
            for batch in batches.every(connection, corpus, sides):
                lowest = sorted(lowest + _lowest(index, sides, batch.cells, left), key=lambda ortho: ortho.id)[:left]
        found += lowest
    return found


def _lowest(index: PhraseIndex, sides: Sides, cells: Cells, most: int) -> list[Ortho]:
    """The orthos of a batch with the lowest ids; a few more where the first halves of ids are equal."""
    ids = geometry.ids(sides, cells, index.hashes)
    first = ids[:, 0]
    if len(first) > most:
        ids = ids[chosen := np.flatnonzero(first <= np.partition(first, most - 1)[most - 1])]
        cells = cells[:, chosen]
    vocabulary = index.vocabulary
    return [
        Ortho(sides, tuple(vocabulary[word] for word in box), geometry.id_text(halves))
        for box, halves in zip(cells.T.tolist(), ids, strict=True)
    ]


# ── all of them ─────────────────────────────────────────────────────────────────────────────────


class Format(enum.StrEnum):
    """How orthos are written out."""

    JSONL = "jsonl"
    CSV = "csv"
    TEXT = "text"


def export(
    process: Process, name: str, form: Format, only: Sides | None = None, width: Callable[[str], int] = len
) -> Iterator[bytes]:
    """Every ortho of a corpus, or those of one shape, as UTF-8, a batch at a time: best shape first.

    All of it is one snapshot of the store. `width`: how many columns of a terminal a word takes, for Format.TEXT.
    Raises CorpusUnknown.
    """
    with process.database.snapshot() as connection:
        sessions.may_idle(connection)  # the reader of the output may pause
        corpus = corpora.named(connection, name)
        shapes = stored_shapes(connection, corpus.id)
        index = process.index(connection, corpus.id, corpus.version)
        some = [sides for sides in shapes if only in (None, sides)]
        yield from written(connection, index, corpus.id, form, some, width=width)


def written(
    connection: Connection,
    index: PhraseIndex,
    corpus: int,
    form: Format,
    shapes: Iterable[Sides],
    keep: Callable[[Cells], Cells] = lambda cells: cells,
    width: Callable[[str], int] = len,
) -> Iterator[bytes]:
    """The orthos of these shapes as UTF-8, a batch at a time; of each batch only what `keep` leaves of it."""
    writer = _WRITERS[form](index, width)
    yield writer.head.encode()
    for sides in shapes:
        for batch in batches.every(connection, corpus, sides):
            if (cells := keep(batch.cells)).shape[1]:
                yield writer.written(sides, cells).encode()


BORN_AT_ONCE = 1 << 13
"""lines that are looked up at once: few calls for a page, and a large batch stays in the processor's
cache"""


def born(index: PhraseIndex, sides: Sides, cells: Cells) -> Longs:
    """Per ortho: the version of its youngest line. Raises StoreCorrupt where a line is no phrase."""
    youngest = np.zeros(cells.shape[1], np.int32)
    at_once = max(1, BORN_AT_ONCE // max(1, cells.shape[1]))
    for _, of_length in itertools.groupby(geometry.lines(sides), len):
        every = list(of_length)
        for begin in range(0, len(every), at_once):
            lines = np.array(every[begin : begin + at_once]).T
            node = index.single.take(cells[lines[0]])
            for cell in lines[1:]:
                node = index.find(node.ravel(), cells[cell].ravel()).reshape(node.shape)
                if node.size and node.min() < 0:
                    problem = f"a {shape_name(sides)} has a line that is no phrase; see 'crochet verify'"
                    raise StoreCorrupt(problem=problem)
            np.maximum(youngest, node.max(axis=0), out=youngest)
    return np.searchsorted(index.limits, youngest, side="right")


Column = str | list[str]
"""a string per ortho, or the same one for all of them"""


class _Writer(abc.ABC):
    """Writes orthos column by column: a word costs a lookup in a table, nothing is formatted per ortho."""

    head = ""

    def __init__(self, index: PhraseIndex, width: Callable[[str], int]) -> None:
        self.index = index
        self.width = width

    def written(self, sides: Sides, cells: Cells) -> str:
        columns = self.columns(sides, cells)
        parts = [""] * (len(columns) * cells.shape[1])
        for place, column in enumerate(columns):
            parts[place :: len(columns)] = [column] * cells.shape[1] if isinstance(column, str) else column
        return "".join(parts)

    @abc.abstractmethod
    def columns(self, sides: Sides, cells: Cells) -> list[Column]:
        """What makes up an ortho, in order."""

    def ids(self, sides: Sides, cells: Cells) -> list[str]:
        return geometry.id_texts(geometry.ids(sides, cells, self.index.hashes))

    def born(self, sides: Sides, cells: Cells, template: str) -> Column:
        versions = born(self.index, sides, cells)
        return _taken(_strings([template.format(version) for version in range(len(self.index.limits))]), versions)


class _Jsonl(_Writer):
    def __init__(self, index: PhraseIndex, width: Callable[[str], int]) -> None:
        super().__init__(index, width)
        words = [json.dumps(word, ensure_ascii=False) for word in index.vocabulary]
        self.first, self.others = _strings(words), _strings([f",{word}" for word in words])

    def columns(self, sides: Sides, cells: Cells) -> list[Column]:
        return [
            '{"id":"',
            self.ids(sides, cells),
            f'","shape":[{",".join(map(str, sides))}],"words":[',
            _taken(self.first, cells[0]),
            *(_taken(self.others, column) for column in cells[1:]),
            self.born(sides, cells, '],"born":{}}}\n'),
        ]


class _Csv(_Writer):
    """The words are in one field, separated by spaces: letters, marks and apostrophes, so nothing is quoted."""

    head = "id,shape,born,words\n"

    def __init__(self, index: PhraseIndex, width: Callable[[str], int]) -> None:
        super().__init__(index, width)
        self.first, self.others = _strings(index.vocabulary), _strings([f" {word}" for word in index.vocabulary])

    def columns(self, sides: Sides, cells: Cells) -> list[Column]:
        return [
            self.ids(sides, cells),
            f",{shape_name(sides)},",
            self.born(sides, cells, "{},"),
            _taken(self.first, cells[0]),
            *(_taken(self.others, column) for column in cells[1:]),
            "\n",
        ]


class _Text(_Writer):
    """A line about each ortho, its grid, and an empty line."""

    def __init__(self, index: PhraseIndex, width: Callable[[str], int]) -> None:
        super().__init__(index, width)
        self.words = _strings(index.vocabulary)
        self.widths = np.array([width(word) for word in index.vocabulary], np.int64)
        self.gaps = _strings([" " * width for width in range(int(self.widths.max(initial=0)) + 3)])

    def columns(self, sides: Sides, cells: Cells) -> list[Column]:
        columns: list[Column] = [
            f"{shape_name(sides)}  ",
            self.ids(sides, cells),
            self.born(sides, cells, "  born {}\n"),
        ]
        widths = self.widths.take(cells)
        for label, rows in tiles(sides):
            if label:
                columns.append(f"{label}\n")
            room = [widths[list(column)].max(axis=0) + 2 for column in zip(*rows, strict=True)]
            for row in rows:
                for cell, wide in zip(row[:-1], room, strict=False):
                    columns += [_taken(self.words, cells[cell]), _taken(self.gaps, wide - widths[cell])]
                columns += [_taken(self.words, cells[row[-1]]), "\n"]
        return [*columns, "\n"]


_WRITERS: dict[Format, type[_Writer]] = {Format.JSONL: _Jsonl, Format.CSV: _Csv, Format.TEXT: _Text}


def _strings(values: Sequence[str]) -> Strings:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _taken(strings: Strings, places: npt.NDArray[np.integer]) -> list[str]:
    taken: list[str] = strings.take(places).tolist()
    return taken
