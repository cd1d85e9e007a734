"""What is searched next, and in which parts. Threads of one process (solve.py) or the pipeline's workers do the parts.

The choices rest on estimates, which are the same each time; so are the shapes that are searched, and what they hold.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from crochet_tasks.engine.best.estimate import Guess, estimate
from crochet_tasks.engine.best.faces import Faces, Outcome, Part, Search, Way, way
from crochet_tasks.engine.best.shapes import Scope, key
from crochet_tasks.engine.best.state import Aim, Ortho, State
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.engine.tree import Tree


def digest(tree: Tree, max_side: int) -> str:
    """The name of a context: of all phrases of up to so many words, in whatever order texts brought them."""
    last = min(max_side, len(tree.levels) - 1)
    high = tree.levels[last]
    state = hashlib.blake2b("\n".join(tree.words).encode(), digest_size=16)
    state.update(np.array(tree.levels[: last + 1], "<u8").tobytes())
    for column in (tree.parent, tree.word):
        state.update(column[:high].astype("<u4").tobytes())
    return state.hexdigest()


def begun(tree: Tree, scope: Scope, top: int | None = None, known: Iterable[Ortho] = ()) -> State:
    """A search of which nothing is done yet. `known`: orthos of the scope, such as the best of an older version."""
    longest = min(scope.max_side, len(tree.levels) - 1)
    state = State(digest(tree, scope.max_side), scope, longest, top, known=list(known))
    state.incumbent = max(state.known, key=lambda ortho: key(ortho.sides), default=None)
    state.conclude()
    return state


class Visits(NamedTuple):
    """How much is left of a search, estimated: an interval. `all`: False where something is not estimated yet."""

    low: float
    high: float
    all: bool


class Left(NamedTuple):
    """Seconds that are left for the shapes that are still to be searched, as estimated: of an interval, the ends.

    `all`: False where there are shapes for which there is no estimate yet, so that it may take longer.
    """

    low: float
    high: float
    all: bool


def seconds_left(visits: Visits, pace: float) -> Left | None:
    """What is left, at so many visits a second; None where nothing is known: "at least a moment" says nothing."""
    left = Left(visits.low / pace, visits.high / pace, visits.all)
    return left if left.all or left.low >= 1 else None


class Planner:
    """Plans the searches of one context, of which `faces` has the layers. For one thread at a time."""

    def __init__(self, faces: Faces) -> None:
        self.faces = faces
        self._guesses: dict[Way, Guess] = {}
        self.too_large: set[Sides] = set()
        """shapes of which there are too many to be held as faces, as far as estimates tell"""

    def begin(self, state: State) -> bool:
        """Begin the search that seems to take least; False where none is possible."""
        aim, choice = state.next()
        if state.waiting is not None:
            aim, choice = state.waiting.aim, [state.waiting.record.sides]
        costs = {sides: self._cost(state, sides) for sides in choice}
        possible = [(cost, sides, chosen) for sides, (cost, chosen) in costs.items() if chosen is not None]
        if not possible:
            return False
        _, _, chosen = min(possible)
        while not self.faces.has(chosen.face):
            aim = Aim.FACES
            _, of_face = self._cost(state, chosen.face)
            assert of_face is not None  # else the way would not be possible
            chosen = of_face
        state.begin(aim, self.search(chosen), self.faces.count(chosen.face))
        return True

    def _cost(self, state: State, sides: Sides) -> tuple[float, Way | None]:
        """About how many visits a shape takes, and how it is searched; None where its faces are too many."""
        chosen = way(sides)
        face = chosen.face
        if face in state.too_many:
            return math.inf, None
        if self.faces.has(face):
            return self.guess(chosen).visits, chosen
        cost, of_face = self._cost(state, face)
        if of_face is None:
            return math.inf, None
        if self.faces.has(of_face.face):
            boxes = self.guess(of_face).boxes
            if not self.faces.fits(face, boxes):
                self.too_large.add(face)
                return math.inf, None
            cost += boxes
        return cost, chosen

    def search(self, chosen: Way) -> Search:
        """The search of a way whose faces are at hand."""
        return self.faces.search(chosen)

    def guess(self, chosen: Way) -> Guess:
        """Its estimate."""
        if chosen not in self._guesses:
            self._guesses[chosen] = estimate(self.search(chosen))
        return self._guesses[chosen]

    def parts(self, state: State, visits: float, most: int) -> list[Part]:
        """What is not done yet of the current search, in at most so many parts of about so many visits."""
        current = state.current
        assert current is not None
        chosen = current.record.way
        number = max(1, min(most, int(self.guess(chosen).visits / visits)))
        keep = {Aim.ONE: 1, Aim.LIST: state.keep, Aim.FACES: None}[current.aim]
        return list(state.open(self.search(chosen).parts(number, enough=current.aim is Aim.ONE, keep=keep)))

    def merge(self, state: State, outcome: Outcome) -> bool:
        """As `state.merge`; the listing of faces that are too many to be held is given up."""
        current = state.current
        if not state.merge(outcome):
            return False
        assert current is not None
        if current.aim is Aim.FACES and not self.faces.fits(current.record.sides, current.record.found):
            state.current = current
            state.give_up()
        return True

    def left(self, state: State) -> Visits:
        """What is left of the current search, and of the shapes that are still to be searched after it."""
        current = state.current
        assert current is not None
        guess = self.guess(current.record.way)
        low, high, every = guess.low - current.visits, guess.high - current.visits, current.aim is not Aim.FACES
        for sides in state.next()[1]:
            if sides == current.record.sides:
                continue
            other = self._guesses.get(way(sides))
            every = every and other is not None
            if other is not None:
                low, high = low + other.low, high + other.high
        return Visits(max(0.0, low), max(0.0, high), every)
