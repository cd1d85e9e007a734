"""Stage 4, parallel: search, a pure computation on the phrase index. The result is the message to `orthos`."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from crochet_tasks import orthos, telemetry
from crochet_tasks.app import Step, app
from crochet_tasks.broker.messages import FoundBatch, Packed, SearchCall, Searched, SearchResult
from crochet_tasks.db import batches, bulk, corpora, outbox
from crochet_tasks.db.batches import Batch
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.process import here
from crochet_tasks.engine import growth, seeds
from crochet_tasks.engine.geometry import Limits, shape_name
from crochet_tasks.engine.growth import Bounds, Harvest
from crochet_tasks.engine.phrases import Ints, PhraseIndex
from crochet_tasks.telemetry import metrics

SMALL_FRACTION = 4
"""up to a fourth of a full batch is searched at once instead of becoming a work item"""


def bounds() -> Bounds:
    """Return the limits of one result, from the settings."""
    settings = here().settings
    return Bounds(batch_orthos=settings.batch_orthos, result_bytes=settings.result_bytes)


@app.task(base=Step, name="search.seed", message=SearchCall)
def seed(call: SearchCall) -> None:
    """Play the empty ortho over a part of a version's start pairs."""
    with here().database.transaction() as connection:
        items = outbox.opened(connection, call.work, runnable=True)
        metrics.DUPLICATES.add(len(call.work) - len(items), what="search")
        if not items:  # done, or deleted with its corpus
            return
        corpus = corpora.numbered(connection, call.corpus)
        index = here().index(connection, corpus.id, corpus.version)
    for item in items:
        began = time.perf_counter()
        with telemetry.span("search.engine", kind="seed", version=item.version):
            result = seeded(index, corpus.limits, item, bounds())
            telemetry.result(found=sum(batch.count for batch in result.found))
        _measure("seed", result, time.perf_counter() - began)
        orthos.store.publish(result)


@app.task(base=Step, name="search.grow", message=SearchCall)
def grow(call: SearchCall) -> None:
    """Find the children of batches of one shape that are searched through one window."""
    with here().database.transaction() as connection:
        items = outbox.opened(connection, call.work, runnable=True)
        metrics.DUPLICATES.add(len(call.work) - len(items), what="search")
        if not items:
            return
        corpus = corpora.numbered(connection, call.corpus)
        index = here().index(connection, corpus.id, corpus.version)
        rows = {batch.id: batch for batch in batches.read(connection, [item.subject for item in items])}
    # A missing batch was searched and rewritten by another task since its item was read.
    inputs = [Input(item, rows[item.subject]) for item in items if item.subject in rows]
    if inputs:
        groups = _grouped(inputs, here().settings.batch_orthos)
        shape = shape_name(inputs[0].batch.sides)
        began = time.perf_counter()
        with telemetry.span("search.engine", kind="grow", version=corpus.version, shape=shape):
            result = grown(index, corpus.limits, corpus.version, groups, bounds())
            searched = sum(given.item.size for group in groups[: len(result.searched)] for given in group)
            telemetry.result(found=sum(batch.count for batch in result.found), searched=searched)
        _measure(orthos.found_by(inputs[0].item), result, time.perf_counter() - began)
        orthos.store.publish(result)


def _measure(by: str, result: SearchResult, seconds: float) -> None:
    metrics.SEARCH_SECONDS.observe(seconds, by=by)
    for batch in result.found:
        metrics.FOUND.add(batch.count, shape=metrics.shape(batch.sides), by=by)


class Input(NamedTuple):
    """A batch and the work item of its search."""

    item: Item
    batch: Batch


def _grouped(inputs: list[Input], size: int) -> list[list[Input]]:
    """Group inputs so that each group makes one batch: small batches are merged.

    A group has one shape and one window. The relay publishes only such inputs in one message; this does not rely on it.
    """
    groups: list[list[Input]] = []
    room, kind = 0, None
    for given in sorted(
        inputs, key=lambda given: (given.batch.sides, given.item.window, given.item.size, given.batch.id)
    ):
        if (given.batch.sides, given.item.window) != kind or given.item.size > room:
            groups.append([])
            room, kind = size, (given.batch.sides, given.item.window)
        groups[-1].append(given)
        room -= given.item.size
    return groups


def seeded(index: PhraseIndex, limits: Limits, item: Item, bound: Bounds) -> SearchResult:
    """Play the empty ortho over the start pairs of one work item."""
    assert item.part is not None
    first, last = item.part
    harvest = growth.Harvest(bound)
    done = seeds.seed_into(harvest, index, item.since, item.version, limits, first, last)
    return SearchResult(
        corpus=item.corpus,
        upto=item.version,
        seed=item.id,
        seed_left_over=(first + done, last) if first + done < last else None,
        searched=[],
        handed_back=[],
        found=_found(harvest, index, limits, item.version),
    )


def grown(index: PhraseIndex, limits: Limits, upto: int, groups: list[list[Input]], bound: Bounds) -> SearchResult:
    """Search the groups one after the other until the result is large enough."""
    harvest = growth.Harvest(bound)
    searched: list[Searched] = []
    for group in groups:
        if harvest.full:
            break
        searched.append(_search(harvest, index, limits, upto, group))
    return SearchResult(
        corpus=groups[0][0].item.corpus,
        upto=upto,
        seed=None,
        seed_left_over=None,
        searched=searched,
        handed_back=[given.item.id for group in groups[len(searched) :] for given in group],
        found=_found(harvest, index, limits, upto),
    )


def _search(harvest: Harvest, index: PhraseIndex, limits: Limits, upto: int, group: list[Input]) -> Searched:
    item, batch = group[0]
    sides = batch.sides
    cells = np.concatenate([given.batch.cells.astype(index.cell_type) for given in group], axis=1)
    consulted, done = growth.grow_into(harvest, index, sides, cells, item.window, upto, limits)
    waits = [given.batch.phrases for given in group if given.batch.phrases is not None]
    whole = done == cells.shape[1]
    return Searched(
        work=[given.item.id for given in group],
        batches=[given.batch.id for given in group],
        consulted=bulk.packed(_union(index.nodes, [consulted, *waits])),
        rewritten=None if whole and len(group) == 1 else Packed.of(sides, cells[:, :done]),
        left_over=None if whole else Packed.of(sides, cells[:, done:]),
    )


def _union(nodes: int, phrases: list[Ints]) -> Ints:
    marked = np.zeros(nodes, np.bool_)
    for some in phrases:
        marked[some] = True
    return np.flatnonzero(marked).astype(np.int32)


def _found(harvest: Harvest, index: PhraseIndex, limits: Limits, upto: int) -> list[FoundBatch]:
    """Return the harvest as batches. Small ones are searched at once, smaller shapes first."""
    size = harvest.bounds.batch_orthos
    harvest.room += harvest.bounds.result_bytes  # for what those searches add
    found: list[FoundBatch] = []
    while (taken := harvest.take()) is not None:
        sides, cells = taken
        done = 0
        if cells.shape[1] <= size // SMALL_FRACTION and not harvest.full:
            consulted, done = growth.grow_into(harvest, index, sides, cells, 0, upto, limits)
            found.append(FoundBatch.of(sides, cells[:, :done], consulted=bulk.packed(consulted)))
        found += [FoundBatch.of(sides, batch, consulted=None) for batch in growth.cut(cells[:, done:], size)]
    return found
