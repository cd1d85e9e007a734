"""Numbers put between others, by which orders of phrases grow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crochet_tasks.engine import packing
from crochet_tasks.engine.order import Ids
from tests.support.strategies import examples


def ids(numbers: list[int]) -> Ids:
    return np.array(numbers, np.uint32)


@examples(60)
@given(st.lists(st.integers(0, 9), max_size=30), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 99))))
def test_values_put_between_others(old: list[int], put: list[tuple[int, int]]) -> None:
    """Each before an old one, those before the same one as they are given; the old ones keep their order."""
    put = sorted(((min(before, len(old)), value) for before, value in put), key=lambda each: each[0])
    before, new = ids([before for before, _ in put]), ids([value for _, value in put])
    expected, places = list[int](), list[int]()
    for place in range(len(old) + 1):
        expected += [value for before_, value in put if before_ == place]
        places.append(len(expected))
        expected += old[place : place + 1]
    assert packing.merged(ids(old), before, new).tolist() == expected
    assert packing.moved(len(old), before).tolist() == places[: len(old)]
    table = ids([100 + value for value in range(10)])
    mapped = [
        expected[place] + 100 if place in places[: len(old)] else expected[place] for place in range(len(expected))
    ]
    assert packing.merged(ids(old), before, new, table).tolist() == mapped


@pytest.mark.parametrize("before", [[4], [2, 1], [0, 4]])
def test_places_that_do_not_fit(before: list[int]) -> None:
    """Behind the end, or not ascending."""
    with pytest.raises(ValueError, match="order"):
        packing.moved(3, ids(before))
    with pytest.raises(ValueError, match="order"):
        packing.merged(ids([5, 6, 7]), ids(before), ids(before))


def test_values_that_do_not_fit() -> None:
    """Fewer values than places, values that the table lacks, no table, prefixes that do not ascend or are not there."""
    with pytest.raises(ValueError, match="places"):
        packing.merged(ids([5, 6]), ids([0, 1]), ids([7]))
    for table in (ids([1, 2]), ids([])):
        with pytest.raises(ValueError, match="no entry"):
            packing.merged(ids([0, 2]), ids([1]), ids([7]), table)
    for parent in ([0, 1, 1, 0], [0, 1, 0, 4]):
        with pytest.raises(ValueError, match="order"):
            packing.firsts(ids(parent), 2)
    for words, before, parent in ((0, [3], [0]), (2, [0], [0]), (0, [0], [0, 0])):
        with pytest.raises(ValueError, match="places"):
            packing.firsts_merged(ids([1, 2, 2]), ids(before), ids(parent), words)


def test_where_children_begin() -> None:
    """Of two words the first has two pairs, of which the second has one phrase of three words."""
    assert packing.firsts(ids([0, 1, 0, 0, 3]), 2).tolist() == [2, 4, 4, 4, 5, 5]
    assert packing.firsts(ids([]), 0).tolist() == [0]
    assert packing.firsts(ids([0, 1]), 2).tolist() == [2, 2, 2]


def test_lengths_of_phrases() -> None:
    """From that of the prefix, which has to come first; numbers begin with 5, and three lengths are known."""
    length = np.array([1, 2, 3, 0, 0, 0], np.uint16)
    packing.add_lengths(np.array([0, 1, 2, 5, 7, 8], np.int32), 5, length)
    assert length.tolist() == [1, 2, 3, 2, 4, 3]
    for prefix in ([5], [6], [4]):
        with pytest.raises(ValueError, match="before its prefix"):
            packing.add_lengths(np.array(prefix, np.int32), 5, np.zeros(1, np.uint16))


def test_hashes_of_what_are_no_phrases() -> None:
    """A word that is not there, a prefix that comes later, too few hashes."""
    hashes = np.array([1, 2], np.uint64)
    for parent, word, of_words in (([0, 1, 0], [0, 1, 2], hashes), ([0, 1, 2], [0, 1, 1], hashes), ([0], [0], hashes)):
        with pytest.raises(ValueError, match="no phrases"):
            packing.stirred(ids(parent), ids(word), 2, of_words, 7)
