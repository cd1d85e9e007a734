"""Statistics, as the command line, the API and the status file report them."""

from __future__ import annotations

import datetime as dt
from typing import Literal, TypeAlias

from pydantic import BaseModel

Unknown: TypeAlias = Literal[
    "not_counted",
    "paused",
    "texts_waiting",
    "still_finding",
    "budget_spent",
    "held_up",
    "hardly_moving",
    "not_shrinking",
    "too_far",
]
"""why the time left cannot be estimated; docs/statistics.md explains each"""


class WorkOfKind(BaseModel, frozen=True):
    """Open and failed work of a kind."""

    ready: int
    """to be published"""
    held: int
    """until a budget is raised, which is spent, or the corpus is resumed"""
    published: int
    """with the broker, or with a worker that has not acknowledged it"""
    waiting: int
    """for a later try"""
    parked: int
    """until it is its turn"""
    retrying: int
    """of all these, those that have failed at least once"""
    failed: int


class Pace(BaseModel, frozen=True):
    """The last so many seconds. A rate is null where more was done than is counted."""

    seconds: int
    orthos_per_second: float | None
    """found and stored"""
    work_per_second: float | None
    """pieces of work that were done"""
    texts_per_minute: float | None
    """that became versions"""
    tries: int | None
    """of work, whether they succeeded or not"""
    failed_tries: int
    success: float | None
    """share of the tries that succeeded; null without any"""


class ErrorSeen(BaseModel, frozen=True):
    """Tries of work that failed with this code in the last 15 minutes, and how many in the 15 before."""

    code: str
    count: int
    before: int
    trend: Literal["new", "more", "same", "fewer"]
    last_at: dt.datetime
    message: str
    """of the last one"""


class WorkerUse(BaseModel, frozen=True):
    """How busy the processes of the workers were in the last minute; null: unknown."""

    processes: int | None
    busy: float | None
    """share of their time"""


class TimeLeft(BaseModel, frozen=True):
    """The estimated time until all open work is done; or null, and `unknown` is the reason."""

    seconds: float | None
    unknown: Unknown | None


class Statistics(BaseModel, frozen=True):
    """How much there is, how fast it goes, and what goes wrong: of one corpus or the sum of several."""

    corpora: int
    versions: int
    waiting_texts: int
    orthos: int
    work: dict[str, WorkOfKind]
    """by kind, where there is any"""
    paces: list[Pace]
    """of the last 1, 5 and 15 minutes"""
    errors: list[ErrorSeen]
    """most frequent first"""
    left: TimeLeft
    at_least: bool
    """whether there may be more than these numbers say: counting ends somewhere"""


class StatisticsNow(Statistics):
    workers: WorkerUse


class StatusFile(BaseModel, frozen=True):
    """What a relay writes into CROCHET_STATUS_FILE. It is stale once it is older than a few times `every`."""

    at: dt.datetime
    every: float
    """seconds"""
    statistics: StatisticsNow
