"""The boxes that a search has found and is still to lengthen, by stage; what is left over goes into work items."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import zstandard

from crochet_tasks.engine import runs
from crochet_tasks.engine.geometry import Sides, volume
from crochet_tasks.engine.order import Ids

FRONTIER = 200_000
"""boxes that are to be lengthened, from which on the largest go first, so that their number falls again"""
SLICE = 32_768
"""boxes that are lengthened in one call, at the most"""
TRIED = 16
"""the same where it is not known yet how many boxes come of one"""


class Stage(NamedTuple):
    """What boxes of a search have in common: their sides in the order in which they grow, the last axis at present.

    `back`, going outward: how many layers lie before the due line along each other axis. `ahead`: the last axis grows
    forward; else it still grows backward, and its lines are numbered as tree.backward does. `tied`: see `growths`.
    """

    sides: Sides
    back: tuple[int, ...] = ()
    ahead: bool = True
    tied: int = 0


class Frontier:
    """Boxes that are to be lengthened."""

    def __init__(self) -> None:
        self._boxes: dict[Stage, list[Ids]] = {}
        self._count = 0
        self._children: dict[Stage, float] = {}
        """how many came of a box of a stage the last time"""

    def add(self, stage: Stage, boxes: Ids) -> None:
        if len(boxes):
            self._boxes.setdefault(stage, []).append(boxes)
            self._count += len(boxes)

    def grow(self, stage: Stage, boxes: Ids, made: Iterable[tuple[Stage, Ids]]) -> None:
        """Add what was made of boxes that were taken."""
        before = self._count
        for child, rows in made:
            self.add(child, rows)
        self._children[stage] = (self._count - before) / len(boxes)

    def take(self, children: int) -> tuple[Stage, Ids] | None:
        """Boxes of one stage, so many that about so many `children` come of them.

        Of the smallest stage, so that a call has many; where there are too many boxes, of the largest.
        """
        if not self._boxes:
            return None
        pick = max if self._count > FRONTIER else min
        stage = pick(self._boxes, key=lambda stage: (volume(stage.sides), stage))
        boxes = self._boxes.pop(stage)
        taken = boxes[0] if len(boxes) == 1 else np.concatenate(boxes)
        each = self._children.get(stage)
        most = min(SLICE, TRIED if each is None else 1 + int(children / max(each, 1e-3)))
        if len(taken) > most:
            self._boxes[stage] = [taken[most:]]
            taken = taken[:most]
        self._count -= len(taken)
        return stage, taken

    def packed(self) -> list[bytes]:
        """Everything, as messages and rows of `work` keep it: one value per SLICE boxes, always the same."""
        return [
            _packed(stage, boxes[first : first + SLICE])
            for stage in sorted(self._boxes)
            for boxes in [np.concatenate(self._boxes[stage])]
            for first in range(0, len(boxes), SLICE)
        ]

    @classmethod
    def read(cls, packed: bytes) -> Frontier:
        head, _, data = packed.partition(b"\n")
        sides, back, ahead, *tied, width = json.loads(head)  # without `tied` in stores of earlier versions
        boxes = np.frombuffer(zstandard.ZstdDecompressor().decompress(data), "<u4").reshape(-1, width)
        frontier = cls()
        frontier.add(Stage(tuple(sides), tuple(back), ahead, *tied), boxes.astype(np.uint32))
        return frontier


def _packed(stage: Stage, boxes: Ids) -> bytes:
    head = json.dumps([*stage, boxes.shape[1]]).encode()
    return head + b"\n" + zstandard.ZstdCompressor(runs.LEVEL).compress(np.ascontiguousarray(boxes, "<u4").tobytes())
