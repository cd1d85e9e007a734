"""Runs: packed and unpacked forms, damage, lines, words and ids."""

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crochet_tasks.engine import kernel, packing, runs
from crochet_tasks.engine.geometry import Limits, Sides, canonical
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.phrases import index_of
from crochet_tasks.engine.runs import DamagedRun
from crochet_tasks.engine.search import closure
from crochet_tasks.engine.tree import Tree
from tests.support import oracle
from tests.support.closures import indexed
from tests.support.strategies import corpora, examples, limits
from tests.unit.engine.test_geometry import boxes, turned

some = examples(60)


@st.composite
def matrices(draw: st.DrawFn) -> tuple[Ids, int]:
    """Ascending rows without duplicates, and a number that none of theirs is below."""
    width, base = draw(st.integers(1, 6)), draw(st.sampled_from([0, 1, 1000, 2**31]))
    numbers = st.one_of(st.integers(0, 5), st.integers(0, 2**31 - 1))
    rows = sorted({*draw(st.lists(st.tuples(*[numbers] * width), max_size=60))})
    return np.array(rows, np.uint32).reshape(-1, width) + np.uint32(base), base


# ── packed ───────────────────────────────────────────────────────────────────────────────────────


@some
@given(matrices())
def test_packed_and_unpacked_agree(given_: tuple[Ids, int]) -> None:
    """Whatever is packed comes out again, to the end of the range of numbers."""
    rows, base = given_
    limit = int(rows.max(initial=base)) + 1
    np.testing.assert_array_equal(runs.unpack(runs.pack(rows, base), len(rows), rows.shape[1], base, limit), rows)
    numbers = np.unique(rows)
    np.testing.assert_array_equal(runs.unpack_set(runs.pack_set(numbers), limit), numbers)


@some
@given(matrices(), st.data())
def test_damage_is_found(given_: tuple[Ids, int], data: st.DataObject) -> None:
    """A byte changed anywhere, bytes missing or too many: never other orthos, always an error that says so."""
    rows, base = given_
    packed = bytearray(runs.pack(rows, base))
    kind = data.draw(st.sampled_from(["changed", "cut", "longer"]))
    at = data.draw(st.integers(0, len(packed) - 1))
    damaged = {
        "changed": bytes([*packed[:at], packed[at] ^ data.draw(st.integers(1, 255)), *packed[at + 1 :]]),
        "cut": bytes(packed[:at]),
        "longer": bytes(packed) + b"x",
    }[kind]
    with pytest.raises(DamagedRun):
        runs.unpack(damaged, len(rows), rows.shape[1], base, 2**32 - 1)


@pytest.mark.parametrize(
    ("count", "width", "base", "limit"),
    [(2, 2, 10, 100), (4, 2, 10, 100), (3, 3, 10, 100), (3, 2, 10, 14), (3, 1, 10, 100)],
)
def test_another_shape_or_tree_is_refused(count: int, width: int, base: int, limit: int) -> None:
    """A run read with the wrong number of orthos or lines, or by a tree that lacks its phrases."""
    rows = np.array([[10, 12], [10, 14], [13, 11]], np.uint32)
    with pytest.raises(DamagedRun):
        runs.unpack(runs.pack(rows, 10), count, width, base, limit)


@pytest.mark.parametrize("rows", [[[3, 1], [2, 9]], [[2, 9], [2, 9]], [[1, 9]], [[5, 1]]])
def test_what_is_not_ascending_is_not_packed(rows: list[list[int]]) -> None:
    """Nor what holds numbers below the base."""
    with pytest.raises(ValueError, match="ascending"):
        runs.pack(np.array(rows, np.uint32), 2)


@some
@given(st.binary(max_size=40), st.integers(0, 9), st.integers(1, 4))
def test_any_bytes_are_rows_or_an_error(data: bytes, count: int, width: int) -> None:
    """The decoder neither reads nor writes where it must not; what it takes, it would have made."""
    try:
        rows = packing.decoded(data, count, width, 3, 50)
    except ValueError:
        return
    assert packing.encoded(rows, 3) == data or len(data) > len(packing.encoded(rows, 3))
    assert ((rows >= 3) & (rows < 50)).all()


@some
@given(
    st.integers(1, 7),
    st.sampled_from([1, 40, 2**32 - 1]),
    st.integers(0, 2**32),
    st.sampled_from([0, 1, 2, 300, 512, 513, 1100]),
)
def test_rows_come_out_in_their_order(width: int, largest: int, seed: int, count: int) -> None:
    """Rows in any order come out in theirs, duplicates too, also where a row takes more than 64 bits."""
    rows = np.random.default_rng(seed).integers(0, largest, (count, width), np.uint32, endpoint=True)
    assert runs.ascending(rows).tolist() == sorted(rows.tolist())


# ── orthos ───────────────────────────────────────────────────────────────────────────────────────


@some
@given(corpora(max_words=60), limits())
def test_runs_of_a_closure(texts: list[str], within: tuple[int, int, int]) -> None:
    """Rows in the order of the domain; words, keys, lines and ids as the definitions want them."""
    index = indexed(texts, within[1])
    tree = Tree.of(index, len(texts))
    for sides, rows in closure(tree, Limits(*within)):
        words = [tuple(tree.words[word] for word in box) for box in runs.words(tree, sides, rows).tolist()]
        assert words == sorted(words, key=lambda box: [[*map(ord, word)] for word in box])
        assert [runs.text(tree, sides, row) for row in rows] == words
        keys = [runs.key(box).encode() for box in words]
        assert keys == sorted(keys)
        lines = {line for box in words for line in oracle.lines(sides, box)}
        assert {tree.phrase(int(phrase)) for phrase in runs.line_set(tree, sides, rows)} == lines
        ids = runs.ids(tree, sides, rows)
        assert [tuple(one) for one in ids.tolist()] == [runs.ortho_id(sides, box) for box in words]
        assert ids[:, 0].tolist() == tree.hashes[rows[:, 0]].tolist() == [runs.half(box[: sides[-1]]) for box in words]


def test_lines_that_are_no_phrases() -> None:
    """A run whose columns are no phrases of its tree is damage, not remediations."""
    tree = Tree.of(indexed(["a b. c d"], 2), 1)
    with pytest.raises(DamagedRun, match="no phrase"):
        runs.line_set(tree, (2, 2), np.array([[tree.find(("a", "b")), tree.find(("c", "d"))]], np.uint32))


def test_lines_of_few_orthos_among_many_phrases() -> None:
    """As of many: the same set, and the same error."""
    others = "abcdefghijklmnopqrst"
    text = ". ".join(f"{one}x {other}y" for one, other in itertools.product(others, repeat=2))
    tree = Tree.of(indexed([f"{text}. a b. c d. a c. b d. e f"], 2), 1)
    rows = np.array([[tree.find(words) for words in (("a", "b"), ("c", "d"))]], np.uint32)
    found = runs.line_set(tree, (2, 2), rows)
    assert [tree.phrase(int(phrase)) for phrase in found] == [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]
    with pytest.raises(DamagedRun, match="no phrase"):
        runs.line_set(tree, (2, 2), np.array([[rows[0, 0], tree.find(("e", "f"))]], np.uint32))


def test_the_kernel_refuses_what_does_not_fit() -> None:
    """Phrases that the tree lacks, flags and tables of another size: an error instead of memory of others."""
    tree = Tree.of(indexed(["a b. c d. a c. b d"], 2), 1)
    box = np.array([[tree.size, 0]], np.uint32)
    with pytest.raises(ValueError, match="no phrase"):
        kernel.unpacked(tree.ahead, box, 2)
    words = np.array([[0, 1, 2, 3]], np.uint32)
    with pytest.raises(ValueError, match="no such word"):
        kernel.walked(tree.ahead, words + 1, *runs.line_tables((2, 2)))
    with pytest.raises(ValueError, match="do not fit"):
        kernel.walked(tree.ahead, words, *runs.line_tables((2, 3)))
    with pytest.raises(ValueError, match="do not fit"):
        kernel.walked(tree.ahead, words, *runs.line_tables((2, 2)), np.zeros(tree.size - 1, np.uint8))
    with pytest.raises(ValueError, match="do not fit"):
        kernel.marked(tree.ahead, box - box, 2, *runs.line_tables((2, 3)))
    with pytest.raises(ValueError, match="no phrase"):
        kernel.marked(tree.ahead, box, 2, *runs.line_tables((2, 2)))


# ── ids ──────────────────────────────────────────────────────────────────────────────────────────


def text_of(sides: Sides, words: tuple[str, ...]) -> str:
    return runs.id_texts(np.array([runs.ortho_id(sides, words)], np.uint64))[0]


@given(boxes(), st.data())
def test_id_of_a_turned_box(box: tuple[Sides, tuple[str, ...]], data: st.DataObject) -> None:
    """A box whose axes are permuted has the same id, and two different orthos have two."""
    sides, words = box
    other = turned(sides, words, tuple(data.draw(st.permutations(range(len(sides))))))
    assert text_of(*canonical(sides, words)) == text_of(*canonical(*other))
    cell = data.draw(st.integers(0, len(words) - 1))
    changed = (*words[:cell], "new", *words[cell + 1 :])
    assert text_of(*canonical(sides, words)) != text_of(*canonical(sides, changed))


def test_the_first_half_is_that_of_the_first_line() -> None:
    """Orthos of any shape that begin with the same line share it, others do not."""
    line = ("a", "b", "c")
    flat, deep = (*line, "d", "e", "f"), (*line, *"defghijkl")
    assert text_of((2, 3), flat)[:16] == text_of((2, 2, 3), deep)[:16] == f"{runs.half(line):016x}"
    assert text_of((2, 3), flat)[16:] != text_of((2, 2, 3), deep)[16:]
    assert runs.half(("a", "b")) != runs.half(("b", "a")) != runs.half(line)


def test_the_ids_of_two_orthos_never_change() -> None:
    """The id of two orthos, for ever: ids are stored and shared, so a change of these constants orphans every one."""
    assert text_of((2, 2), ("the", "seas", "land", "and")) == "75ba76be9f5e0e82fe1442397a60daaf"
    assert text_of((2, 3), ("a", "b", "c", "d", "é", "f")) == "268174d5266996060fda9ef49675ade1"


def plain_half(numbers: Sequence[int]) -> int:
    """One half of an id, in plain Python from its definition: MurmurHash3's finaliser over the numbers."""
    state, mask = 0x9E3779B97F4A7C15, 2**64 - 1
    for number in numbers:
        state ^= number
        state = ((state ^ state >> 33) * 0xFF51AFD7ED558CCD) & mask
        state = ((state ^ state >> 29) * 0xC4CEB9FE1A85EC53) & mask
        state ^= state >> 32
    return state


@given(boxes())
def test_id_from_its_definition(box: tuple[Sides, tuple[str, ...]]) -> None:
    """Half of it from the words of the first line, half from the sides and all words, by 128 bits of BLAKE2b each."""
    sides, words = box
    digests = [hashlib.blake2b(word.encode(), digest_size=16).digest() for word in words]
    firsts, seconds = ([int.from_bytes(digest[at : at + 8], "little") for digest in digests] for at in (0, 8))
    first, second = plain_half(firsts[: sides[-1]]), plain_half([len(sides), *sides, *seconds])
    assert text_of(sides, words) == f"{first:016x}{second:016x}"


def test_no_collisions() -> None:
    """Of 300,000 orthos of several shapes, many a single word apart, no two share the half that tells them apart."""
    names = [*map("".join, itertools.product("ab", "cdefghijk"))]
    tree = Tree.of(index_of([[[one, other, one, other] for one, other in itertools.product(names, repeat=2)]], 4), 1)
    found: Counter[int] = Counter()
    for sides in ((2, 2), (2, 4), (2, 2, 2)):
        low, high = tree.levels[sides[-1] - 1 : sides[-1] + 1]
        rows = np.array([*itertools.product(range(low, high), repeat=2)], np.uint32)
        rows = np.concatenate([rows] * (math.prod(sides[:-1]) // 2), axis=1)[:100_000]
        found.update(runs.ids(tree, sides, rows)[:, 1].tolist())
    assert len(found) == sum(found.values()) >= 300_000


def test_an_id_is_written_as_32_hexadecimal_digits() -> None:
    """An id is written as 32 hexadecimal digits, leading zeros included."""
    assert runs.id_texts(np.array([[1, 2**64 - 1]], np.uint64)) == ["0000000000000001ffffffffffffffff"]


@some
@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20))
def test_numbers_come_back(numbers: list[int]) -> None:
    """Of the whole range, in any order."""
    packed = runs.pack_numbers(np.array(numbers, np.int32))
    assert runs.unpack_numbers(packed, len(numbers)).tolist() == numbers
    with pytest.raises(runs.DamagedRun, match="numbers, and"):
        runs.unpack_numbers(packed, len(numbers) + 1)
    with pytest.raises(runs.DamagedRun, match="checksum"):
        runs.unpack_numbers(packed[:-1] + bytes([packed[-1] ^ 1]), len(numbers))


def test_neighbours_that_differ_alike_take_little() -> None:
    """Less than a byte for two numbers."""
    assert len(runs.pack_numbers(np.arange(10_000, dtype=np.int32) // 3)) < 5_000
