"""How far the work of a corpus is, and how a run of it ended."""

from __future__ import annotations

import enum
from typing import NamedTuple

from crochet_tasks.engine.geometry import Sides


class States(NamedTuple):
    """How much work is in which state."""

    open: int
    done: int
    failed: int


class RunProgress(NamedTuple):
    """How far a corpus is."""

    version: int
    work: States
    orthos: dict[Sides, int]
    """per shape, best shape first"""

    @property
    def total(self) -> int:
        return sum(self.orthos.values())

    @property
    def best(self) -> Sides | None:
        return next(iter(self.orthos), None)


class Goal(NamedTuple):
    """Where a run ends: at all orthos, or at its budget."""

    orthos: int
    words: str
    """the number for people"""
    rate: float
    """orthos per second, as estimated"""


class EndReason(enum.StrEnum):
    """Why a run started no more work."""

    CLOSED = "closed"
    """there is none: the store holds every ortho"""
    BUDGET = "budget"
    """the budget of orthos is reached"""
    DISK = "disk"
    """the disk is nearly full"""
    STOPPED = "stopped"
    """a signal stopped it"""
    WAITING = "waiting"
    """open work waits for its retry, or for work that has failed"""
    ELSEWHERE = "elsewhere"
    """another process on the same database has the open work"""


class Outcome(NamedTuple):
    """How `close` ended. `failure` is the first error that made work fail, if any did."""

    ended: EndReason
    progress: RunProgress
    search_seconds: float
    """spent on searching and on storing what was found"""
    failure: Exception | None
