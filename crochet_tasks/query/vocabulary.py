"""What a corpus' context holds at a version: words, phrases, and what waits on a phrase."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from crochet_tasks.db.batches import Stored
from crochet_tasks.engine import geometry
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.engine.text import normalised
from crochet_tasks.engine.tree import Tree
from crochet_tasks.errors import PhraseUnknown
from crochet_tasks.query.store import Reader
from crochet_tasks.schemas.answers import PhraseSeen, ShapeLine, WaitingBatch, WaitingOn, WordSeen

READ_AT_ONCE = 256
"""remediations, for one answer"""


def phrase_of(tree: Tree, words: Sequence[str]) -> int | None:
    """A phrase; None for no words. Raises PhraseUnknown."""
    if not words:
        return None
    if (phrase := tree.find([normalised(word) for word in words])) == -1:
        raise PhraseUnknown(phrase=" ".join(words)[:200])
    return phrase


def born(tree: Tree, phrase: int | None) -> int:
    """The version that brought a phrase; 0 for the empty one."""
    return 0 if phrase is None else int(tree.born[phrase])


def waiting_on(reader: Reader, words: Sequence[str], limit: int) -> WaitingOn:
    """The batches with orthos of which this phrase is a line, oldest first; `limit` of them one by one."""
    phrase = phrase_of(reader.tree, words)
    orthos: Counter[Sides] = Counter()
    number: Counter[Sides] = Counter()
    first: list[WaitingBatch] = []
    listed = reader.oldest(READ_AT_ONCE + 1)
    for batch in listed[:READ_AT_ONCE]:
        if _holds(reader, batch, phrase):
            orthos[batch.sides] += batch.count
            number[batch.sides] += 1
            if len(first) < limit:
                first.append(
                    WaitingBatch(id=batch.id, shape=list(batch.sides), orthos=batch.count, searched=batch.born)
                )
    return WaitingOn(
        version=reader.corpus.version,
        phrase=[] if phrase is None else list(reader.tree.phrase(phrase)),
        born=born(reader.tree, phrase),
        shapes=[
            ShapeLine(shape=list(sides), orthos=orthos[sides], batches=number[sides])
            for sides in geometry.best_first(orthos)
        ],
        batches=first,
        more=number.total() - len(first),
        at_least=len(listed) > READ_AT_ONCE,
    )


def _holds(reader: Reader, batch: Stored, phrase: int | None) -> bool:
    """Whether a batch waits on a phrase."""
    if phrase is None or reader.tree.born[phrase] > batch.numbering:
        return False
    waits = reader.lines(batch)
    place = int(waits.searchsorted(phrase))
    return place < len(waits) and int(waits[place]) == phrase


def vocabulary(tree: Tree, prefix: str, after: str | None, limit: int) -> tuple[list[WordSeen], bool]:
    """The words that begin with `prefix` behind the word `after`, in code-point order; and whether there are more."""
    prefix = normalised(prefix)
    begin = bisect.bisect_left(tree.words, prefix)
    if after is not None:
        begin = max(begin, bisect.bisect_right(tree.words, after))
    found: list[WordSeen] = []
    for place in range(begin, len(tree.words)):
        if not tree.words[place].startswith(prefix):
            break
        if len(found) == limit:
            return found, True
        found.append(WordSeen(word=tree.words[place], born=int(tree.born[place])))
    return found, False


def phrases(tree: Tree, phrase: int | None, after: str | None, limit: int) -> tuple[list[PhraseSeen], bool]:
    """The phrases one word longer than this one, behind the one that ends with the word `after`, in code-point order of
    their last words; and whether there are more.
    """
    first, last = (0, len(tree.words)) if phrase is None else tree.first[phrase : phrase + 2].tolist()
    words = [tree.words[word] for word in tree.word[first:last]]
    begin = first + (0 if after is None else bisect.bisect_right(words, after))
    found = [
        PhraseSeen(
            words=list(tree.phrase(child)),
            born=int(tree.born[child]),
            continuations=int(tree.first[child + 1]) - int(tree.first[child]),
        )
        for child in range(begin, min(last, begin + limit))
    ]
    return found, last > begin + limit


class Branch(NamedTuple):
    """A phrase as it goes on: how many phrases are one word longer, and the first of them."""

    words: tuple[str, ...]
    continuations: int
    branches: list[Branch]

    @property
    def others(self) -> int:
        return self.continuations - len(self.branches)


def branch(tree: Tree, phrase: int, widths: Sequence[int]) -> Branch:
    """A phrase with its first `widths[0]` continuations, each of them with its first `widths[1]`, and so on."""
    first, last = tree.first[phrase : phrase + 2].tolist()
    shown = range(first, min(last, first + widths[0])) if widths else range(0)
    return Branch(tree.phrase(phrase), last - first, [branch(tree, each, widths[1:]) for each in shown])
