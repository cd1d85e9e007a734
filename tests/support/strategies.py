"""Hypothesis strategies: small corpora rich in orthos, limits, and text that is hard to split."""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hypothesis import currently_in_test_context, reject, settings
from hypothesis import strategies as st

from tests.support import oracle
from tests.support.oracle import Ortho

# Each row is one word of the domain in several spellings; the first is the word itself.
SPELLINGS = [
    ["a", "A"],
    ["b", "B"],
    ["é", "e\N{COMBINING ACUTE ACCENT}", "É"],
    ["it's", "It\N{RIGHT SINGLE QUOTATION MARK}s", "IT'S"],
    ["angels'", "angels\N{RIGHT SINGLE QUOTATION MARK}", "ANGELS'"],
    ["e", "E"],
    ["z", "Z"],
    ["слово", "СЛОВО"],
    ["'twas", "\N{RIGHT SINGLE QUOTATION MARK}Twas"],
    ["c", "C"],
]
WORD_GAPS = [" ", " ", " ", "  ", "\n", "\r\n", "\t", " - ", ": ", " 7 ", "\N{EM DASH}", " ' ", "\N{NO-BREAK SPACE}"]
SENTENCE_ENDS = [". ", ".", "? ", "! ", "; ", ", ", "\n\n", "\r\n\r\n", "\r\r", "\n \t\n", ".\n\n", "?!"]
BOX_SIDES = [(2, 2), (2, 3), (2, 4), (3, 3), (2, 2, 2), (2, 2, 3), (2, 2, 2, 2)]
TRICKY = (
    "aZ.?!;,:-_'\u2019\u02bc\u2018 \t\n\r\x0b\x1c\x85\u00a0\u2028\u200b\u200d\0"
    "07\u2167éÉ\u0301\u0345\u0130\u03a3\u03c3\u03c2\u037eß\u01c5\u212bק中\u093e"
    "\u00ad\u00ad\u00ad\u2029\u200c\u2060\ufeff\u2026。،।፡፣\u0331H\x1c\U00016d40\U000323b0"
)


MOST_TRIED = 60_000
"""words that brute force tries for one generated corpus: about 0.3 s. Of what the strategies make, 1 in 200 takes more;
of the examples that tests give by hand, none does
"""


class Limits(NamedTuple):
    max_axes: int
    max_side: int
    max_cells: int


def examples(number: int) -> settings:
    """Settings of a test with so many examples in a hundred: the profiles of tests/conftest.py say how many of them."""
    return settings(max_examples=max(1, number * settings().max_examples // 100))


def limits() -> st.SearchStrategy[Limits]:
    """Limits that often cut something off a corpus of `corpora`."""
    return st.builds(Limits, st.integers(2, 4), st.integers(2, 5), st.sampled_from([4, 6, 8, 9, 12, 16, 64]))


def brute_force(texts: Sequence[str], within: Iterable[int]) -> dict[Ortho, int]:
    """The oracle's closure of a corpus; a generated one that is too much work is left out."""
    try:
        return oracle.closure(texts, *within, most=MOST_TRIED if currently_in_test_context() else None)
    except oracle.TooLarge:
        reject()


@st.composite
def corpora(draw: st.DrawFn, max_words: int = 80, max_texts: int = 4) -> list[str]:
    """1 to `max_texts` texts of at most `max_words` words in all, over 2 to 6 different words (8 to 10 for 4 axes).

    The sentences are random ones of 1 to 8 words and the lines of up to two random boxes, so that orthos, also large
    ones, are common; they are shuffled over the texts, so that orthos are born in every version. A 2x2x2x2 takes 64
    words; with more than 80 some closures of 4 axes take the oracle many seconds.
    """
    boxes = draw(st.lists(st.sampled_from(BOX_SIDES), max_size=2))
    # The lines of four axes would make nearly every pair of six words a phrase, and the closure explode.
    fewest, most = (8, 10) if any(len(sides) > 3 for sides in boxes) else (2, 6)
    alphabet = draw(st.permutations(SPELLINGS))[: draw(st.integers(fewest, most))]
    words = st.integers(0, len(alphabet) - 1)
    sentences = draw(st.lists(st.lists(words, min_size=1, max_size=8), min_size=1, max_size=8))
    for sides in boxes:
        sentences += draw(_box_lines(sides, len(alphabet)))
    sentences = draw(st.permutations(sentences))

    texts = [""] * draw(st.integers(1, max_texts))
    left = max_words
    for sentence in sentences:
        left -= len(sentence)
        if left < 0:
            break
        text = draw(st.integers(0, len(texts) - 1))
        for place, word in enumerate(sentence):
            texts[text] += draw(st.sampled_from(WORD_GAPS)) if place else ""
            texts[text] += draw(st.sampled_from(alphabet[word]))
        texts[text] += draw(st.sampled_from(SENTENCE_ENDS))
    return texts


@st.composite
def _box_lines(draw: st.DrawFn, sides: tuple[int, ...], words: int) -> list[list[int]]:
    """The lines of a box; its shells differ where the alphabet is large enough."""
    cells = list(itertools.product(*map(range, sides)))
    shells = [draw(st.permutations(range(words))) for _ in range(sum(sides) - len(sides) + 1)]
    used = [0] * len(shells)
    box: dict[tuple[int, ...], int] = {}
    for cell in cells:
        shell = sum(cell)
        box[cell] = shells[shell][used[shell] % words]
        used[shell] += 1
    return [
        [box[(*start[:axis], i, *start[axis + 1 :])] for i in range(side)]
        for axis, side in enumerate(sides)
        for start in cells
        if start[axis] == 0
    ]


def unicode_texts() -> st.SearchStrategy[str]:
    """Arbitrary text, dense in the characters that the rules name or that lower case and NFC treat oddly."""
    anything = st.characters(exclude_categories=["Cs"])
    return st.text(st.one_of(st.sampled_from(TRICKY), anything), max_size=60)
