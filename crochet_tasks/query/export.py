"""Orthos written out as JSON lines, CSV or text, in order."""

from __future__ import annotations

import abc
import enum
import json
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from crochet_tasks.db import corpora, sessions
from crochet_tasks.db.process import Process
from crochet_tasks.engine import runs
from crochet_tasks.engine.geometry import Sides, shape_name, tiles
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.tree import Tree
from crochet_tasks.errors import InvalidShape
from crochet_tasks.query import ranges
from crochet_tasks.query.pages import EVERY, OrthoQuery, Position, selected
from crochet_tasks.query.store import Reader, Store

Strings = npt.NDArray[np.object_]


def sides_of(shape: str) -> Sides:
    """The sides of a shape such as '2x3'; raises InvalidShape."""
    if not re.fullmatch(r"[1-9][0-9]{0,8}(x[1-9][0-9]{0,8})+", shape):
        raise InvalidShape(shape=shape)
    sides = tuple(map(int, shape.split("x")))
    if min(sides) < 2 or list(sides) != sorted(sides):
        raise InvalidShape(shape=shape)
    return sides


class Format(enum.StrEnum):
    """How orthos are written out."""

    JSONL = "jsonl"
    CSV = "csv"
    TEXT = "text"


AT_ONCE = 1 << 13
"""orthos that are written at once"""


def export(
    process: Process, name: str, form: Format, query: OrthoQuery = EVERY, width: Callable[[str], int] = len
) -> Iterator[bytes]:
    """The orthos of a corpus as UTF-8, some thousands at a time: best shape first, each shape in alphabetical order.

    All of it is one snapshot of the store. `width`: how many columns of a terminal a word takes, for Format.TEXT.
    Raises CorpusUnknown.
    """
    with process.database.snapshot() as connection:
        sessions.may_idle(connection)  # the reader of the output may pause
        yield from written(Reader(Store(process), connection, corpora.named(connection, name)), form, query, width)


def written(
    reader: Reader,
    form: Format,
    query: OrthoQuery = EVERY,
    width: Callable[[str], int] = len,
    position: Position | None = None,
) -> Iterator[bytes]:
    """As `export`, from an open snapshot, and from a position on. Raises InvalidOrthoId and NotFound before the first
    byte.
    """
    return _written(reader, selected(reader, query, position), _WRITERS[form](reader.tree, width))


def _written(reader: Reader, selections: list[ranges.Selection], writer: _Writer) -> Iterator[bytes]:
    yield writer.head.encode()
    for selection in selections:
        low: str | None = selection.low
        while low is not None:
            found = ranges.read(reader, selection._replace(low=low), AT_ONCE)
            yield writer.written(selection.sides, found.rows).encode()
            low = found.following


Column = str | list[str]
"""a string per ortho, or the same one for all of them"""


class _Writer(abc.ABC):
    """Writes orthos column by column: a word costs a lookup in a table, nothing is formatted per ortho."""

    head = ""

    def __init__(self, tree: Tree, width: Callable[[str], int]) -> None:
        self.tree = tree
        self.width = width

    def written(self, sides: Sides, rows: Ids) -> str:
        columns = self.columns(sides, rows, np.ascontiguousarray(runs.words(self.tree, sides, rows).T))
        parts = [""] * (len(columns) * len(rows))
        for place, column in enumerate(columns):
            parts[place :: len(columns)] = [column] * len(rows) if isinstance(column, str) else column
        return "".join(parts)

    @abc.abstractmethod
    def columns(self, sides: Sides, rows: Ids, cells: Ids) -> list[Column]:
        """What makes up an ortho, in order. `cells`: word ids, shape (cells, orthos)."""

    def ids(self, sides: Sides, rows: Ids) -> list[str]:
        return runs.id_texts(runs.ids(self.tree, sides, rows))

    def born(self, sides: Sides, rows: Ids, template: str) -> Column:
        versions = ranges.born(self.tree, sides, rows)
        return _taken(_strings([template.format(version) for version in range(self.tree.version + 1)]), versions)


class _Jsonl(_Writer):
    def __init__(self, tree: Tree, width: Callable[[str], int]) -> None:
        super().__init__(tree, width)
        words = [json.dumps(word, ensure_ascii=False) for word in tree.words]
        self.first, self.others = _strings(words), _strings([f",{word}" for word in words])

    def columns(self, sides: Sides, rows: Ids, cells: Ids) -> list[Column]:
        return [
            '{"id":"',
            self.ids(sides, rows),
            f'","shape":[{",".join(map(str, sides))}],"words":[',
            _taken(self.first, cells[0]),
            *(_taken(self.others, column) for column in cells[1:]),
            self.born(sides, rows, '],"born":{}}}\n'),
        ]


class _Csv(_Writer):
    """The words are in one field, separated by spaces: letters, marks and apostrophes, so nothing is quoted."""

    head = "id,shape,born,words\n"

    def __init__(self, tree: Tree, width: Callable[[str], int]) -> None:
        super().__init__(tree, width)
        self.first, self.others = _strings(tree.words), _strings([f" {word}" for word in tree.words])

    def columns(self, sides: Sides, rows: Ids, cells: Ids) -> list[Column]:
        return [
            self.ids(sides, rows),
            f",{shape_name(sides)},",
            self.born(sides, rows, "{},"),
            _taken(self.first, cells[0]),
            *(_taken(self.others, column) for column in cells[1:]),
            "\n",
        ]


class _Text(_Writer):
    """A line about each ortho, its grid, and an empty line."""

    def __init__(self, tree: Tree, width: Callable[[str], int]) -> None:
        super().__init__(tree, width)
        self.words = _strings(tree.words)
        self.widths = np.array([width(word) for word in tree.words], np.int64)
        self.gaps = _strings([" " * width for width in range(int(self.widths.max(initial=0)) + 3)])

    def columns(self, sides: Sides, rows: Ids, cells: Ids) -> list[Column]:
        columns: list[Column] = [
            f"{shape_name(sides)}  ",
            self.ids(sides, rows),
            self.born(sides, rows, "  born {}\n"),
        ]
        widths = self.widths.take(cells)
        for label, lines in tiles(sides):
            if label:
                columns.append(f"{label}\n")
            room = [widths[list(column)].max(axis=0) + 2 for column in zip(*lines, strict=True)]
            for row in lines:
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
