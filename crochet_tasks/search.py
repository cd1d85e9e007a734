"""Stage 4, parallel: search. Pure computation on the phrase index; what it finds is the message to `orthos`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from crochet_tasks import orthos
from crochet_tasks.app import Step, app, here
from crochet_tasks.db import batches, bulk, corpora, outbox
from crochet_tasks.db.batches import Batch
from crochet_tasks.db.outbox import Item
from crochet_tasks.engine import growth, seeds
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.engine.growth import Bounds
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.schemas import Packed, SearchCall, Searched, SearchResult


def bounds() -> Bounds:
    """How much one search hands back, by the settings."""
    settings = here().settings
    return Bounds(batch_orthos=settings.batch_orthos, result_bytes=settings.result_bytes)


@app.task(base=Step, name="search.seed", bind=True)
def seed(self: Step, payload: dict[str, Any]) -> None:
    """Play the empty ortho over a part of a version's start pairs."""
    call = SearchCall.model_validate(payload)
    with here().database.transaction() as connection:
        items = outbox.opened(connection, call.work)
        limits = corpora.numbered(connection, call.corpus).limits
        index = here().index(connection, call.corpus)
    for item in items:
        assert item.part is not None
        first, last = item.part
        found = seeds.seed(index, item.since, item.version, limits, first, last, bounds())
        result = SearchResult(
            corpus=call.corpus,
            upto=item.version,
            seed=item.id,
            seed_left_over=(first + found.done, last) if first + found.done < last else None,
            searched=[],
            handed_back=[],
            found=[Packed.of(sides, cells) for sides, cells in found.batches],
        )
        orthos.store.publish(result.payload())


@app.task(base=Step, name="search.grow", bind=True)
def grow(self: Step, payload: dict[str, Any]) -> None:
    """Find the children of batches of one shape that are searched through one window."""
    call = SearchCall.model_validate(payload)
    with here().database.transaction() as connection:
        items = outbox.opened(connection, call.work)
        limits = corpora.numbered(connection, call.corpus).limits
        # The version first and the index after it: so the index reaches at least as far.
        version = corpora.version(connection, call.corpus)
        index = here().index(connection, call.corpus)
        rows = batches.read(connection, [item.subject for item in items])
    # A batch that is gone was searched and rewritten by somebody else since its item was read.
    by_id = {batch.id: batch for batch in rows}
    inputs = [Input(item, by_id[item.subject]) for item in items if item.subject in by_id]
    if inputs:
        together = _together(inputs, here().settings.batch_orthos)
        orthos.store.publish(grown(index, limits, version, together, bounds()).payload())


class Input(NamedTuple):
    """A batch and the work item that wants it searched."""

    item: Item
    batch: Batch


def _together(inputs: list[Input], size: int) -> list[list[Input]]:
    """Inputs grouped so that each group makes one batch: small ones, left by many small finds, are put together."""
    groups: list[list[Input]] = []
    room = 0
    for item in sorted(inputs, key=lambda given: given.batch.cells.shape[1]):
        orthos_ = item.batch.cells.shape[1]
        if not groups or orthos_ > room:
            groups.append([])
            room = size
        groups[-1].append(item)
        room -= orthos_
    return groups


def grown(index: PhraseIndex, limits: Limits, upto: int, groups: list[list[Input]], limit: Bounds) -> SearchResult:
    """Search the groups one after the other until the result is large enough."""
    harvest = growth.Harvest(limit)
    searched: list[Searched] = []
    handed_back = [given.item.id for group in groups for given in group]
    for group in groups:
        if harvest.full:
            break
        done = _search(index, limits, upto, group, harvest)
        searched.append(done)
        handed_back = [item for item in handed_back if item not in done.work]
    first = groups[0][0].item
    return SearchResult(
        corpus=first.corpus,
        upto=upto,
        seed=None,
        seed_left_over=None,
        searched=searched,
        handed_back=handed_back,
        found=[Packed.of(sides, cells) for sides, cells in harvest.batches()],
    )


def _search(index: PhraseIndex, limits: Limits, upto: int, group: list[Input], harvest: growth.Harvest) -> Searched:
    item, batch = group[0]
    sides = batch.sides
    cells = np.concatenate([given.batch.cells.astype(index.cell_type) for given in group], axis=1)
    consulted, done = growth.grow_into(harvest, index, sides, cells, item.window, upto, limits)
    waits = [consulted, *(given.batch.phrases for given in group if given.batch.phrases is not None)]
    whole = done == cells.shape[1]
    return Searched(
        work=[given.item.id for given in group],
        batches=[given.batch.id for given in group],
        consulted=bulk.packed(np.unique(np.concatenate(waits))),
        rewritten=None if whole and len(group) == 1 else Packed.of(sides, cells[:, :done]),
        left_over=None if whole else Packed.of(sides, cells[:, done:]),
    )
