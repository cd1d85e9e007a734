"""The oracle against answers derived by hand, against the bare definition, and against the published counts."""

import itertools
from collections import Counter

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from tests.support.oracle import Ortho, closure, phrases, sentences
from tests.support.paths import GENESIS
from tests.support.strategies import Limits, corpora, limits, unicode_texts

SEAS: Ortho = ((2, 2), ("the", "seas", "land", "and"))  # "land" < "seas", so the axis of "land" comes first

# a b c
# d e f     read along both axes.
TWO_BY_THREE = "a b c. d e f. a d. b e. c f."

# Origin o; shell 1: a b c; shell 2: d = a+b, e = a+c, f = b+c; far corner g.
CUBE = "o a. o b. o c. a d. a e. b d. b f. c e. c f. d g. e g. f g."


def counts(orthos: dict[Ortho, int]) -> dict[str, int]:
    return dict(Counter("x".join(map(str, sides)) for sides, _ in orthos))


# --- Text to phrases


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a. b? c! d; e, f", [["a"], ["b"], ["c"], ["d"], ["e"], ["f"]], id="sentence ends"),
        pytest.param('a:b (c) "d" e-f 7g h8i', [["a", "b", "c", "d", "e", "f", "g", "h", "i"]], id="other characters"),
        pytest.param("3.5 men, 3,000 ships", [["men"], ["ships"]], id="ends inside numbers"),
        pytest.param("a\nb\n\nc", [["a", "b"], ["c"]], id="line break and blank line"),
        pytest.param("a\n \t\u00a0\nb", [["a"], ["b"]], id="blank line with white space"),
        pytest.param("a\r\nb\r\n\r\nc", [["a", "b"], ["c"]], id="CRLF is one line break"),
        pytest.param("a\rb\r\rc\n\rd", [["a", "b"], ["c"], ["d"]], id="CR is a line break"),
        pytest.param("a\u2028\u2028b\x0b\x0bc\x85\x85d", [["a"], ["b", "c"], ["d"]], id="other line breaks"),
        pytest.param("a\n:\nb\n\u200b\nc", [["a", "b"], ["c"]], id="a line of other characters is not blank"),
        pytest.param("It\u2019s angels' 'twas", [["it's", "angels'", "'twas"]], id="apostrophes"),
        pytest.param("\u2018a\u2019 b\u02bcc", [["a'", "b\u02bcc"]], id="opening quote goes, U+02BC is a letter"),
        pytest.param("a ' b '' c \u0301 d '7' e", [["a", "b", "c", "d", "e"]], id="no letter, no word"),
        pytest.param("e\u0301 \u212b", [["\u00e9", "\u00e5"]], id="NFC"),
        pytest.param("a\u037eb", [["a"], ["b"]], id="NFC makes the Greek question mark a semicolon"),
        pytest.param("7\u0301a q\u0301", [["\u0301a", "q\u0301"]], id="marks are kept"),
        pytest.param("\u0130", [["i\u0307"]], id="lower case may be longer"),
        pytest.param("\u0391\u03a3:\u0391", [["\u03b1\u03c2", "\u03b1"]], id="lower case after splitting: final sigma"),
        pytest.param("\u2167 \u24b6 a", [["a"]], id="letter-like numbers and symbols are no letters"),
        pytest.param(" . ,\n\n 7 ; '", [], id="nothing left"),
    ],
)
def test_it_splits_sentences_and_words_by_the_rules(text: str, expected: list[list[str]]) -> None:
    """Text is split into sentences and words by the letter of the rules."""
    assert sentences(text) == expected


@given(unicode_texts())
def test_words_of_any_text(text: str) -> None:
    """Every word of any text holds a letter, and nothing but letters, marks and apostrophes."""
    for words in sentences(text):
        assert words
        for word in words:
            assert regex.fullmatch(r"[\p{L}\p{M}']*\p{L}[\p{L}\p{M}']*", word)


def test_its_phrases_are_the_runs_of_words_of_one_sentence() -> None:
    """Phrases are the runs of up to max_side words of one sentence, born with the first text that has them."""
    assert phrases(["", "A b c. b", "b c d"], 2) == {
        ("a",): 2, ("b",): 2, ("c",): 2, ("a", "b"): 2, ("b", "c"): 2, ("d",): 3, ("c", "d"): 3
    }  # fmt: skip


# --- Orthos derived by hand


def test_the_example_of_the_domain_is_the_one_ortho_of_its_phrases() -> None:
    """The example of the domain is the one ortho of its four phrases."""
    assert closure(["the seas. seas and. the land. land and."]) == {SEAS: 1}


def test_a_box_and_its_mirror_image_are_one_ortho() -> None:
    """A box and its mirror image are one ortho, whichever came first."""
    assert closure(["the land and. the seas and."]) == closure(["the seas and. the land and."]) == {SEAS: 1}


def test_two_by_three() -> None:
    """A 2x3 comes with its two 2x2 parts; the shorter side is first even if its unit word is the greater."""
    # 2x2: the origins with two followers that share a follower are a (b, d -> e) and b (c, e -> f).
    assert closure([TWO_BY_THREE]) == {
        ((2, 2), ("a", "d", "b", "e")): 1,
        ((2, 2), ("b", "e", "c", "f")): 1,
        ((2, 3), ("a", "b", "c", "d", "e", "f")): 1,
    }


def test_lines_are_phrases() -> None:
    """Pairs do not make a line of three: a b and b c without a b c give no 2x3."""
    assert counts(closure([TWO_BY_THREE.replace("a b c", "a b. b c")])) == {"2x2": 2}


def test_a_cube_comes_with_its_six_faces() -> None:
    """A 2x2x2 comes with its six faces."""
    assert closure([CUBE]) == {
        ((2, 2), ("o", "b", "a", "d")): 1,
        ((2, 2), ("o", "c", "a", "e")): 1,
        ((2, 2), ("o", "c", "b", "f")): 1,
        ((2, 2), ("a", "e", "d", "g")): 1,
        ((2, 2), ("b", "f", "d", "g")): 1,
        ((2, 2), ("c", "f", "e", "g")): 1,
        ((2, 2, 2), ("o", "c", "b", "f", "a", "e", "d", "g")): 1,
    }


def test_cube_with_an_open_corner() -> None:
    """Without the edge f g the cube and the two faces that hold it are gone."""
    left = closure([CUBE.replace("f g.", "")])
    assert left == {
        ((2, 2), ("o", "b", "a", "d")): 1,
        ((2, 2), ("o", "c", "a", "e")): 1,
        ((2, 2), ("o", "c", "b", "f")): 1,
        ((2, 2), ("a", "e", "d", "g")): 1,
    }


def test_equal_words_in_a_shell() -> None:
    """A box with the same word twice at one distance from the origin is no ortho."""
    assert closure(["a b c"]) == {}  # a b / b c reads along both axes
    # a b c / d e d reads along both axes; c and e share shell 2, the two d do not share a shell.
    assert counts(closure(["a b c. d e d. a d. b e. c d"])) == {"2x2": 2, "2x3": 1}
    # a b c / d c e: the two c share shell 2, and with it goes the 2x2 b c / c e.
    assert closure(["a b c. d c e. a d. b c. c e"]) == {((2, 2), ("a", "d", "b", "c")): 1}


def test_equal_words_in_different_shells() -> None:
    """A word may return at another distance from the origin."""
    assert closure(["a b a. a c a"]) == {((2, 2), ("a", "c", "b", "a")): 1}


def test_code_point_order() -> None:
    """Axes are sorted by code point: an apostrophe before a, z before an accent."""
    assert closure(["x \u00e9 y. x z y"]) == {((2, 2), ("x", "\u00e9", "z", "y")): 1}
    assert closure(["x a y. x 's y"]) == {((2, 2), ("x", "a", "'s", "y")): 1}


def test_sentences_do_not_join() -> None:
    """No phrase crosses the end of a sentence or of a text."""
    assert closure(["the seas and. the land, and"]) == {}
    assert closure(["the seas and. the land", "and"]) == {}


# --- Versions and limits


def test_an_ortho_is_born_with_its_youngest_line() -> None:
    """An ortho is born with the youngest of its lines, also of its long ones."""
    assert closure(["the seas and", "", "the land", "and. land and", "the seas and the land and"])[SEAS] == 4
    # The pairs of the 2x3 are all in text 1, its line a b c comes with text 2.
    born = closure([TWO_BY_THREE.replace("a b c", "a b. b c"), "a b c"])
    assert born == {
        ((2, 2), ("a", "d", "b", "e")): 1,
        ((2, 2), ("b", "e", "c", "f")): 1,
        ((2, 3), ("a", "b", "c", "d", "e", "f")): 2,
    }


def test_each_limit_cuts_off_what_exceeds_it() -> None:
    """Each limit cuts off what exceeds it and nothing else."""
    both = [TWO_BY_THREE, CUBE.translate(str.maketrans("abcdefg", "hijklmn"))]
    assert counts(closure(both)) == {"2x2": 8, "2x3": 1, "2x2x2": 1}
    assert counts(closure(both, max_axes=2)) == {"2x2": 8, "2x3": 1}
    assert counts(closure(both, max_side=2)) == {"2x2": 8, "2x2x2": 1}
    assert counts(closure(both, max_cells=7)) == {"2x2": 8, "2x3": 1}
    assert counts(closure(both, max_cells=6)) == {"2x2": 8, "2x3": 1}
    assert counts(closure(both, max_cells=5)) == {"2x2": 8}
    assert closure(both, max_cells=3) == closure(both, max_axes=1) == closure(both, max_side=1) == {}


@given(corpora(max_words=40), limits())
def test_limits_only_cut(texts: list[str], within: Limits) -> None:
    """What is found within limits is what is found without, cut."""
    wide = closure(texts, max_axes=4, max_side=5, max_cells=64)
    kept = {
        (sides, words): born
        for (sides, words), born in wide.items()
        if len(sides) <= within.max_axes and max(sides) <= within.max_side and len(words) <= within.max_cells
    }
    assert closure(texts, *within) == kept


@given(corpora(max_words=40))
def test_born_is_first_found(texts: list[str]) -> None:
    """The orthos born up to a version are the closure of the texts up to it."""
    born = closure(texts)
    for version in range(1, len(texts) + 1):
        assert set(closure(texts[:version])) == {ortho for ortho, since in born.items() if since <= version}


@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=8), max_size=8))
def test_trying_every_word_in_every_cell_finds_the_same(corpus: list[list[str]]) -> None:
    """Trying every word in every cell, the definition finds the same."""
    texts = [". ".join(map(" ".join, corpus))]
    found = closure(texts, max_axes=3, max_side=3, max_cells=6)
    runs = {tuple(words[i:j]) for words in corpus for i, j in itertools.combinations(range(len(words) + 1), 2)}
    expected: set[Ortho] = set()
    for a, b, c, d in itertools.product("abcd", repeat=4):
        if {(a, b), (c, d), (a, c), (b, d)} <= runs and c < b:
            expected.add(((2, 2), (a, b, c, d)))
    for a, b, c, d, e, f in itertools.product("abcd", repeat=6):
        if {(a, b, c), (d, e, f), (a, d), (b, e), (c, f)} <= runs and b != d and c != e:
            expected.add(((2, 3), (a, b, c, d, e, f)))
    assert set(found) == expected


# --- Published counts


def genesis(verses: int) -> str:
    if not GENESIS.exists():
        pytest.skip(f"{GENESIS} is absent")
    return "\n\n".join(GENESIS.read_text(encoding="utf-8").split("\n\n")[:verses])


PUBLISHED = [
    pytest.param(31, 3, {"2x2": 219, "2x2x2": 7, "2x3": 95, "2x4": 3}, id="1"),
    pytest.param(56, 3, {"2x2": 1090, "2x2x2": 138, "2x3": 408, "2x4": 29, "3x3": 2}, id="1-2"),
    pytest.param(80, 3, {"2x2": 2156, "2x2x2": 467, "2x3": 851, "2x4": 72, "3x3": 7}, id="1-3"),
]


@pytest.mark.parametrize(("verses", "axes", "expected"), PUBLISHED)
def test_it_finds_the_published_counts_of_genesis(verses: int, axes: int, expected: dict[str, int]) -> None:
    """The oracle finds the published counts for the first chapters of Genesis."""
    assert counts(closure([genesis(verses)], max_axes=axes, max_side=12, max_cells=10**9)) == expected


def test_genesis_in_pieces() -> None:
    """One text per verse gives the same orthos, no version being younger than the last verse."""
    verses = genesis(31).split("\n\n")
    whole, pieces = closure(["\n\n".join(verses)]), closure(verses)
    assert set(pieces) == set(whole)
    assert set(pieces.values()) <= set(range(1, 32))
