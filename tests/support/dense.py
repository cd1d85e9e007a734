"""Small corpora that are rich in large orthos, made by dice, and the search for the best of them."""

from __future__ import annotations

import itertools
import math
import random

from crochet_tasks.engine.best.faces import Faces
from crochet_tasks.engine.best.plan import begun
from crochet_tasks.engine.best.shapes import Scope
from crochet_tasks.engine.best.solve import Solver
from crochet_tasks.engine.best.state import State
from crochet_tasks.engine.phrases import index_of
from crochet_tasks.engine.text import sentences
from crochet_tasks.engine.tree import Tree
from tests.support import oracle

PLANTED = [
    (3, 3),
    (2, 4),
    (2, 2, 3),
    (3, 3, 3),
    (2, 3, 3),
    (3, 4),
    (2, 2, 2, 2),
    (2, 2, 2, 2, 2),
    (2, 2, 2, 3),
    (3, 3, 3),
]


def tree_of(texts: list[str], max_side: int) -> Tree:
    index = index_of([sentences(text) for text in texts], max_side)
    return Tree.of(index, index.version)


def corpus(number: int) -> list[str]:
    """The lines of one or two boxes that share words, and a few random sentences: another corpus for each number."""
    dice = random.Random(number)
    said: list[list[str]] = []
    for sides in dice.sample(PLANTED, dice.choice([1, 1, 2])):
        words = _words(math.prod(sides), dice)
        said += [list(line) for line in oracle.lines(sides, words)]
    known = sorted({word for line in said for word in line})
    said += [dice.choices(known, k=dice.randint(2, 5)) for _ in range(dice.randint(0, 8))]
    for line in dice.sample(said, dice.randint(0, 3)):
        line.append(dice.choice(known))
    dice.shuffle(said)
    half = len(said) // 2
    return [". ".join(map(" ".join, part)) for part in (said[:half], said[half:])]


def _words(cells: int, dice: random.Random) -> tuple[str, ...]:
    """Words for the cells of a box: some are met twice, where the shells may still differ."""
    names = [f"{one}{other}" for one, other in itertools.product("abcdef", "abcdefg")][: max(4, round(cells * 0.9))]
    words = [*names, *dice.choices(names, k=cells)][:cells]
    dice.shuffle(words)
    return (*words,)


def solved(tree: Tree, scope: Scope, top: int | None = None, threads: int = 1) -> State:
    state = begun(tree, scope, top)
    Solver(Faces(tree), state, threads).run()
    assert state.done
    return state
