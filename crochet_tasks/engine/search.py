"""The search of one window of versions: every ortho that has a line born in it, each exactly once.

There are two ways, and they find the same set. *Enumerating* grows all boxes from their first pair, by canonical
parents, and keeps the new ones; it suits a first text. *Outward* starts from each due phrase (`due_phrases`), in every
place that it can have in a box, and grows the box around it: first the axes across it, one after the other, each
backward and then forward. A box belongs to its lowest due line, of equal ones to the first in its canonical form;
found from another one it is dropped. So what a later text costs follows what is new.

A search reads nothing but its arguments, and a search that is run twice finds the same.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from crochet_tasks.engine import kernel, runs
from crochet_tasks.engine.frontier import Frontier, Stage
from crochet_tasks.engine.geometry import SHAPES_KEPT, Limits, Sides
from crochet_tasks.engine.kernel import Index, Lengthen
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.plans import growths, plan
from crochet_tasks.engine.runs import Run
from crochet_tasks.engine.tree import Tree

CHILDREN = 500_000
"""boxes that a call should make, at the most"""
CHUNK_ORTHOS = 120_000
"""how many orthos a chunk of starts should yield: enough for calls to cost nothing, few enough for the cache"""
PART_SQUARES = 200_000
"""by which starts are cut into parts (estimated 2x2 orthos): a part takes 0.05 to some seconds"""
PART_PHRASES = 200
"""the same for due phrases, in pairs: of phrases, one with a word more costs about half as much"""
ENUMERATE_FROM = 0.2
"""share of new pairs from which on enumerating is quicker (docs/adr/0038)"""


class Bounds(NamedTuple):
    """How large a batch and a result may be, in orthos. A result may be three times as large as its bound."""

    batch_orthos: int = 32_768
    result_orthos: int = 1_000_000


class Part(NamedTuple):
    """A part of the search of a window: the starts [first, last), or boxes that an earlier search left over."""

    first: int = 0
    last: int = 0
    boxes: bytes | None = None


class Outcome(NamedTuple):
    """What a search found, a run per shape, and the parts that did not fit into the result."""

    found: list[Run]
    left_over: list[Part]


class Window(NamedTuple):
    """What is searched: boxes with a line born after version `since` and up to the version of the tree.

    `due`: the phrases from which the search goes outward, ascending; None where it enumerates.
    """

    tree: Tree
    since: int
    due: Ids | None

    @property
    def starts(self) -> int:
        """How many starts the parts are ranges of: due phrases, or all pairs."""
        if self.due is not None:
            return len(self.due)
        levels = self.tree.levels
        return levels[2] - levels[1] if len(levels) > 2 else 0


def due_phrases(tree: Tree, since: int, waited: npt.NDArray[np.bool_] | None) -> Ids:
    """The due phrases of a window, ascending: pairs born in it, and longer phrases born in it that continue a line.

    `waited`: per node of the phrase index whether a stored ortho has it as a line (so waits on it); None where that is
    not known: then every phrase born in the window is due. Every new box has a due line: docs/pipeline.md.
    """
    new = np.flatnonzero(tree.born_after(since))
    ends = np.searchsorted(new, tree.levels)
    due = [new[low:high] for low, high in itertools.pairwise(ends[1:])]
    if waited is not None:
        is_due = np.zeros(tree.size, np.bool_)
        for n in range(1, len(due)):
            is_due[due[n - 1]] = True
            prefix = tree.parent[due[n]]
            due[n] = due[n][waited[tree.node[prefix]] | is_due[prefix]]
    return np.concatenate([np.empty(0, np.uint32), *due]).astype(np.uint32)


def window(tree: Tree, since: int, waited: npt.NDArray[np.bool_] | None = None) -> Window:
    """The window (since, version of the tree], searched in the way that costs less."""
    low, high = tree.levels[1:3] if len(tree.levels) > 2 else (0, 0)
    new = np.count_nonzero(tree.born_after(since)[low:high])
    if new >= ENUMERATE_FROM * (high - low):
        return Window(tree, since, None)
    return Window(tree, since, due_phrases(tree, since, waited))


def parts(window: Window, bounds: Bounds = Bounds()) -> list[Part]:
    """All starts, cut so that each part costs about the same; smaller bounds of a result make smaller parts."""
    if not window.starts:
        return []
    if window.due is None:
        cost, most = np.cumsum(squares(window.tree)), PART_SQUARES
    else:
        lengths = np.searchsorted(window.tree.levels, window.due, side="right")
        cost, most = np.cumsum(0.5 ** (lengths - 2.0)), PART_PHRASES
    share = bounds.result_orthos / Bounds().result_orthos
    number = max(1, int(cost[-1] / max(1.0, most * share)))
    cuts = np.searchsorted(cost, cost[-1] * np.arange(1, number) / number).tolist()
    edges = sorted({0, *cuts, window.starts})
    return [Part(first, last) for first, last in itertools.pairwise(edges)]


def squares(tree: Tree) -> npt.NDArray[np.float64]:
    """Per pair of the tree about how many 2x2 orthos begin with it: as many as if words met by chance, times four."""
    low, high = tree.levels[1:3]
    after = np.diff(tree.first[: len(tree.words) + 1]).astype(np.float64)
    reach = np.bincount(tree.parent[low:high], weights=after[tree.word[low:high]], minlength=len(tree.words))
    about: npt.NDArray[np.float64] = after[tree.word[low:high]] * reach[tree.parent[low:high]] / (low / 4 + 1)
    return about


def search(window: Window, limits: Limits, part: Part, bounds: Bounds = Bounds()) -> Outcome:
    """Search one part of a window."""
    way = Enumerating(window, limits) if window.due is None else Outward(window, limits)
    first, chunk, enough = part.first, 64, max(1, bounds.result_orthos)
    frontier = Frontier() if part.boxes is None else Frontier.read(part.boxes)
    while True:
        before = way.found
        while (taken := frontier.take(min(CHILDREN, enough))) is not None and way.found < 2 * enough:
            frontier.grow(*taken, way.lengthened(*taken))
        if taken is not None:
            frontier.add(*taken)
            break
        if first >= part.last or way.found >= enough:
            break
        last = min(first + chunk, part.last)
        for stage, boxes in way.started(first, last):
            frontier.add(stage, boxes)
        first = last
        yielded = max(1, way.found - before)
        chunk = max(1, min(chunk * 2, chunk * CHUNK_ORTHOS // yielded)) if way.found > before else chunk * 2
    left = [Part(boxes=boxes) for boxes in frontier.packed()]
    if first < part.last:
        left.append(Part(first, part.last))
    return Outcome(way.taken(), left)


def closure(tree: Tree, limits: Limits, bounds: Bounds = Bounds()) -> Iterator[Run]:
    """Every ortho of the tree's version, each once, in runs."""
    everything = Window(tree, 0, None)
    todo = parts(everything)[::-1]
    while todo:
        outcome = search(everything, limits, todo.pop(), bounds)
        todo += outcome.left_over[::-1]
        yield from outcome.found


# ── the two ways ────────────────────────────────────────────────────────────────────────────────


class Way:
    """What both ways share: the kernels, and what was found."""

    def __init__(self, window: Window, limits: Limits) -> None:
        self.window, self.tree, self.limits = window, window.tree, limits
        self.found = 0
        self._found: dict[Sides, list[Ids]] = {}

    def keep(self, sides: Sides, rows: Ids) -> None:
        if len(rows):
            self._found.setdefault(sides, []).append(rows)
            self.found += len(rows)

    def taken(self) -> list[Run]:
        return [Run(sides, runs.ascending(np.concatenate(self._found[sides]))) for sides in sorted(self._found)]

    def kernel(self, sides: Sides, axis: int, *, back: bool = False, canonical: bool) -> Lengthen:
        made = self._kernels.get((sides, axis, back))
        if made is None:
            tree = self.tree
            how = plan(sides, axis, back=back, canonical=canonical)
            made = Lengthen(tree.backward.index if back else tree.ahead, tree.ahead, self.behind, how)
            self._kernels[sides, axis, back] = made
        return made

    @property
    def behind(self) -> Index:
        """Which words come before a word."""
        return self.tree.pairs_before

    @functools.cached_property
    def _kernels(self) -> dict[tuple[Sides, int, bool], Lengthen]:
        return {}


class Enumerating(Way):
    """Boxes by canonical parents, from their first pair on. Rows: the lines along the leading axis."""

    def started(self, first: int, last: int) -> Iterator[tuple[Stage, Ids]]:
        low = self.tree.levels[1]
        yield Stage((2,)), np.arange(low + first, low + last, dtype=np.uint32).reshape(-1, 1)

    def lengthened(self, stage: Stage, boxes: Ids) -> Iterator[tuple[Stage, Ids]]:
        for axis, child, tied in growths(stage.sides, self.limits, stage.tied):
            rows = self.kernel(stage.sides, axis, canonical=True).children(boxes)
            self.keep(child, rows if self._new is None else self._with_new_line(child, rows))
            yield Stage(child, tied=tied), rows

    @functools.cached_property
    def _new(self) -> npt.NDArray[np.uint8] | None:
        """Per phrase whether it is born in the window; None where everything is."""
        return self.tree.born_after(self.window.since).view(np.uint8) if self.window.since else None

    def _with_new_line(self, sides: Sides, rows: Ids) -> Ids:
        words = runs.words(self.tree, sides, rows)
        verdict = kernel.walked(self.tree.ahead, words, *runs.line_tables(sides), self._new)[1]
        new: Ids = rows[verdict == 2]
        return new


class Outward(Way):
    """Boxes around a due phrase, which lies along axis 0. Rows: that phrase, then the lines along the last axis."""

    @property
    def behind(self) -> Index:
        return self.tree.backward.index

    def started(self, first: int, last: int) -> Iterator[tuple[Stage, Ids]]:
        assert self.window.due is not None
        due = self.window.due[first:last]
        for length in range(2, min(len(self.tree.levels) - 1, self.limits.max_side) + 1):
            low, high = np.searchsorted(due, self.tree.levels[length - 1 : length + 1])
            phrases = due[low:high]
            yield Stage((length,)), np.stack([phrases, phrases], axis=1)

    def lengthened(self, stage: Stage, boxes: Ids) -> Iterator[tuple[Stage, Ids]]:
        sides, back, ahead, _ = stage
        if len(sides) == 1:
            phrases = boxes[:, 0]
            self._alone[phrases] = True
            boxes = boxes[~(self._alone[self.tree.parent[phrases]] | self._alone[self.tree.backward.suffix(phrases)])]
        forward = boxes if ahead else np.column_stack([boxes[:, 0], self.tree.backward.phrases_of(boxes[:, 1:])])
        if len(sides) > 1:
            longer = (*sides[:-1], sides[-1] + 1)
            if not ahead:
                yield from self._children(stage, boxes, Stage(longer, (*back[:-1], back[-1] + 1), ahead=False))
            yield from self._children(stage, forward, Stage(longer, back))
        wider = [
            *self._children(stage, forward, Stage((*sides, 2), (*back, 1), ahead=False)),
            *self._children(stage, forward, Stage((*sides, 2), (*back, 0))),
        ]
        if len(sides) == 1:
            for _, found in wider:
                self._alone[found[:, 0]] = False
        yield from wider

    @functools.cached_property
    def _alone(self) -> npt.NDArray[np.bool_]:
        """Per phrase whether it was a start and is a line of no box. Then a longer one with it is of none either."""
        return np.zeros(self.tree.size, np.bool_)

    def _children(self, stage: Stage, boxes: Ids, child: Stage) -> Iterator[tuple[Stage, Ids]]:
        """One more layer. The axes across the due line come in the order of falling sides, so each box is met once."""
        falling = len(child.sides) < 3 or child.sides[-1] <= child.sides[-2]
        if not (len(boxes) and falling and self.limits.allow(child.sides)):
            return
        found = self._beside(stage, boxes, child) if len(stage.sides) == 1 else self._filled(stage, boxes, child)
        self._keep_owned(child, found)
        yield child, found

    def _filled(self, stage: Stage, boxes: Ids, child: Stage) -> Ids:
        if not len(boxes):  # the tables of a kernel take longer to make than a small text to search
            return np.empty((0, 1 + runs.height(child.sides)), np.uint32)
        grow = self.kernel(stage.sides, len(child.sides) - 1, back=not child.ahead, canonical=False)
        found: Ids = grow.children(np.ascontiguousarray(boxes[:, 1:]), track=True)
        found[:, 0] = boxes[found[:, 0], 0]
        return found

    def _beside(self, stage: Stage, boxes: Ids, child: Stage) -> Ids:
        """The boxes of a due phrase and one line beside it: those of its prefix, lengthened, where these are known.

        Word by word finds the same and takes longer, and a text brings long phrases together with their prefixes.
        """
        (length, _), (before,) = child.sides, child.back
        known = self._starts[before][self.tree.parent[boxes[:, 0]]]
        found = self._filled(stage, boxes[~known], child)
        both = self._turned((length, 2), found[:, 1:] if child.ahead else self.tree.backward.phrases_of(found[:, 1:]))
        if known.any():
            shorter = np.concatenate(self._two_lines[length - 1, before])
            chosen = np.zeros(self.tree.size, np.bool_)  # np.isin imports numpy.ma, for as long as a small text takes
            chosen[boxes[:, 0]] = chosen[self.tree.parent[boxes[known, 0]]] = True
            shorter = shorter[chosen[shorter[:, before]]]
            longer = self.kernel((2, length - 1), 1, canonical=False).children(shorter)
            longer = longer[chosen[longer[:, before]]]
            rows = self._turned((2, length), longer)
            rows = rows if child.ahead else self.tree.backward.ids_of(rows)
            found = np.concatenate([found, np.column_stack([longer[:, before], rows])])
            both = np.concatenate([both, longer])
        self._two_lines.setdefault((length, before), []).append(both)
        self._starts[before][boxes[:, 0]] = True
        return found

    def _turned(self, sides: Sides, rows: Ids) -> Ids:
        """The lines of boxes along the first of their two axes, given those along the last one."""
        words = runs.words(self.tree, sides, rows).reshape(-1, *sides).transpose(0, 2, 1)
        cells, lengths = np.arange(math.prod(sides), dtype=np.int32), np.full(sides[1], sides[0], np.int32)
        words = np.ascontiguousarray(words).reshape(-1, math.prod(sides))
        found: Ids = kernel.walked(self.tree.ahead, words, cells, lengths)[0]
        return found

    @functools.cached_property
    def _two_lines(self) -> dict[tuple[int, int], list[Ids]]:
        """By length, and by how many lines lie before the due one: the two lines of the boxes made so far."""
        return {}

    @functools.cached_property
    def _starts(self) -> npt.NDArray[np.bool_]:
        """The same two ways: per phrase whether all of its boxes of two lines are made."""
        return np.zeros((2, self.tree.size), np.bool_)

    def _keep_owned(self, stage: Stage, boxes: Ids) -> None:
        """Keep the boxes that belong to the phrase they were found from, in their canonical form."""
        if not len(boxes):
            return
        sides, back, ahead, _ = stage
        rows = np.ascontiguousarray(boxes[:, 1:] if ahead else self.tree.backward.phrases_of(boxes[:, 1:]))
        words = runs.words(self.tree, sides, rows)
        units = [words[:, math.prod(sides[axis + 1 :])] for axis in range(len(sides))]
        once = np.ones(len(words), np.bool_)
        for one, other in itertools.pairwise(range(1, len(sides))):
            if sides[one] == sides[other]:
                once &= units[one] > units[other]
        smaller = [
            units[axis] < units[0] if sides[axis] == sides[0] else np.full(len(words), sides[axis] < sides[0])
            for axis in range(1, len(sides))
        ]
        place = np.sum(smaller, axis=0)  # of axis 0 in the canonical order of the axes
        for at in range(len(sides)):
            chosen = np.flatnonzero(once & (place == at))
            if not len(chosen):
                continue
            order = list(range(len(sides) - 1, 0, -1))
            order.insert(at, 0)
            canonical = tuple(sides[axis] for axis in order)
            turned = words[chosen].reshape(-1, *sides).transpose(0, *(1 + axis for axis in order))
            line = _line_number(canonical, at, tuple(back[axis - 1] for axis in order if axis))
            phrases, verdict = kernel.walked(
                self.tree.ahead,
                np.ascontiguousarray(turned).reshape(len(chosen), -1),
                *runs.line_tables(canonical),
                self._due,
                np.ascontiguousarray(boxes[chosen, 0]),
                line,
            )
            self.keep(canonical, phrases[verdict == 2, : runs.height(canonical)])

    @functools.cached_property
    def _due(self) -> npt.NDArray[np.uint8]:
        flags = np.zeros(self.tree.size, np.uint8)
        flags[self.window.due] = 1
        return flags


@functools.lru_cache(SHAPES_KEPT)
def _line_number(sides: Sides, axis: int, at: tuple[int, ...]) -> int:
    """The number, in `runs.line_tables`, of the line along an axis through the cells with these other coordinates."""
    start = (*at[:axis], 0, *at[axis:])
    first = int(np.ravel_multi_index(start, sides))
    step = math.prod(sides[axis + 1 :])
    cells, lengths = runs.line_tables(sides)
    ends = np.cumsum(lengths)
    for number, (end, length) in enumerate(zip(ends.tolist(), lengths.tolist(), strict=True)):
        line = cells[end - length : end].tolist()
        if line[0] == first and line[1] - line[0] == step:
            return number
    raise AssertionError((sides, axis, at))
