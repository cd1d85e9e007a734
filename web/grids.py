"""Orthos as grids: layers of rows of words, for the templates, for copying, and as a picture."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEFT = {"R", "AL"}
"""directions of the letters of scripts that are written from right to left"""


class Cell(NamedTuple):
    number: int
    """row-major in canonical form, the last axis fastest"""
    word: str


class Layer(NamedTuple):
    """A layer of an ortho; `label` is empty where there is only one."""

    label: str
    rows: list[list[Cell]]

    @property
    def columns(self) -> int:
        return len(self.rows[0])


def layers(sides: Sequence[int], words: Sequence[str], across: int | None = None) -> list[Layer]:
    """The grid, layer by layer. `across`: the axis that runs along the rows, from 1; by default the longest.

    Of the others the longest runs down; along those that are left the layers lie side by side.
    """
    last = len(sides) - 1 if across is None or not 1 <= across <= len(sides) else across - 1
    axes = [axis for axis in range(len(sides)) if axis != last] + [last]
    box = np.arange(len(words)).reshape(sides).transpose(axes)
    outer = axes[:-2]
    found = []
    for place in np.ndindex(*box.shape[:-2]):
        steps = [f"axis {axis + 1}, {step + 1} of {sides[axis]}" for axis, step in zip(outer, place, strict=True)]
        rows = [[Cell(number, words[number]) for number in row] for row in box[place].tolist()]
        found.append(Layer("; ".join(steps), rows))
    return found


def text(found: Sequence[Layer]) -> str:
    """The grid as plain text: columns of words, a blank line between layers."""
    return "\n\n".join("\n".join(_lined(layer)) for layer in found) + "\n"


def _lined(layer: Layer) -> list[str]:
    widths = [max(columns(row[place].word) for row in layer.rows) for place in range(layer.columns)]
    return [
        "  ".join(
            cell.word + " " * (width - columns(cell.word)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in layer.rows
    ]


def columns(word: str) -> int:
    """About how many columns of a fixed-width font a word takes: wide characters two, marks none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in word
    )


def right_to_left(words: Sequence[str]) -> bool:
    """Whether the first letter of the first word is of a script that is written from right to left."""
    return bool(words) and unicodedata.bidirectional(words[0][:1] or "a") in LEFT


# ── as a picture ────────────────────────────────────────────────────────────────────────────────

SIZE, LINE, MARGIN = 18, 36, 16
"""pixels: of the letters, of a row, around the grid and between layers"""
WIDTH = 0.56
"""of a column, in letters' sizes: of the serif faces that a system may have"""


class Picture(NamedTuple):
    """What the template draws: lines as (x1, y1, x2, y2), words as (x, y, word)."""

    width: int
    height: int
    lines: list[tuple[int, int, int, int]]
    words: list[tuple[int, int, str]]


def picture(found: Sequence[Layer]) -> Picture:
    """The grid in pixels, the layers below each other."""
    lines: list[tuple[int, int, int, int]] = []
    placed: list[tuple[int, int, str]] = []
    top, widest = MARGIN, 0
    for layer in found:
        widths = [
            round(max(columns(row[place].word) for row in layer.rows) * SIZE * WIDTH) + 2 * SIZE
            for place in range(layer.columns)
        ]
        edges = [MARGIN + sum(widths[:place]) for place in range(layer.columns + 1)]
        bottom = top + LINE * len(layer.rows)
        lines += [(edge, top, edge, bottom) for edge in edges]
        lines += [(edges[0], top + LINE * row, edges[-1], top + LINE * row) for row in range(len(layer.rows) + 1)]
        placed += [
            ((edges[place] + edges[place + 1]) // 2, top + LINE * number + LINE // 2, cell.word)
            for number, row in enumerate(layer.rows)
            for place, cell in enumerate(row)
        ]
        top, widest = bottom + MARGIN, max(widest, edges[-1] + MARGIN)
    return Picture(widest, top, lines, placed)
