"""The phrase index against the oracle's phrases and against plain dictionaries."""

import itertools
import random
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from crochet_tasks.engine.phrases import PhraseIndex, index_of
from crochet_tasks.engine.text import sentences
from tests.support import oracle
from tests.support.closures import indexed, indexes
from tests.support.oracle import Phrase
from tests.support.strategies import corpora, examples

some = examples(50)


def read(index: PhraseIndex) -> dict[Phrase, int]:
    """Every phrase of an index, with its version; that of a text which is none yet is one more than the last."""
    return {index.phrase(node): bisect_right(index.limits, node) for node in range(1, index.nodes)}


def tree(index: PhraseIndex) -> dict[tuple[int, int], int]:
    """(prefix, word) -> phrase, read off the two arrays."""
    nodes = range(1, index.nodes)
    return dict(zip(zip(index.parent[1:].tolist(), index.word[1:].tolist(), strict=True), nodes, strict=True))


def assert_found(index: PhraseIndex, queries: Sequence[tuple[int, int]]) -> None:
    """`find` answers what a dictionary answers."""
    phrases_by_key = tree(index)
    expected = [phrases_by_key.get(query, -1) for query in queries]
    nodes, words = (np.array([query[i] for query in queries], np.int32) for i in range(2))
    assert index.find(nodes, words).tolist() == expected


def chatter(seed: int, words: int, count: int) -> list[list[str]]:
    """`count` random sentences over so many words (64 at the most)."""
    dice, vocabulary = random.Random(seed), list(map("".join, itertools.product("bcdfghkl", "aeiouyäö")))
    return [[vocabulary[dice.randrange(words)] for _ in range(dice.randint(1, 9))] for _ in range(count)]


# ── content ──────────────────────────────────────────────────────────────────────────────────────


@some
@given(corpora(), st.integers(1, 8))
def test_phrases_are_the_oracles(texts: list[str], max_side: int) -> None:
    """An index holds every phrase of its texts, each once, born with the text that brought it."""
    index = indexed(texts, max_side)
    assert index.version == len(texts)
    assert read(index) == oracle.phrases(texts, max_side)
    assert index.nodes == 1 + len(read(index))
    assert set(index.vocabulary) == {word for phrase in read(index) for word in phrase}
    assert len(index.vocabulary) == len(set(index.vocabulary))


@some
@given(corpora(), st.integers(1, 8))
def test_nodes_are_numbered_by_version(texts: list[str], max_side: int) -> None:
    """The index at an earlier version is the beginning of the later one, words included; prefixes come first."""
    every = indexes(texts, max_side)
    for index in every:
        nodes, words = every[-1].limits[index.version], len(index.vocabulary)
        assert index.nodes == nodes
        assert index.limits == every[-1].limits[: index.version + 1]
        assert index.vocabulary == every[-1].vocabulary[:words]
        np.testing.assert_array_equal(index.parent, every[-1].parent[:nodes])
        np.testing.assert_array_equal(index.word, every[-1].word[:nodes])
        assert (index.parent[1:] < np.arange(1, nodes)).all()


@some
@given(corpora(max_texts=2), st.integers(1, 8), st.integers(1, 4))
def test_a_text_in_parts(texts: list[str], max_side: int, size: int) -> None:
    """A text that is added some sentences at a time, closed at its end, is one version like any other."""
    index = PhraseIndex()
    for version, text in enumerate(texts):
        words = sentences(text)
        for first in range(0, len(words), size):
            index = index.extended(index.additions(words[first : first + size], max_side))
            assert index.version == version
        index = index.closed()
    assert read(index) == oracle.phrases(texts, max_side)


def test_a_known_text_adds_nothing_and_is_a_version() -> None:
    """A text that is known already adds nothing, and is a version all the same; so is an empty one."""
    index = index_of([[["a", "b", "c"]]], 3)
    added = index.additions([["b", "c"], ["a", "b", "c"], []], 3)
    assert not added.words
    assert len(added.parent) == len(added.word) == 0
    assert index_of([[["a", "b", "c"]], [["b", "c"]], []], 3).limits == (1, 7, 7, 7)
    assert index_of([[], [["a"]]], 3).limits == (1, 1, 2)


def test_phrases_are_up_to_max_side_words_of_one_sentence() -> None:
    """Phrases of up to max_side words, not across sentences."""
    index = index_of([[["a", "b", "c"]], [["c", "a"], ["b"]]], 2)
    assert read(index) == {("a",): 1, ("b",): 1, ("c",): 1, ("a", "b"): 1, ("b", "c"): 1, ("c", "a"): 2}
    assert index.phrase(0) == ()


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


@some
@given(corpora())
def test_length_counts_the_words_of_a_phrase(texts: list[str]) -> None:
    """`length` counts the words of a phrase."""
    index = indexed(texts, 5)
    assert index.length.tolist() == [len(index.phrase(node)) for node in range(index.nodes)]


@some
@given(corpora(), st.data())
def test_any_prefix_and_word_are_found_as_in_a_dictionary(texts: list[str], data: st.DataObject) -> None:
    """Any prefix and word are found, or missed, as in a dictionary; so are all phrases at once and none at all."""
    index = indexed(texts, 4)
    # Also phrases and words that a search may ask for and that no index of this corpus has.
    query = st.tuples(st.integers(0, index.nodes + 3), st.integers(0, len(index.vocabulary) + 3))
    assert_found(index, data.draw(st.lists(query, max_size=40)))
    assert_found(index, list(tree(index)))
    assert_found(index, [])


def test_find_every_query() -> None:
    """Of all pairs of a phrase and a word of a corpus of 1,000 phrases, exactly the phrases are found."""
    index = index_of([chatter(1, 40, 120)], 4)
    assert index.nodes > 1000
    assert_found(index, list(itertools.product(range(index.nodes), range(len(index.vocabulary)))))


def test_many_small_extensions() -> None:
    """After each of 400 small extensions every phrase is found and nothing else is."""
    index, dice = PhraseIndex(), random.Random(3)
    for sentence in chatter(2, 60, 400):
        index = index.extended(index.additions([sentence], 3))
        nodes = np.arange(1, index.nodes, dtype=np.int32)
        np.testing.assert_array_equal(index.find(index.parent[1:], index.word[1:]), nodes)
    assert index.nodes > 2000
    assert_found(index, [(dice.randrange(index.nodes), dice.randrange(60)) for _ in range(5000)])
    assert read(index) == dict.fromkeys(oracle.phrases([". ".join(map(" ".join, chatter(2, 60, 400)))], 3), 1)


# ── an index never changes ───────────────────────────────────────────────────────────────────────


def everything(index: PhraseIndex) -> list[npt.NDArray[np.generic]]:
    """All that can be read off an index, as copies."""
    nodes, words = (grid.ravel() for grid in np.indices((index.nodes + 40, len(index.vocabulary) + 10), np.int32))
    read = [index.parent, index.word, index.length, index.rank]
    read += [np.array(index.limits), np.array(index.vocabulary), index.find(nodes, words)]
    return [np.array(array) for array in read]


def test_an_old_index_is_unharmed() -> None:
    """Whatever an index is extended to, it says what it said before; two extensions do not see one another."""
    # The old one is read in full before, between and after, so that nothing of it is computed late.
    old = index_of([chatter(4, 12, 8)], 3)
    unread = index_of([chatter(4, 12, 8)], 3)
    before = everything(old)
    one, other = (old.extended(old.additions(chatter(seed, 15, 3), 3)).closed() for seed in (5, 6))
    for sentence in chatter(7, 30, 200):
        one = one.extended(one.additions([sentence], 3)).closed()
    unread.extended(unread.additions(chatter(5, 15, 3), 3))
    for index in (old, unread):
        for was, now in zip(before, everything(index), strict=True):
            np.testing.assert_array_equal(was, now)
    assert read(other) == read(index_of([chatter(4, 12, 8), chatter(6, 15, 3)], 3))


@some
@given(corpora())
def test_extended_is_as_good_as_new(texts: list[str]) -> None:
    """An index brought forward version by version, read at each, says what one made at once says."""
    for version, index in enumerate(indexes(texts, 4)):
        everything(index)
        for got, expected in zip(everything(index), everything(indexed(texts[:version], 4)), strict=True):
            np.testing.assert_array_equal(got, expected)
        again = index.closed()  # shares what it can with the index it was made from
        for got, expected in zip(everything(again), everything(indexed([*texts[:version], ""], 4)), strict=True):
            np.testing.assert_array_equal(got, expected)


# ── words ────────────────────────────────────────────────────────────────────────────────────────


@some
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, unique=True))
def test_the_rank_of_a_word_is_its_place_in_code_point_order(words: list[str]) -> None:
    """The rank of a word is its place in code-point order."""
    index = index_of([[words]], 1)
    assert [index.vocabulary[i] for i in np.argsort(index.rank)] == sorted(words, key=lambda word: [*map(ord, word)])


def test_rank_by_hand() -> None:
    """An apostrophe comes before letters, accents after z, and what UTF-16 would turn round stays in order."""
    words = ["\U00010400", "\uffff", "é", "z", "a", "'s", "ab"]
    index = index_of([[words]], 1)
    assert index.rank.tolist() == [6, 5, 4, 3, 1, 0, 2]
    more = index.extended(index.additions([["aa"]], 1))
    assert more.rank.tolist() == [7, 6, 5, 4, 1, 0, 3, 2]
