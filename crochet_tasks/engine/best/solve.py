"""Bring a state to its end in one process: choose what to search, do its parts on several threads, merge.

The choices rest on estimates, which are the same each time; so are the shapes that are searched, and what they hold.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from typing import NamedTuple

import numpy as np

from crochet_tasks.engine.best.estimate import Guess, estimate
from crochet_tasks.engine.best.faces import PARTS, Faces, Flag, Outcome, Part, Search, Way, ordered, way
from crochet_tasks.engine.best.shapes import Key, Scope
from crochet_tasks.engine.best.state import Aim, Ortho, State
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.tree import Tree

PART_VISITS = 2_000_000
"""about how much of a search is one part: some tenths of a second"""
POLL_SECONDS = 0.2


def digest(tree: Tree, max_side: int) -> str:
    """The name of a context: of all phrases of up to so many words, in whatever order texts brought them."""
    last = min(max_side, len(tree.levels) - 1)
    high = tree.levels[last]
    state = hashlib.blake2b("\n".join(tree.words).encode(), digest_size=16)
    state.update(np.array(tree.levels[: last + 1], "<u8").tobytes())
    for column in (tree.parent, tree.word):
        state.update(column[:high].astype("<u4").tobytes())
    return state.hexdigest()


def begun(tree: Tree, scope: Scope, top: int | None = None) -> State:
    """A search of which nothing is done yet."""
    longest = min(scope.max_side, len(tree.levels) - 1)
    state = State(digest(tree, scope.max_side), scope, longest, top)
    state.conclude()
    return state


class Left(NamedTuple):
    """Seconds that are left for the shapes that are still to be searched, as estimated: of an interval, the ends.

    `all`: False where there are shapes for which there is no estimate yet, so that it may take longer.
    """

    low: float
    high: float
    all: bool


class Progress(NamedTuple):
    """What is known at a moment. `upper`: the largest key that is still possible; None: no bound is known.

    `share`: of the shape that is searched now, as estimated. `left`: None where nothing is known.
    """

    incumbent: Ortho | None
    upper: Key | None
    shape: Sides | None
    aim: Aim | None
    share: float
    left: Left | None


class Solver:
    def __init__(self, faces: Faces, state: State, threads: int) -> None:
        self.state, self._faces, self._threads = state, faces, threads
        self._searches: dict[Way, tuple[Search, Guess]] = {}
        self._rows: list[Ids] = []
        self._cells = 0
        self._visits, self._seconds = 0, 0.0
        self._upper: tuple[object, Key | None] = (None, None)
        if state.current is not None:
            state.lose_faces()

    def run(
        self, progress: Callable[[Progress], None] = lambda _: None, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        """Search until all is done, or somebody wants to stop, or what is left takes more memory than there may be."""
        with ThreadPoolExecutor(self._threads, thread_name_prefix="best") as pool:
            while not self.state.done and not stopped():
                if self.state.current is None and not self._begin():
                    break
                if self.state.current is not None:
                    self._search(pool, progress, stopped)

    # ── what to search ──────────────────────────────────────────────────────────────────────────

    def _begin(self) -> bool:
        """Begin the search that seems to take least; False where none is possible."""
        aim, choice = self.state.next()
        if self.state.waiting is not None:
            aim, choice = self.state.waiting.aim, [self.state.waiting.record.sides]
        costs = {sides: self._way(sides) for sides in choice}
        possible = [(cost, sides, chosen) for sides, (cost, chosen) in costs.items() if chosen is not None]
        if not possible:
            return False
        _, _, chosen = min(possible)
        while not self._faces.has(chosen.face):
            aim = Aim.FACES
            _, of_face = self._way(chosen.face)
            assert of_face is not None  # else the way would not be possible
            chosen = of_face
        self._rows, self._cells = [], 0
        search, _ = self._prepared(chosen)
        self.state.begin(aim, search, self._faces.count(chosen.face))
        if self.state.current is None and aim is Aim.FACES:
            self._faces.put(chosen.sides, self._listed(chosen.sides))
        return True

    def _way(self, sides: Sides) -> tuple[float, Way | None]:
        """About how many visits a shape takes, and how it is searched; None where its faces are too many."""
        chosen = way(sides)
        face = chosen.face
        if face in self.state.too_many:
            return math.inf, None
        if self._faces.has(face):
            return self._prepared(chosen)[1].visits, chosen
        cost, of_face = self._way(face)
        if of_face is None:
            return math.inf, None
        if self._faces.has(of_face.face):
            boxes = self._prepared(of_face)[1].boxes
            if not self._faces.fits(face, boxes):
                return math.inf, None
            cost += boxes
        return cost, chosen

    def _prepared(self, chosen: Way) -> tuple[Search, Guess]:
        """The search of a way whose faces are at hand, and its estimate."""
        if chosen not in self._searches:
            search = self._faces.search(chosen)
            guess = estimate(search)
            self._searches[chosen] = search, guess
        return self._searches[chosen]

    # ── a search ────────────────────────────────────────────────────────────────────────────────

    def _search(self, pool: Executor, progress: Callable[[Progress], None], stopped: Callable[[], bool]) -> None:
        """Do the parts of the current search; it is over when the state says so, or somebody wants to stop."""
        current = self.state.current
        assert current is not None
        way, aim = current.record.way, current.aim
        search, guess = self._prepared(way)
        number = max(1, min(PARTS, int(guess.visits / PART_VISITS)))
        keep = {Aim.ONE: 1, Aim.LIST: self.state.keep, Aim.FACES: None}[aim]
        todo = deque(self.state.open(search.parts(number, enough=aim is Aim.ONE, keep=keep)))
        stop: Flag = np.zeros(1, np.uint8)
        running: set[Future[Outcome]] = set()
        began = time.perf_counter()
        while running or todo:
            if stopped():
                stop[0] = 1
                todo.clear()
            while todo and len(running) < self._threads:
                running.add(pool.submit(search.run, todo.popleft(), stop))
            done, running = wait(running, POLL_SECONDS, FIRST_COMPLETED)
            for outcome in [future.result() for future in done]:
                self._merge(outcome, todo, stop)
            if self.state.current is not current:
                stop[0] = 1
                todo.clear()
            else:
                progress(self.progress(guess, time.perf_counter() - began))
        self._seconds += time.perf_counter() - began

    def _merge(self, outcome: Outcome, todo: deque[Part], stop: Flag) -> None:
        current = self.state.current
        news = self.state.merge(outcome)
        if not news:
            return
        assert current is not None
        self._visits += outcome.visits
        part = outcome.part
        if outcome.reached < part.last and not part.enough and not stop[0]:
            todo.appendleft(part._replace(first=outcome.reached))
        if current.aim is Aim.FACES:
            self._rows.append(outcome.boxes)
            found = current.record.found
            if not self._faces.fits(part.way.sides, found):
                self.state.current = current
                self.state.give_up()
            elif self.state.current is None:
                self._faces.put(part.way.sides, self._listed(part.way.sides))

    def _listed(self, sides: Sides) -> Ids:
        return ordered(np.concatenate([np.empty((0, math.prod(sides)), np.uint32), *self._rows]))

    # ── for people ──────────────────────────────────────────────────────────────────────────────

    def progress(self, guess: Guess | None = None, seconds: float = 0.0) -> Progress:
        state, current = self.state, self.state.current
        share = 0.0
        if current is not None and guess is not None:
            share = min(1.0, current.visits / max(1.0, guess.visits))
        return Progress(
            state.incumbent,
            self._bound(),
            None if current is None else current.record.sides,
            None if current is None else current.aim,
            share,
            self._left(guess, seconds),
        )

    def _bound(self) -> Key | None:
        """The upper bound, which changes only with the conclusions of searches."""
        at = (len(self.state.empty), self.state.beaten, self.state.ceiling, self.state.done)
        if self._upper[0] != at:
            self._upper = at, self.state.upper()
        return self._upper[1]

    def _left(self, guess: Guess | None, seconds: float) -> Left | None:
        """By the pace so far; with the shapes beside the current one where they are estimated."""
        current = self.state.current
        pace = self._visits / max(1e-3, self._seconds + seconds)
        if current is None or guess is None or not pace:
            return None
        low, high, every = guess.low - current.visits, guess.high - current.visits, current.aim is not Aim.FACES
        for sides in self.state.next()[1]:
            chosen = way(sides)
            if sides == current.record.sides:
                continue
            if chosen in self._searches:
                other = self._searches[chosen][1]
                low, high = low + other.low, high + other.high
            else:
                every = False
        return Left(max(0.0, low) / pace, max(0.0, high) / pace, every)
