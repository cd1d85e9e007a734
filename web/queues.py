"""For operators: the queues of the broker, its workers, and messages that died and name no work."""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

from flask import Response

from api import process, security
from crochet_tasks.broker import queues as broker
from crochet_tasks.db import statistics as finished
from crochet_tasks.operate import inspection
from crochet_tasks.reporting import queue_depths, reports, worker_use
from crochet_tasks.reporting.queue_depths import Depths
from crochet_tasks.reporting.statistics import COUNTED, MINUTE
from crochet_tasks.schemas.reports import QueueStatus
from web import paging, plots
from web.pages import as_csv, blueprint, for_operators, show
from web.plots import Bars, Curve


class Queue(NamedTuple):
    """A queue, that of what died in it, and how much of its work was finished in a minute; None: unknown, or there is
    no kind of work that is its own. `lately`: how many messages waited in it in the last 15 minutes.
    """

    name: str
    alive: QueueStatus | None
    dead: QueueStatus | None
    rate: float | None
    lately: Curve


@blueprint.get("/console/queues")
@security.requires("admin")
@for_operators
def queues() -> Response:
    here = process.current()
    found = reports.queues_of(here.settings)
    with here.database.snapshot() as connection:
        slots = finished.slots(connection, None, COUNTED)
    rates = _rates(slots)
    history = queue_depths.read(here.settings, here.database)
    lines = [
        Queue(name, found.depths.get(name), found.depths.get(broker.dead(name)), rates.get(name), _curve(history, name))
        for name in broker.WORK
    ]
    workers = worker_use.seen(here.settings, here.database)
    has_redis = here.settings.redis_url is not None
    return show(
        "queues.html",
        broker=found,
        queues=lines,
        workers=workers,
        has_redis=has_redis,
        depth=None if history is None else _plot(history),
    )


class Plot(NamedTuple):
    """How many messages waited in all queues, per span; the last span is not over yet. `now`: None where unknown."""

    bars: Bars
    now: int | None
    begins_at: dt.datetime
    ends_at: dt.datetime


def _plot(history: list[Depths]) -> Plot:
    totals = [None if each.waiting is None else sum(each.waiting.values()) for each in history]
    ends_at = history[-1].begins_at + dt.timedelta(seconds=finished.SLOT_SECONDS)
    noted = [total for total in totals if total is not None]
    return Plot(plots.bars(totals), noted[-1] if noted else None, history[0].begins_at, ends_at)


def _curve(history: list[Depths] | None, name: str) -> Curve:
    return plots.curve([None if each.waiting is None else each.waiting.get(name) for each in history or ()])


@blueprint.get("/console/depths.csv")
@security.requires("admin")
@for_operators
def depths_data() -> Response:
    """When a span began, and how many messages waited in each queue near its end; empty where nobody noted it."""
    here = process.current()
    rows: list[list[object]] = [["begins_at", *broker.WORK]]
    for each in queue_depths.read(here.settings, here.database) or ():
        waiting = each.waiting or {}
        rows.append([each.begins_at.isoformat(), *(waiting.get(name) for name in broker.WORK)])
    return as_csv("depths", rows)


def _rates(slots: list[finished.Slot]) -> dict[str, float]:
    """Work that was finished in the last whole minute, by kind, which is what most queues are called."""
    whole = slots[-1 - MINUTE // finished.SLOT_SECONDS : -1]
    kinds = [name for name in broker.WORK if name not in ("orthos", "maintenance")]
    return {kind: float(sum(slot.done[kind] for slot in whole)) for kind in kinds if all(s.known for s in whole)}


@blueprint.get("/console/dead")
@security.requires("admin")
@for_operators
def dead() -> Response:
    with process.current().database.snapshot() as connection:
        page = paging.numbered(lambda begin, most, newer: inspection.letters(connection, begin, most, newer=newer))
    return show("dead.html", page=page, filters={})
