"""Bring a state to its end in one process: do what plan.py chooses on several threads, and merge."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from typing import NamedTuple

import numpy as np

from crochet_tasks.engine.best.estimate import Guess
from crochet_tasks.engine.best.faces import Faces, Flag, Outcome, Part, ordered
from crochet_tasks.engine.best.plan import Left, Planner, seconds_left
from crochet_tasks.engine.best.shapes import Key
from crochet_tasks.engine.best.state import Aim, Ortho, State
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.engine.order import Ids

PART_VISITS = 2_000_000
"""about how much of a search is one part: some tenths of a second"""
MOST_PARTS = 64
POLL_SECONDS = 0.2


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
        self._planner = Planner(faces)
        self._rows: list[Ids] = []
        self._visits, self._seconds = 0, 0.0
        self._upper: tuple[object, Key | None] = (None, None)
        if state.current is not None:
            state.lose_faces()

    def run(
        self, progress: Callable[[Progress], None] = lambda _: None, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        """Search until all is done, `stopped` says so, or what is left needs faces that are too many.

        Raises MemoryError where a shape that is to be listed has far too many orthos.
        """
        with ThreadPoolExecutor(self._threads, thread_name_prefix="best") as pool:
            while not self.state.done and not stopped():
                if self.state.current is None and not self._planner.begin(self.state):
                    break
                if self.state.current is not None:
                    self._search(pool, progress, stopped)

    # ── a search ────────────────────────────────────────────────────────────────────────────────

    def _search(self, pool: Executor, progress: Callable[[Progress], None], stopped: Callable[[], bool]) -> None:
        """Do the parts of the current search; it is over when the state or `stopped` says so."""
        current = self.state.current
        assert current is not None
        aim, self._rows = current.aim, []
        search, guess = self._planner.search(current.record.way), self._planner.guess(current.record.way)
        todo = deque(self._planner.parts(self.state, PART_VISITS, MOST_PARTS))
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
            for future in done:
                if isinstance(future.exception(), MemoryError) and aim is Aim.FACES:
                    self.state.give_up()  # one start alone has more than there is room for
                    break
                self._merge(future.result(), todo, stop)
            if self.state.current is not current:
                stop[0] = 1
                todo.clear()
            else:
                progress(self.progress(guess, time.perf_counter() - began))
        self._seconds += time.perf_counter() - began

    def _merge(self, outcome: Outcome, todo: deque[Part], stop: Flag) -> None:
        current, part = self.state.current, outcome.part
        if not self._planner.merge(self.state, outcome):
            return
        assert current is not None
        self._visits += outcome.visits
        if outcome.reached < part.last and self.state.current is current and not stop[0]:
            todo.appendleft(part._replace(first=outcome.reached))
        if current.aim is Aim.FACES:
            self._rows.append(outcome.boxes)
            if self.state.current is None and part.way.sides not in self.state.too_many:
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
        return seconds_left(self._planner.left(self.state), pace)
