"""In how many orthos each word of a corpus stands, and a text by its words, for who wants to see that in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import regex

from crochet_tasks.engine import runs
from crochet_tasks.engine.text import normalised
from crochet_tasks.engine.tree import Tree
from crochet_tasks.query import ranges
from crochet_tasks.query.store import Reader

COUNTED = 200_000
"""orthos, the best ones first: it takes about a tenth of a second"""

_WORD = regex.compile(r"[\p{L}\p{M}'\u2019\u00ad\u200c\u200d]+")


class Holding(NamedTuple):
    """`orthos`: per word of the tree, in how many of the `counted` best orthos it stands; `complete`: those are all."""

    orthos: npt.NDArray[np.int64]
    counted: int
    complete: bool


def holding(reader: Reader, most: int = COUNTED) -> Holding:
    tree = reader.tree
    found = np.zeros(len(tree.words), np.int64)
    left, complete = most, True
    for sides in reader.shapes():
        part = ranges.read(reader, ranges.Selection(sides, "", None), left)
        words = np.sort(runs.words(tree, sides, part.rows), axis=1)
        once = np.ones(words.shape, np.bool_)
        once[:, 1:] = words[:, 1:] != words[:, :-1]  # a word may stand in several shells
        found += np.bincount(words[once], minlength=len(found))
        left -= len(part.rows)
        complete = part.following is None
        if left <= 0 or not complete:
            complete = complete and sides == reader.shapes()[-1]
            break
    return Holding(found, most - left, complete)


class Piece(NamedTuple):
    """A piece of a text as it was written; `word`: the word that it is, `orthos`: in how many of those counted."""

    text: str
    word: str | None
    orthos: int


def pieces(body: str, tree: Tree, held: Holding) -> Iterator[Piece]:
    """A text, word by word, with what is between the words."""
    begin = 0
    for match in _WORD.finditer(body):
        if match.start() > begin:
            yield Piece(body[begin : match.start()], None, 0)
        begin = match.end()
        word = normalised(match[0])
        number = tree.number(word)
        yield Piece(match[0], word if number >= 0 else None, int(held.orthos[number]) if number >= 0 else 0)
    if begin < len(body):
        yield Piece(body[begin:], None, 0)
