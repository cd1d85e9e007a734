"""Boxes: lines, shells, slabs, canonical form and ids, against the oracle and by hand."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crochet_tasks.engine.geometry import (
    Limits,
    Sides,
    canonical,
    coordinates,
    id_text,
    ids,
    lines,
    shape_name,
    shells,
    slab,
    slabs,
    unit_cells,
    volume,
)
from crochet_tasks.engine.phrases import PhraseIndex, index_of
from crochet_tasks.query.checks import _transposed
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


def vocabulary(*words: str) -> PhraseIndex:
    return index_of([[[word] for word in words]], 1)


def id_of(index: PhraseIndex, sides: Sides, words: tuple[str, ...]) -> str:
    cells = np.array([[index.vocabulary.index(word)] for word in words], np.uint16)
    return id_text(ids(sides, cells, index.hashes)[0])


# ── cells ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sides", SHAPES, ids=shape_name)
def test_lines(sides: Sides) -> None:
    """The lines of a box are those of the oracle."""
    names = tuple(map(str, range(math.prod(sides))))
    assert Counter(tuple(str(cell) for cell in line) for line in lines(sides)) == Counter(oracle._lines(sides, names))


@pytest.mark.parametrize("sides", SHAPES, ids=shape_name)
def test_shells(sides: Sides) -> None:
    """Shell n holds the cells whose coordinates add up to n; the unit cells, one per axis, are shell 1."""
    assert [list(shell) for shell in shells(sides)] == [
        [place for place, at in enumerate(_cells(sides)) if sum(at) == n] for n in range(sum(sides) - len(sides) + 1)
    ]
    assert [_cells(sides)[cell] for cell in unit_cells(sides)] == [
        tuple(int(a == axis) for a in range(len(sides))) for axis in range(len(sides))
    ]


def test_sizes() -> None:
    """Volume is the product of (side - 1); a shape is written with an x; limits are inclusive."""
    assert volume((2, 2)) == 1
    assert volume((2, 3, 4)) == 6
    assert shape_name((2, 3, 4)) == "2x3x4"
    assert Limits(3, 4, 24).allow((2, 3, 4))
    assert not Limits(2, 4, 24).allow((2, 3, 4))
    assert not Limits(3, 3, 24).allow((2, 3, 4))
    assert not Limits(3, 4, 23).allow((2, 3, 4))


# ── slabs ────────────────────────────────────────────────────────────────────────────────────────


def test_slab_2x2_to_2x3() -> None:
    """Lengthening a 2x2 along its last axis adds a column of two cells, below one another."""
    #  0 1 n0
    #  2 3 n1
    how = slab((2, 2), 1)
    assert how.child == (2, 3)
    assert how.along == ((0, 1), (2, 3))
    assert how.within == ((), ((0, 0),))
    assert how.shell == ((3,), ())
    assert how.shell_new == ((), ())
    assert how.opens == (((0, -1),), ())
    assert how.ahead == (((0, 1),), ())
    assert [*map(set, how.needed)] == [{(0, 0)}, {(0, 0)}, set()]
    assert how.layout == (0, 1, 4, 2, 3, 5)
    assert how.unit == 1
    assert how.rivals == ()


def test_slab_2x2_to_2x3_along_the_first_axis() -> None:
    """Lengthening a 2x2 along its first axis adds a row, and the child's last axis is the longer one."""
    how = slab((2, 2), 0)
    assert how.child == (2, 3)
    assert how.along == ((0, 2), (1, 3))
    assert how.within == ((), ((0, 1),))
    assert how.shell == ((3,), ())
    assert how.layout == (0, 2, 4, 1, 3, 5)
    assert how.unit == 2
    assert how.rivals == ()


def test_slab_2x2_to_2x2x2() -> None:
    """Adding an axis to a 2x2 lays a second 2x2 on it, whose unit word must be greater than both others."""
    #  0 1    n0 n1
    #  2 3    n2 n3
    how = slab((2, 2), 2)
    assert how.child == (2, 2, 2)
    assert how.along == ((0,), (1,), (2,), (3,))
    assert how.within == ((), ((0, 1),), ((0, 0),), ((1, 0), (2, 1)))
    assert how.shell == ((1, 2), (3,), (3,), ())
    assert how.shell_new == ((), (), (1,), ())
    assert how.opens == (((0, -1), (1, -1)), ((0, -1),), ((1, -1),), ())
    assert how.layout == (0, 4, 1, 5, 2, 6, 3, 7)
    assert how.unit == 4
    assert sorted(how.rivals) == [1, 2]


def test_slab_2x3_to_3x3() -> None:
    """Lengthening the short axis of a 2x3 makes it lead only where its unit word is the greater one."""
    #   0  1  2
    #   3  4  5
    #  n0 n1 n2
    how = slab((2, 3), 0)
    assert how.child == (3, 3)
    assert how.along == ((0, 3), (1, 4), (2, 5))
    assert how.within == ((), ((0, 1),), ((1, 1),))
    assert how.shell == ((2, 4), (5,), ())
    assert how.shell_new == ((), (), ())
    assert how.opens == (((1, -1),), ((1, 0),), ())
    assert how.ahead == (((0, 1),), ((0, 1, 2),), ())
    assert how.layout == (0, 3, 6, 1, 4, 7, 2, 5, 8)
    assert how.unit == 3
    assert how.rivals == (1,)


def test_slabs() -> None:
    """A box grows along the axes that can become its longest, as far as the limits allow; axes are never added."""
    assert [how.child for how in slabs((2, 2), Limits())] == [(2, 3), (2, 3)]
    assert [how.child for how in slabs((2, 3), Limits())] == [(3, 3), (2, 4)]
    assert [how.child for how in slabs((2, 4), Limits())] == [(2, 5)]
    assert [how.child for how in slabs((2, 2, 2), Limits())] == [(2, 2, 3)] * 3
    assert [how.child for how in slabs((2, 3), Limits(max_cells=8))] == [(2, 4)]
    assert [how.child for how in slabs((2, 3), Limits(max_side=3))] == [(3, 3)]
    assert slabs((2, 2, 2), Limits(max_axes=2)) == ()


# ── canonical form and ids ───────────────────────────────────────────────────────────────────────


@given(boxes())
def test_canonical(box: tuple[Sides, tuple[str, ...]]) -> None:
    """The canonical form is the one order of the axes that the oracle takes for canonical."""
    sides, words = box
    turns = {turned(sides, words, axes) for axes in itertools.permutations(range(len(sides)))}
    assert [turn for turn in turns if oracle._is_canonical(*turn)] == [canonical(sides, words)]


@given(boxes(), st.data())
def test_id_of_a_turned_box(box: tuple[Sides, tuple[str, ...]], data: st.DataObject) -> None:
    """A box whose axes are permuted has the same id, and two different orthos have two."""
    sides, words = box
    other = turned(sides, words, tuple(data.draw(st.permutations(range(len(sides))))))
    index = vocabulary(*words, "new")
    assert id_of(index, *canonical(sides, words)) == id_of(index, *canonical(*other))
    cell = data.draw(st.integers(0, len(words) - 1))
    changed = (*words[:cell], "new", *words[cell + 1 :])
    assert id_of(index, *canonical(sides, words)) != id_of(index, *canonical(sides, changed))


@given(boxes(), st.data())
def test_id_whatever_the_numbers_of_words(box: tuple[Sides, tuple[str, ...]], data: st.DataObject) -> None:
    """The id does not depend on the order in which a corpus met the words, nor on what other words it has."""
    sides, words = box
    others = data.draw(st.permutations([*dict.fromkeys(words), "x", "y", "z"]))
    assert id_of(vocabulary(*words), sides, words) == id_of(vocabulary(*others), sides, words)


def test_golden_id() -> None:
    """The id of one ortho, for ever: ids are stored and shared, so a change of this constant orphans every one."""
    seas = ("the", "seas", "land", "and")
    assert id_of(vocabulary("and", "land", "seas", "the"), (2, 2), seas) == "464457b2219cb5df2f6e9b056bd52442"
    row = ("a", "b", "c", "d", "é", "f")
    assert id_of(vocabulary(*row), (2, 3), row) == "33a865f9fde20ca475db3a1b4d82fcd8"


def test_ids_by_the_integer_type() -> None:
    """The id is the same whether words are numbered with 16 or 32 bits."""
    hashes = vocabulary(*"abcd").hashes
    cells = np.array([[0, 3], [1, 2], [2, 1], [3, 0]])
    expected = ids((2, 2), cells.astype(np.uint16), hashes)
    for kind in (np.uint32, np.int32, np.int64):
        np.testing.assert_array_equal(ids((2, 2), cells.astype(kind), hashes), expected)


def test_no_collisions() -> None:
    """Of 300,000 orthos of several shapes, many a single word apart, no two share even half an id."""
    index = vocabulary(*map("".join, itertools.product("ab", "cdefghijk")))
    quads = np.array(list(itertools.product(range(18), repeat=4)), np.uint16).T
    eights = np.concatenate([quads, quads[::-1]])
    both = [ids((2, 2), quads, index.hashes), ids((2, 4), eights, index.hashes), ids((2, 2, 2), eights, index.hashes)]
    halves = np.concatenate(both)
    assert len(halves) == 3 * 18**4 > 300_000
    assert len(np.unique(halves[:, 0])) == len(np.unique(halves[:, 1])) == len(halves)


def test_id_text() -> None:
    """An id is written as 32 hexadecimal digits, leading zeros included."""
    assert id_text(np.array([1, 2**64 - 1], np.uint64)) == "0000000000000001ffffffffffffffff"


def test_what_is_kept_of_shapes_is_bounded() -> None:
    """There are thousands of them, and anybody may ask for each."""
    for function in (coordinates, lines, shells, unit_cells, slab, _transposed):
        assert 0 < (function.cache_info().maxsize or 0) <= 256
