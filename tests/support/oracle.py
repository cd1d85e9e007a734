"""The oracle: every ortho of a corpus, by brute force, straight from the definitions of the domain.

It shares no code and no idea with the engine: no seeds, no growth, no canonical parent. Every shape is tried, every box
is filled cell by cell, and what is not in canonical form is thrown away. For small corpora only.
"""

import functools
import itertools
import unicodedata
from collections.abc import Iterator, Sequence

import regex

NOT_AN_END = ":\uff1a\u1361\u16eb\u16ec\u16ed\U0001039f\U000103d0\U0001091f\U00012470"
"""terminal punctuation that ends no sentence: colons and word dividers"""

Sides = tuple[int, ...]
Phrase = tuple[str, ...]
Ortho = tuple[Sides, tuple[str, ...]]  # (canonical sides, words row-major in canonical form)


def sentences(text: str) -> list[list[str]]:
    """The words of each sentence, sentences without words left out."""
    text = unicodedata.normalize("NFC", text)
    for old, new in [("\r\n", "\n"), ("\r", "\n"), ("\x85", "\n"), ("\u2028", "\n"), ("\u2029", "\n\n")]:
        text = text.replace(old, new)
    text = "".join(char for char in text if char not in "\u200c\u200d\u2060\ufeff")
    text = text.replace("\u2019", "'").replace("\u200b", " ")
    paragraphs: list[list[str]] = [[]]  # blank lines part them
    for line in text.split("\n"):
        if all(map(_is_white, line)) and paragraphs[-1]:
            paragraphs.append([])
        elif not all(map(_is_white, line)) or not paragraphs[-1]:
            paragraphs[-1].append(line)
    found = []
    for paragraph in paragraphs:
        joined = ""
        for number, line in enumerate(paragraph):
            visible = _stripped(line) if joined.endswith("\u00ad") else line
            joined = joined.removesuffix("\u00ad") + visible
            ended = _stripped(joined[::-1])[::-1]
            last = number == len(paragraph) - 1
            joined = joined if last else ended if ended.endswith("\u00ad") else joined + "\n"
        found += _split(joined.replace("\u00ad", ""))
    return found


@functools.cache
def _is_white(char: str) -> bool:
    return regex.fullmatch(r"\p{White_Space}", char) is not None


@functools.cache
def _is_letter(char: str) -> bool:
    return regex.fullmatch(r"\p{L}", char) is not None


@functools.cache
def _is_mark(char: str) -> bool:
    return regex.fullmatch(r"\p{M}", char) is not None


@functools.cache
def _ends_sentence(char: str) -> bool:
    terminal = regex.fullmatch(r"\p{Terminal_Punctuation}", char) is not None
    return char == "\u2026" or (terminal and char not in NOT_AN_END)


def _stripped(text: str) -> str:
    """The text without the white space it begins with."""
    while text and _is_white(text[0]):
        text = text[1:]
    return text


def _split(paragraph: str) -> list[list[str]]:
    """The words of each sentence of text without blank lines."""
    tokens: list[list[str]] = [[""]]
    for char in paragraph:
        if _ends_sentence(char):
            tokens.append([""])
        elif _is_letter(char) or _is_mark(char) or char == "'":
            tokens[-1][-1] += char
        else:
            tokens[-1].append("")
    # Lower-cased token by token, not as a whole: what follows a Greek sigma decides its lower case.
    lowered = [[unicodedata.normalize("NFC", token.lower()) for token in sentence] for sentence in tokens]
    words = [[token for token in sentence if any(map(_is_letter, token))] for sentence in lowered]
    return [sentence for sentence in words if sentence]


def phrases(texts: Sequence[str], max_side: int) -> dict[Phrase, int]:
    """Every phrase, with the version (1-based position of the text) that brought it."""
    born: dict[Phrase, int] = {}
    for version, text in enumerate(texts, start=1):
        for words in sentences(text):
            for start in range(len(words)):
                for end in range(start + 1, min(start + max_side, len(words)) + 1):
                    born.setdefault(tuple(words[start:end]), version)
    return born


class TooLarge(Exception):
    """Brute force would try more words than it may."""


def closure(
    texts: Sequence[str], max_axes: int = 3, max_side: int = 8, max_cells: int = 64, *, most: int | None = None
) -> dict[Ortho, int]:
    """Every ortho within the limits, with the version since which all its lines are phrases.

    Raises TooLarge after trying `most` words: how much work it is shows only in doing it.
    """
    born = phrases(texts, max_side)
    follow: dict[Phrase, set[str]] = {}  # the words that lengthen a phrase; after the empty phrase: the vocabulary
    for phrase in born:
        follow.setdefault(phrase[:-1], set()).add(phrase[-1])

    orthos: dict[Ortho, int] = {}
    tries = _counted(most)
    shapes: set[Sides] = set()  # those that have an ortho
    for sides in _shapes(max_axes, max_side, max_cells):
        # Part of an ortho is an ortho, so a shape can only have one if all its parts have.
        if shapes.issuperset(_parts(sides)):
            for words in _boxes(sides, follow, tries):
                if is_canonical(sides, words):
                    shapes.add(sides)
                    orthos[sides, words] = max(born[line] for line in lines(sides, words))
    return orthos


def _shapes(max_axes: int, max_side: int, max_cells: int) -> list[Sides]:
    """The shapes within the limits, sides ascending, parts before wholes."""
    every = (itertools.combinations_with_replacement(range(2, max_side + 1), axes) for axes in range(2, max_axes + 1))
    return sorted((s for s in itertools.chain.from_iterable(every) if _size(s) <= max_cells), key=_size)


def _size(sides: Sides) -> int:
    cells = 1
    for side in sides:
        cells *= side
    return cells


def _parts(sides: Sides) -> Iterator[Sides]:
    """The shapes one slab smaller; an axis of one cell is none."""
    for axis in range(len(sides)):
        shorter = (side - (a == axis) for a, side in enumerate(sides))
        part = tuple(sorted(side for side in shorter if side > 1))
        if len(part) >= 2:
            yield part


def _counted(most: int | None) -> Iterator[int]:
    yield from itertools.count() if most is None else range(most)
    raise TooLarge(f"more than {most} words tried")


def _boxes(sides: Sides, follow: dict[Phrase, set[str]], tries: Iterator[int]) -> Iterator[tuple[str, ...]]:
    """Every box of these sides, the axes in this order, whose lines read and whose shells differ; row-major."""
    cells = list(itertools.product(*map(range, sides)))
    at = {cell: place for place, cell in enumerate(cells)}
    # For each cell, the places already filled when its turn comes: of each line that leads to it, and of its shell.
    lines = [[[at[(*c[:a], i, *c[a + 1 :])] for i in range(c[a])] for a in range(len(c)) if c[a] > 0] for c in cells]
    shells = [[at[other] for other in cells[: at[c]] if sum(other) == sum(c)] for c in cells]

    def fill(words: list[str]) -> Iterator[tuple[str, ...]]:
        if len(words) == len(cells):
            yield tuple(words)
            return
        place = len(words)
        prefixes = [tuple(words[i] for i in line) for line in lines[place]] or [()]
        choices = set.intersection(*(follow.get(phrase, set()) for phrase in prefixes))
        for word in choices.difference(words[i] for i in shells[place]):
            next(tries)
            yield from fill([*words, word])

    return fill([])


def lines(sides: Sides, words: tuple[str, ...]) -> Iterator[Phrase]:
    """Every line of the box, along every axis, in increasing coordinate."""
    box = dict(zip(itertools.product(*map(range, sides)), words, strict=True))
    for axis, side in enumerate(sides):
        for start in (cell for cell in box if cell[axis] == 0):
            yield tuple(box[(*start[:axis], i, *start[axis + 1 :])] for i in range(side))


def is_canonical(sides: Sides, words: tuple[str, ...]) -> bool:
    """Whether the axes are sorted by (side, word at the unit cell); str compares by code point."""
    box = dict(zip(itertools.product(*map(range, sides)), words, strict=True))
    axes = range(len(sides))
    keys = [(sides[axis], box[tuple(int(a == axis) for a in axes)]) for axis in axes]
    return keys == sorted(keys)
