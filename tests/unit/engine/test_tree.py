"""The numbering of phrases: by length and alphabet, the same from whatever index, monotone from version to version."""

import hashlib
import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crochet_tasks.engine.tree import Tree
from tests.support import oracle
from tests.support.closures import indexed
from tests.support.strategies import corpora, examples

some = examples(50)


def by_alphabet(phrases: set[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Phrases by length, then word after word by code points."""
    return sorted(phrases, key=lambda words: (len(words), [[*map(ord, word)] for word in words]))


@some
@given(corpora(), st.integers(1, 6), st.data())
def test_phrases_by_length_and_alphabet(texts: list[str], longest: int, data: st.DataObject) -> None:
    """Of any version, from an index that may have later ones."""
    version = data.draw(st.integers(0, len(texts)))
    index = indexed(texts, longest)
    tree = Tree.of(index, version)
    known = oracle.phrases(texts, longest)
    expected = by_alphabet({phrase for phrase, born in known.items() if born <= version})
    assert [tree.phrase(number) for number in range(tree.size)] == expected
    assert [tree.length(number) for number in range(tree.size)] == [len(phrase) for phrase in expected]
    assert tree.born.tolist() == [known[phrase] for phrase in expected]
    assert [index.phrase(int(node)) for node in tree.node] == expected
    assert tree.id_of(tree.node).tolist() == list(range(tree.size))
    assert tree.words == [word for word, *more in expected if not more]
    ends = [
        sum(len(phrase) <= length for phrase in expected) for length in range(max(map(len, expected), default=0) + 1)
    ]
    assert list(tree.levels) == ends
    assert [tree.find(phrase) for phrase in expected] == list(range(tree.size))


@some
@given(corpora(), st.integers(1, 5))
def test_children_and_what_comes_before(texts: list[str], longest: int) -> None:
    """Children are contiguous; a phrase read backward is a phrase of `backward`, found from its end."""
    tree = Tree.of(indexed(texts, longest), len(texts))
    phrases = [tree.phrase(number) for number in range(tree.size)]
    for number, phrase in enumerate(phrases):
        children = [other for other in phrases if other[:-1] == phrase]
        assert phrases[int(tree.first[number]) : int(tree.first[number + 1])] == children
    backward = tree.backward
    suffixes = backward.suffix(np.arange(tree.size, dtype=np.uint32)).tolist()
    assert [phrases[number] for number in suffixes] == [phrase[1:] or phrase for phrase in phrases]
    turned = by_alphabet({phrase[::-1] for phrase in phrases})
    assert [phrases[int(number)][::-1] for number in backward.phrases] == turned
    assert backward.ids[backward.phrases].tolist() == list(range(tree.size))


@some
@given(corpora(), st.integers(1, 5), st.data())
def test_numbering_of_older_versions(texts: list[str], longest: int, data: st.DataObject) -> None:
    """A phrase keeps its words when its id is translated to a later version, and ids keep their order."""
    index = indexed(texts, longest)
    older, newer = sorted(data.draw(st.tuples(st.integers(0, len(texts)), st.integers(0, len(texts)))))
    old, new = Tree.of(index, older), Tree.of(index, newer)
    numbers = new.numbering(older)
    assert [new.phrase(int(number)) for number in numbers] == [old.phrase(number) for number in range(old.size)]
    assert (np.diff(numbers.astype(np.int64)) > 0).all()
    np.testing.assert_array_equal(new.renumbered(older, np.arange(old.size, dtype=np.uint32)), numbers)
    levels = new.levels_at(older)
    assert levels[: len(old.levels)] == old.levels
    assert set(levels[len(old.levels) :]) <= {old.size}


@some
@given(corpora(), st.integers(1, 6), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_a_tree_made_from_an_older_one(texts: list[str], longest: int, at: set[int], backward_at: set[int]) -> None:
    """By whatever steps, whenever it is read backward first: the same as made at once."""
    index = indexed(texts, longest)
    tree = Tree.of(index, 0)
    for version in [*sorted(version for version in at if version < len(texts)), len(texts)]:
        tree = Tree.of(index, version, tree)
        if version in backward_at:
            _ = tree.backward
    once = Tree.of(index, len(texts))
    assert (tree.version, tree.words, tree.levels) == (once.version, once.words, once.levels)
    for name in ("node", "born", "parent", "word", "first"):
        one, other = getattr(tree, name), getattr(once, name)
        assert (one.dtype, one.tolist()) == (other.dtype, other.tolist())
    for name in ("parent", "word", "first"):
        assert getattr(tree.backward.order, name).tolist() == getattr(once.backward.order, name).tolist()
    for phrases in np.arange(tree.size // 8, dtype=np.uint32).reshape(-1, 1):  # few: one by one, and not by the tables
        assert tree.backward.phrases_of(tree.backward.ids_of(phrases)).tolist() == phrases.tolist()
        assert tree.backward.ids_of(phrases).tolist() == once.backward.ids[phrases].tolist()
    assert tree.backward.ids.tolist() == once.backward.ids.tolist()
    assert tree.backward.phrases.tolist() == once.backward.phrases.tolist()


def test_words_are_hashed_by_themselves() -> None:
    """128 bits of BLAKE2b of each word; of a phrase, its words one after the other, whatever else there is."""
    trees = [
        Tree.of(indexed([text], 3), 1) for text in ("the seas and. the land", "more. words, seas and the land and")
    ]
    for tree in trees:
        for number, word in enumerate(tree.words):
            digest = hashlib.blake2b(word.encode(), digest_size=16).digest()
            assert b"".join(int(half).to_bytes(8, "little") for half in tree.word_hashes[:, number]) == digest
    one, other = trees
    shared = {*map(one.phrase, range(one.size))} & {*map(other.phrase, range(other.size))}
    assert ("seas", "and") in shared
    assert ("the", "land") in shared
    for phrase in shared:
        assert one.hashes[one.find(phrase)] == other.hashes[other.find(phrase)]
    assert all(len(np.unique(tree.hashes)) == tree.size for tree in trees)


def test_what_is_no_phrase() -> None:
    """Unknown words, unknown phrases, and nothing."""
    tree = Tree.of(indexed(["a b c"], 3), 1)
    unknown = [(), ("x",), ("a", "x"), ("b", "a"), ("a", "b", "c", "a")]
    assert [tree.find(words) for words in unknown] == [-1] * len(unknown)
    assert tree.number("x") == -1


def test_more_words_than_the_table_of_bits_change_no_result() -> None:
    """More words than the table of bits holds whole: rare ones are searched in lists, with the same result."""
    many = ["".join(letters) for letters in itertools.product("abcdefghijklmnopqrst", repeat=4)][:20_000]
    texts = [". ".join(f"{one} {other} zz" for one, other in itertools.pairwise(many)), "aaaa tttt"]
    tree = Tree.of(indexed(texts, 3), 2)
    assert len(tree.words) == 20_002
    assert tree.ahead.bytes < 20_000_000
    assert tree.phrase(tree.find(("aaaa", "aaab", "zz"))) == ("aaaa", "aaab", "zz")
