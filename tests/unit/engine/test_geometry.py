"""Boxes: lines, shells, canonical form and the order of shapes, against the oracle and by hand."""

import itertools
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crochet_tasks.engine.geometry import (
    Limits,
    Sides,
    best_first,
    canonical,
    coordinates,
    lines,
    shape_name,
    shells,
    unit_cells,
    volume,
)
from crochet_tasks.engine.plans import plan, slab
from crochet_tasks.engine.runs import line_tables
from tests.support import oracle

FLAT = [(2, 2), (2, 3), (2, 5), (3, 3), (3, 4)]
SHAPES = [*FLAT, (2, 2, 2), (2, 2, 3), (2, 3, 4), (3, 3, 3), (2, 2, 2, 2), (2, 2, 2, 3)]


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Sides, tuple[str, ...]]:
    """A box with its axes in any order and different words in shell 1; the other words may be equal."""
    sides = tuple(draw(st.permutations(draw(st.sampled_from(SHAPES)))))
    words = draw(st.lists(st.sampled_from("abcdefg"), min_size=math.prod(sides), max_size=math.prod(sides)))
    unit_words = draw(st.permutations(["b", "it's", "é", "ß", "\uffff", "\U00010400"]))
    for axis in range(len(sides)):
        words[math.prod(sides[axis + 1 :])] = unit_words[axis]
    return sides, tuple(words)


def turned(sides: Sides, words: tuple[str, ...], axes: tuple[int, ...]) -> tuple[Sides, tuple[str, ...]]:
    """The box with its axes in another order, cell by cell."""
    at = dict(zip(itertools.product(*map(range, sides)), words, strict=True))
    new = tuple(sides[axis] for axis in axes)
    return new, tuple(at[tuple(cell[axes.index(a)] for a in range(len(axes)))] for cell in _cells(new))


def _cells(sides: Sides) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, sides)))


# ── cells ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sides", SHAPES, ids=shape_name)
def test_the_lines_of_a_box_are_those_of_the_oracle(sides: Sides) -> None:
    """The lines of a box are those of the oracle."""
    names = tuple(map(str, range(math.prod(sides))))
    assert Counter(tuple(str(cell) for cell in line) for line in lines(sides)) == Counter(oracle.lines(sides, names))


@pytest.mark.parametrize("sides", SHAPES, ids=shape_name)
def test_a_shell_holds_the_cells_equally_far_from_the_origin(sides: Sides) -> None:
    """Shell n holds the cells whose coordinates add up to n; the unit cells, one per axis, are shell 1."""
    assert [list(shell) for shell in shells(sides)] == [
        [place for place, at in enumerate(_cells(sides)) if sum(at) == n] for n in range(sum(sides) - len(sides) + 1)
    ]
    assert [_cells(sides)[cell] for cell in unit_cells(sides)] == [
        tuple(int(a == axis) for a in range(len(sides))) for axis in range(len(sides))
    ]


def test_volume_is_the_product_of_sides_less_one() -> None:
    """Volume is the product of (side - 1); a shape is written with an x; limits are inclusive."""
    assert volume((2, 2)) == 1
    assert volume((2, 3, 4)) == 6
    assert shape_name((2, 3, 4)) == "2x3x4"
    assert Limits(3, 4, 24).allow((2, 3, 4))
    assert not Limits(2, 4, 24).allow((2, 3, 4))
    assert not Limits(3, 3, 24).allow((2, 3, 4))
    assert not Limits(3, 4, 23).allow((2, 3, 4))


# ── canonical form and order ───────────────────────────────────────────────────────────────────────


@given(boxes())
def test_the_canonical_form_is_that_of_the_oracle(box: tuple[Sides, tuple[str, ...]]) -> None:
    """The canonical form is the one order of the axes that the oracle takes for canonical."""
    sides, words = box
    turns = {turned(sides, words, axes) for axes in itertools.permutations(range(len(sides)))}
    assert [turn for turn in turns if oracle.is_canonical(*turn)] == [canonical(sides, words)]


def test_larger_volume_comes_first_then_more_cells() -> None:
    """Larger volume first, then more cells, then by sides."""
    shapes = [(2, 2), (2, 5), (3, 3), (2, 2, 2), (2, 3), (2, 2, 5)]
    assert best_first(shapes) == [(2, 2, 5), (2, 5), (3, 3), (2, 3), (2, 2, 2), (2, 2)]


def test_what_is_kept_of_shapes_is_bounded() -> None:
    """There are thousands of them, and a client may ask for each."""
    for function in (coordinates, lines, shells, unit_cells, slab, plan, line_tables):
        assert 0 < (function.cache_info().maxsize or 0) <= 256
