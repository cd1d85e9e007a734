"""The closure of a version, found afresh in memory: for `verify`, and to measure the engine alone."""

from __future__ import annotations

from collections.abc import Iterator

from crochet_tasks.engine.geometry import Cells, Limits, Sides
from crochet_tasks.engine.growth import Bounds, Harvest, grow_into
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.engine.seeds import seed_into, seed_parts


def closure(
    index: PhraseIndex, version: int, limits: Limits, bounds: Bounds = Bounds()
) -> Iterator[tuple[Sides, Cells]]:
    """Every ortho of a version, each once, as (sides, cells) in pieces.

    What a part of the seeds yields is grown to its end, shape after shape, before the next part is seeded; where it
    becomes much, it is grown on at once. So memory holds a result per level of growth, never the whole.
    """
    for first, last in seed_parts(index, 0, version):
        while first < last:
            harvest = Harvest(bounds)
            first += seed_into(harvest, index, 0, version, limits, first, last)  # noqa: PLW2901 - what is left of the part
            yield from _grown(harvest, index, version, limits)


def _grown(harvest: Harvest, index: PhraseIndex, version: int, limits: Limits) -> Iterator[tuple[Sides, Cells]]:
    """What was harvested and all that grows from it, smaller shapes first: growing one only adds to larger ones."""
    while (taken := harvest.take()) is not None:
        sides, cells = taken
        yield sides, cells
        done = 0
        while done < cells.shape[1]:
            if harvest.full:
                much, harvest = harvest, Harvest(harvest.bounds)
                yield from _grown(much, index, version, limits)
            done += grow_into(harvest, index, sides, cells[:, done:], 0, version, limits)[1]
