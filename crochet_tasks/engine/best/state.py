"""How far the search for the best is: what is proven, the best known, and what is to be searched next.

A state changes only by outcomes of parts (`State.merge`), in whatever order they come and however often: threads, or
later workers, do parts; who keeps the state merges. It consists of plain values, so it can be written as JSON, and a
search that was ended goes on from it.

The goal is the best orthos in the order of 1-domain.md. The *incumbent* is the best ortho known of those that are worse
than all that are listed already. While a shape could be better than it, one of the smallest such shapes (the *targets*)
is searched for an ortho: none is found, and all shapes that contain it are empty too; or one is, and it is the new
incumbent. With no target left all shapes as good as the incumbent are listed, and with enough listed all is done.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from crochet_tasks.engine.best import shapes
from crochet_tasks.engine.best.faces import Outcome, Part, Search, Way
from crochet_tasks.engine.best.shapes import NOTHING, Key, Scope, contains, key
from crochet_tasks.engine.geometry import Sides

MOST_LISTED = 1_000
"""orthos that are kept of those that share the largest volume and cells, where no other number is asked for"""


FORMAT = 1
"""of states; another number where what an older program has concluded must not be built on"""


class Ortho(NamedTuple):
    """An ortho in canonical form, its words as ids."""

    sides: Sides
    words: tuple[int, ...]


class Done(NamedTuple):
    """The starts [first, last) that were searched, and how many stacks of 2, 3, … layers fitted."""

    first: int
    last: int
    layers: tuple[int, ...]


class Record(NamedTuple):
    """The search of a shape: as so many layers of a face, of so many faces and from so many starts; what was done of
    it, by starts.
    """

    way: Way
    faces: int
    starts: int
    parts: list[Done]

    @property
    def sides(self) -> Sides:
        return self.way.sides

    @property
    def found(self) -> int:
        """How many orthos the parts found."""
        return sum(part.layers[-1] for part in self.parts)


class Listed(NamedTuple):
    """A shape of which every ortho was found; the first ones in alphabetical order, as ids."""

    record: Record
    orthos: list[tuple[int, ...]]


class Aim(enum.Enum):
    """What a shape is searched for."""

    ONE = "one"
    """whether there is an ortho"""
    LIST = "list"
    """all orthos, because they are among the best"""
    FACES = "faces"
    """all orthos, because larger shapes are stacks of them; the caller that runs the parts keeps the orthos"""


@dataclass
class Current:
    """The shape that is searched now."""

    aim: Aim
    record: Record
    orthos: list[tuple[int, ...]] = field(default_factory=list)
    visits: int = 0


@dataclass
class State:
    """`context`: the digest of the phrases. `longest`: words of the longest phrase, or `scope.max_side` where that is
    less. `top`: how many orthos are wanted; None: all that share the largest volume and cells.

    `known`: an ortho of each shape that turned out not to be empty. `ceiling`: the key of the worst group of shapes
    that is listed whole. `waiting`: a search that goes on when its faces, which are not kept here, are listed again.
    `too_many`: faces that were too many to be held.
    """

    context: str
    scope: Scope
    longest: int
    top: int | None = None
    empty: list[Record] = field(default_factory=list)
    listed: list[Listed] = field(default_factory=list)
    known: list[Ortho] = field(default_factory=list)
    ceiling: Key | None = None
    incumbent: Ortho | None = None
    current: Current | None = None
    waiting: Current | None = None
    too_many: list[Sides] = field(default_factory=list)
    done: bool = False
    format: int = FORMAT

    @property
    def keep(self) -> int:
        """How many orthos of a shape are kept."""
        return MOST_LISTED if self.top is None else self.top

    @property
    def beaten(self) -> Key:
        """What an ortho must be better than to be the next incumbent."""
        return NOTHING if self.incumbent is None else key(self.incumbent.sides)

    def covered(self, sides: Sides) -> bool:
        """Whether a shape is proven to be empty."""
        return sides[-1] > self.longest or any(contains(sides, record.sides) for record in self.empty)

    def targets(self) -> list[Sides]:
        """The smallest shapes that could be better than the incumbent, and are worse than what is listed."""
        return [
            sides
            for sides in shapes.better(self.beaten, self.scope)
            if (self.ceiling is None or key(sides) < self.ceiling) and not self.covered(sides)
        ]

    def upper(self) -> Key | None:
        """The largest key that an ortho may still have, beside those listed; None where no bound is known."""
        targets = self.targets()
        return shapes.bound(targets, self.scope, self.covered, self.ceiling) if targets else self.beaten

    def next(self) -> tuple[Aim, list[Sides]]:
        """What to search now: any of these shapes; none where all is done.

        At first the longest boxes of two rows: they are quickly searched, and a first incumbent.
        """
        if self.done:
            return Aim.LIST, []
        if self.incumbent is None:
            for side in range(self.longest, 1, -1):
                if self.scope.allow((2, side)) and not self.covered((2, side)):
                    return Aim.ONE, [(2, side)]
        if targets := self.targets():
            return Aim.ONE, targets
        return Aim.LIST, self._unlisted()

    def _unlisted(self) -> list[Sides]:
        """The shapes as good as the incumbent that are neither listed nor proven to be empty."""
        listed = {one.record.sides for one in self.listed}
        alike = shapes.equal(self.beaten, self.scope) if self.incumbent else []
        return [sides for sides in alike if sides not in listed and not self.covered(sides)]

    # ── a search ────────────────────────────────────────────────────────────────────────────────

    def begin(self, aim: Aim, search: Search, faces: int) -> None:
        """Begin a search, or go on with the one that waited for its faces."""
        self.current = Current(aim, Record(search.way, faces, len(search.starts), []))
        if self.waiting is not None and self.waiting.record.way == search.way:
            self.current, self.waiting = self.waiting, None
        self._settle()

    def lose_faces(self) -> None:
        """Set the current search aside: who runs it has no faces."""
        if self.current is not None and self.current.aim is not Aim.FACES:
            self.waiting = self.current
        self.current = None

    def open(self, parts: Iterable[Part]) -> Iterator[Part]:
        """What is not done yet of the parts of the current search."""
        assert self.current is not None
        for part in parts:
            first = part.first
            for done in self.current.record.parts:  # ascending
                if first < part.last and done.last > first:
                    if done.first > first:
                        yield part._replace(first=first, last=min(done.first, part.last))
                    first = done.last
            if first < part.last:
                yield part._replace(first=first)

    def merge(self, outcome: Outcome) -> bool:
        """Take over an outcome; False where it is not news: of another search, or of starts that are done already."""
        current, part = self.current, outcome.part
        if current is None or current.record.way != part.way or part.enough != (current.aim is Aim.ONE):
            return False
        boxes = [(*box,) for box in outcome.boxes.tolist()] if current.aim is not Aim.FACES else []
        if current.aim is Aim.ONE and boxes:
            self._raise(Ortho(part.way.sides, boxes[0]))
            self.current = None
            return True
        done = Done(part.first, outcome.reached, outcome.layers)
        parts = current.record.parts
        if done.last <= done.first or any(other.first < done.last and done.first < other.last for other in parts):
            return False
        parts.append(done)
        parts.sort()
        current.visits += outcome.visits
        current.orthos = sorted(current.orthos + boxes)[: self.keep]
        self._settle()
        return True

    def _settle(self) -> None:
        """Draw the conclusion of a search that is done."""
        current = self.current
        assert current is not None
        record = current.record
        if sum(part.last - part.first for part in record.parts) < record.starts:
            return
        self.current = None
        if not record.found:
            self.empty = [other for other in self.empty if not contains(other.sides, record.sides)]
            self.empty.append(record)
        elif current.aim is Aim.LIST:
            self.listed.append(Listed(record, current.orthos))
            self.known.append(Ortho(record.sides, current.orthos[0]))
        self.conclude()

    def conclude(self) -> None:
        """Close a group of shapes that is listed whole, and choose the next incumbent."""
        while not self.done and self.current is None and self.next() == (Aim.LIST, []):
            total = sum(one.record.found for one in self.listed)
            if self.incumbent is None or self.top is None or total >= self.top:
                self.done = True
                return
            self.ceiling, self.incumbent = self.beaten, None
            for ortho in self.known:
                sides = shapes.largest_part(ortho.sides, self.ceiling)
                if sides is not None and key(sides) > self.beaten:
                    self.incumbent = part_of(ortho, sides)
            self.done = self.incumbent is None

    def _raise(self, ortho: Ortho) -> None:
        self.known.append(ortho)
        if key(ortho.sides) > self.beaten:
            self.incumbent = ortho

    def give_up(self) -> None:
        """Leave the current search: its faces are too many to be held."""
        assert self.current is not None
        self.too_many.append(self.current.record.sides)
        self.current = self.waiting = None


def part_of(ortho: Ortho, sides: Sides) -> Ortho:
    """A part of an ortho with these sides, in canonical form; the ortho's shape contains them."""
    box = np.array(ortho.words).reshape(ortho.sides)
    kept = len(ortho.sides) - len(sides)
    box = box[(0,) * kept + tuple(slice(side) for side in sides)]
    units = [box[(0,) * axis + (1,) + (0,) * (len(sides) - axis - 1)] for axis in range(len(sides))]
    axes = sorted(range(len(sides)), key=lambda axis: (sides[axis], int(units[axis])))
    return Ortho(sides, tuple(box.transpose(axes).ravel().tolist()))
