"""Throughput, errors and time left, computed from the database, so every process reports the same.

The time left is estimated only where the data allows it; else it is unknown, with the reason:

    not_counted     there is more open work than is counted
    texts_waiting   texts are no versions yet: what they make due is not known
    still_finding   what a version makes due is still being found
    paused          work is on hold until a corpus is resumed
    budget_spent    searches are on hold until a budget is raised
    held_up         some of the work rests before a later try, or it waits for work that has failed
    hardly_moving   fewer than LEAST searches were done in the last minute
    not_shrinking   what is open did not shrink in the last half minute, in the one before, and in the window:
                    searches that were done, less those that were added meanwhile
    too_far         the end is further ahead than AHEAD times the window of 1, 5 or 15 minutes

Otherwise it is the number of open searches, which cost about the same, divided by how fast that number shrank: what
they leave over is searched as well, so not by how many were done. Failed work is not waited for: what it would find is
missing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Literal

from crochet_tasks.db import statistics
from crochet_tasks.db.process import Process
from crochet_tasks.db.statistics import LONGEST, Counts, Failing
from crochet_tasks.db.tally import BESIDE, OPEN
from crochet_tasks.errors import public_message
from crochet_tasks.reporting import worker_use
from crochet_tasks.schemas.statistics import (
    ErrorSeen,
    Pace,
    Statistics,
    StatisticsNow,
    TimeLeft,
    Unknown,
    WorkerUse,
    WorkOfKind,
)

COUNTED = 100_000
"""the most rows of a corpus that are read for one number: there may be millions"""
MINUTE, HALF = 60, 30
PACES = (MINUTE, 300, LONGEST)
LEAST = 4
AHEAD = 10
CODES = 20
"""errors that are listed, at most"""

Message = Callable[[str, str], str]
"""maps the code and message of an error to the message to report"""


def for_tenants(code: str, message: str) -> str:
    """Only what tenants may read of an error."""
    return public_message(code, message)


def for_operators(_code: str, message: str) -> str:
    """The first line; `crochet work show` has the rest."""
    return message.split("\n", 1)[0]


def report(counts: Counts, message: Message) -> Statistics:
    """Counters as rates and shares."""
    return Statistics(
        corpora=counts.corpora,
        versions=counts.versions,
        waiting_texts=counts.waiting_texts,
        orthos=counts.orthos,
        work=_work(counts),
        paces=[_pace(counts, seconds) for seconds in PACES],
        errors=_errors(counts.errors, message),
        left=left(counts),
        at_least=counts.uncounted,
    )


def now(every: Iterable[Counts], message: Message, workers: WorkerUse) -> StatisticsNow:
    """Several corpora as one."""
    return StatisticsNow(**dict(report(statistics.total(every), message)), workers=workers)


def everything(
    process: Process, message: Message, tenant: int | None = None, only: Collection[int] | None = None
) -> StatisticsNow:
    """All corpora of a tenant (with `only`, these), or of all tenants, in one snapshot."""
    workers = worker_use.read(process.settings, process.database)
    with process.database.snapshot() as connection:
        counts = statistics.of_tenant(connection, tenant, COUNTED, only)
    return now(counts.values(), message, workers)


def _work(counts: Counts) -> dict[str, WorkOfKind]:
    kinds = sorted({kind for kind, _ in counts.work})
    return {
        kind: WorkOfKind(
            retrying=counts.retrying[kind],
            **{name: counts.work[kind, name] for name in (*OPEN, "failed")},
        )
        for kind in kinds
    }


def _pace(counts: Counts, seconds: int) -> Pace:
    done, failed = counts.done[seconds], counts.failed_tries[seconds]
    if counts.reach < seconds:
        return Pace(
            seconds=seconds,
            orthos_per_second=None,
            work_per_second=None,
            texts_per_minute=None,
            tries=None,
            failed_tries=failed,
            success=None,
        )
    return Pace(
        seconds=seconds,
        orthos_per_second=round(counts.orthos_found[seconds] / seconds, 3),
        work_per_second=round(done / seconds, 3),
        texts_per_minute=round(counts.versions_made[seconds] * MINUTE / seconds, 3),
        tries=done + failed,
        failed_tries=failed,
        success=round(done / (done + failed), 4) if done + failed else None,
    )


def _errors(errors: dict[str, Failing], message: Message) -> list[ErrorSeen]:
    recent = sorted((item for item in errors.items() if item[1].tries), key=lambda item: (-item[1].tries, item[0]))
    return [
        ErrorSeen(
            code=code,
            count=each.tries,
            before=each.before,
            trend=_trend(each),
            last_at=each.last_at,
            message=message(code, each.message),
        )
        for code, each in recent[:CODES]
    ]


def _trend(each: Failing) -> Literal["new", "more", "same", "fewer"]:
    if not each.before:
        return "new"
    if each.tries == each.before:
        return "same"
    return "more" if each.tries > each.before else "fewer"


# ── time left ──────────────────────────────────────────────────────────────────────────────────


def left(counts: Counts) -> TimeLeft:
    """The estimated time left, or why it is unknown."""
    why = _unknowable(counts)
    if why is not None:
        return TimeLeft(seconds=None, unknown=why)
    if not _in_state(counts, "ready", "published"):
        return TimeLeft(seconds=0.0, unknown=None)
    if counts.searches_done[MINUTE] < LEAST:
        return TimeLeft(seconds=None, unknown="hardly_moving")
    first_half = _shrunk(counts, MINUTE) - _shrunk(counts, HALF)
    if min(first_half, _shrunk(counts, HALF)) <= 0:
        return TimeLeft(seconds=None, unknown="not_shrinking")
    for seconds in PACES:
        shrunk = _shrunk(counts, seconds)
        if counts.reach < seconds or shrunk <= 0:
            return TimeLeft(seconds=None, unknown="not_shrinking" if shrunk <= 0 else "not_counted")
        ahead = counts.searches_open * seconds / shrunk
        if ahead <= AHEAD * seconds:
            return TimeLeft(seconds=round(ahead, 1), unknown=None)
    return TimeLeft(seconds=None, unknown="too_far")


def _unknowable(counts: Counts) -> Unknown | None:
    """The first reason why no estimate is possible; None: there is none."""
    conditions: dict[Unknown, bool] = {
        "not_counted": counts.uncounted,
        "paused": _in_state(counts, "held") > 0 and not counts.spent,
        "texts_waiting": counts.waiting_texts > 0,
        "budget_spent": counts.spent,
        "held_up": _in_state(counts, "waiting") > 0 or counts.work["remediations", "failed"] > 0,
        "still_finding": any(kind not in ("search", BESIDE) for kind, state in counts.work if state != "failed"),
    }
    return next((why for why, holds in conditions.items() if holds), None)


def _in_state(counts: Counts, *states: str) -> int:
    return sum(number for (_, state), number in counts.work.items() if state in states)


def _shrunk(counts: Counts, seconds: int) -> int:
    return counts.searches_done[seconds] - counts.searches_added[seconds]
