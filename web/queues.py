"""For operators: the queues of the broker, its workers, and messages that died and name no work."""

from __future__ import annotations

from typing import NamedTuple

from flask import Response

from api import process, security
from crochet_tasks.broker import queues as broker
from crochet_tasks.db import statistics as finished
from crochet_tasks.operate import inspection
from crochet_tasks.reporting import reports, worker_use
from crochet_tasks.reporting.statistics import COUNTED, MINUTE
from crochet_tasks.schemas.reports import QueueStatus
from web import paging
from web.pages import blueprint, for_operators, show


class Queue(NamedTuple):
    """A queue, that of what died in it, and how much of its work was finished in a minute; None: unknown, or there is
    no kind of work that is its own.
    """

    name: str
    alive: QueueStatus | None
    dead: QueueStatus | None
    rate: float | None


@blueprint.get("/console/queues")
@security.requires("admin")
@for_operators
def queues() -> Response:
    here = process.current()
    found = reports.queues_of(here.settings)
    with here.database.snapshot() as connection:
        slots = finished.slots(connection, None, COUNTED)
    rates = _rates(slots)
    lines = [
        Queue(name, found.depths.get(name), found.depths.get(broker.dead(name)), rates.get(name))
        for name in broker.WORK
    ]
    workers = worker_use.seen(here.settings, here.database)
    has_redis = here.settings.redis_url is not None
    return show("queues.html", broker=found, queues=lines, workers=workers, has_redis=has_redis)


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
