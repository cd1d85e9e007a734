"""The console's first page: the work of all corpora, its pace with plots, and why it fails."""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

from flask import Response

from api import process, security
from crochet_tasks.db import statistics as finished
from crochet_tasks.db.statistics import SLOT_SECONDS, Slot
from crochet_tasks.errors import NotFound
from crochet_tasks.reporting import statistics
from crochet_tasks.reporting.statistics import COUNTED
from web import plots
from web.pages import as_csv, blueprint, operates, reach, show
from web.plots import Bars

PLOTS = {"work": "Work finished", "orthos": "Orthos stored"}


class Plot(NamedTuple):
    """Values per SLOT_SECONDS, the last of which is not over yet; None: unknown."""

    name: str
    title: str
    values: list[int | None]
    bars: Bars
    begins_at: dt.datetime
    ends_at: dt.datetime

    @property
    def last(self) -> int | None:
        """Of the last whole span."""
        return self.values[-2]

    @property
    def total(self) -> int:
        return sum(value or 0 for value in self.values)


@blueprint.get("/console")
@security.requires("operate")
def console() -> Response:
    """Of the tenant; of operators, of all tenants."""
    message = statistics.for_operators if operates() else statistics.for_tenants
    now = statistics.everything(process.current(), message, reach())
    slots = _slots()
    return show("console.html", now=now, plots=[_plot(name, slots) for name in PLOTS], seconds=SLOT_SECONDS)


def _slots() -> list[Slot]:
    with process.current().database.snapshot() as connection:
        return finished.slots(connection, reach(), COUNTED)


def _plot(name: str, slots: list[Slot]) -> Plot:
    values = [_value(name, slot) for slot in slots]
    ends_at = slots[-1].begins_at + dt.timedelta(seconds=SLOT_SECONDS)
    return Plot(name, PLOTS[name], values, plots.bars(values), slots[0].begins_at, ends_at)


def _value(name: str, slot: Slot) -> int | None:
    if not slot.known:
        return None
    return slot.orthos if name == "orthos" else slot.done.total()


@blueprint.get("/console/<name>.csv")
@security.requires("operate")
def data(name: str) -> Response:
    """The data of a plot: when a span began, and what was finished in it; empty where that is unknown."""
    if name not in PLOTS:
        raise NotFound(what="plot", name=name[:100])
    slots = _slots()
    kinds = sorted({kind for slot in slots for kind in slot.done}) if name == "work" else []
    rows: list[list[object]] = [["begins_at", name, *kinds]]
    for slot in slots:
        parts = [slot.done[kind] if slot.known else None for kind in kinds]
        rows.append([slot.begins_at.isoformat(), _value(name, slot), *parts])
    return as_csv(name, rows)
