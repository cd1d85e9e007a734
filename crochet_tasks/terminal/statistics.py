"""Statistics for people, in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from crochet_tasks.schemas.statistics import ErrorSeen, Pace, StatisticsNow, TimeLeft, Unknown, WorkerUse

FIVE_MINUTES = 300
SHOWN_ERRORS = 5
MESSAGE = 80
"""characters of one that are shown"""
_MINUTE, _HOUR = 60, 3600

_WHY: dict[Unknown, str] = {
    "not_counted": "there is more open work than is counted",
    "texts_waiting": "texts are no versions yet",
    "still_finding": "what the last versions make due is still looked for",
    "budget_spent": "a budget is spent",
    "held_up": "some work waits for a later try, or for work that has failed",
    "hardly_moving": "hardly anything was searched in the last minute",
    "not_shrinking": "the open work does not shrink steadily",
    "too_far": "the end is too far ahead",
}


def statistics_page(seen: StatisticsNow) -> RenderableType:
    """All corpora together: pace, workers, time left, errors."""
    facts = Table.grid(padding=(0, 2))
    retrying = sum(kind.retrying for kind in seen.work.values())
    facts.add_row(Text("time left", "dim"), Text(time_left(seen.left)))
    facts.add_row(Text("workers", "dim"), Text(_workers(seen.workers)))
    if retrying:
        facts.add_row(Text("retrying", "dim"), Text(f"{retrying:,} pieces of work", "yellow"))
    parts: list[RenderableType] = [_paces(seen.paces), facts]
    return Group(*parts, *([_errors(seen.errors)] if seen.errors else []))


def _paces(paces: list[Pace]) -> Table:
    table = Table("last", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("orthos/s", "work/s", "texts/min", "tries", "well"):
        table.add_column(name, justify="right")
    for pace in paces:
        rates = map(_rate, (pace.orthos_per_second, pace.work_per_second, pace.texts_per_minute))
        tries = "unknown" if pace.tries is None else f"{pace.tries:,}"
        table.add_row(f"{pace.seconds // _MINUTE} min", *rates, tries, _share(pace.success))
    return table


def in_words(pace: Pace) -> str:
    """In one line; nothing where nothing happened."""
    if pace.tries == 0:
        return ""
    rates = f"{_rate(pace.orthos_per_second)} orthos/s, {_rate(pace.work_per_second)} work/s"
    failed = f", {pace.failed_tries:,} tries failed" if pace.failed_tries else ""
    return f"{rates}, {_rate(pace.texts_per_minute)} texts/min{failed}"


def time_left(left: TimeLeft) -> str:
    """About how long, or why it is unknown."""
    if left.unknown is not None:
        return f"unknown: {_WHY.get(left.unknown, left.unknown)}"
    if not left.seconds:
        return "none: nothing is open"
    if left.seconds < 2 * _MINUTE:
        return f"about {left.seconds:.0f} s"
    if left.seconds < 2 * _HOUR:
        return f"about {left.seconds / _MINUTE:.0f} min"
    return f"about {left.seconds / _HOUR:.1f} h"


def _workers(use: WorkerUse) -> str:
    if use.busy is None:
        return "unknown"
    return f"{use.processes} process{'es' * (use.processes != 1)}, busy {_share(use.busy)} of the last minute"


def _rate(rate: float | None) -> str:
    if rate is None:
        return "unknown"
    return f"{rate:,.0f}" if rate >= 10 or not rate else f"{rate:,.2f}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.4g} %"


def _errors(errors: list[ErrorSeen]) -> Table:
    """Those of the last 15 minutes that came most often."""
    table = Table("error", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("tries", justify="right")
    for name in ("trend", "last", "said"):
        table.add_column(name)
    for each in errors[:SHOWN_ERRORS]:
        said = each.message if len(each.message) <= MESSAGE else f"{each.message[: MESSAGE - 1]}…"
        trend = each.trend if each.trend == "new" else f"{each.trend} ({each.before:,} before)"
        facts = (each.code, f"{each.count:,}", trend, f"{each.last_at:%H:%M:%S} UTC", said)
        table.add_row(*map(Text, facts))
    return table
