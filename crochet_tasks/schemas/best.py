"""What `crochet best` and the API answer about the best orthos."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from crochet_tasks.schemas.answers import LineSeen
from crochet_tasks.schemas.reports import Answer, Best, TextError


class Bound(Answer):
    """Orthos are compared by volume first, then by cells."""

    volume: int
    cells: int


class BestOrtho(Best):
    id: str
    """as in the other answers, which have it once it is stored"""
    volume: int
    cells: int
    lines: list[LineSeen] | None = None
    """where each line was read; null: not looked up, because the text is not stored, or further down the list"""


class Searching(Answer):
    """The shape that is searched now, and what for: one ortho, a list of all, or to stack them (`faces`)."""

    shape: str
    aim: Literal["one", "list", "faces"]


class Parts(Answer):
    """Of the search of one shape."""

    done: int
    total: int


class SecondsLeft(Answer):
    """An estimate from samples, at the pace so far; `high` is null where some shapes cannot be estimated yet."""

    low: float
    high: float | None


class BestJob(Answer):
    """A search for the best orthos of a version."""

    id: str
    corpus: str
    version: int
    """of the corpus"""
    state: Literal["queued", "running", "proven", "stopped", "failed"]
    """`queued`: no step is done yet; `stopped`: cancelled, or what is left would be stacked of `too_large` shapes"""
    limits: dict[str, int | None]
    """null: any number"""
    top: int | None
    """how many are wanted; null: all that share the largest volume and cells"""
    best: list[BestOrtho]
    """those that are listed for certain, best first; of shapes with very many orthos the first in alphabetical order"""
    found: dict[str, int]
    """per shape of `best`, how many orthos it has"""
    incumbent: BestOrtho | None
    """the best known so far of those that are not listed; null where it is proven, or nothing is found yet"""
    upper: Bound | None
    """what an ortho that is not listed may have at the most; null where it is proven, or no bound is known"""
    gap: int | None
    """between the volumes of `upper` and `incumbent`; 0 where it is proven, null where no bound is known"""
    searching: Searching | None
    parts: Parts | None
    """of the shape that is searched"""
    estimated_seconds_left: SecondsLeft | None
    empty: list[str]
    """shapes that are proven to have no ortho"""
    too_large: list[str]
    """shapes that have more orthos than a worker holds in memory, so that what is stacked of them is not searched"""
    certificate: str | None
    """the address of the proof, where there is one"""
    error: TextError | None
    created_at: dt.datetime
    began_at: dt.datetime | None
    """the first step since it was asked for the last time"""
    changed_at: dt.datetime | None
    finished_at: dt.datetime | None


class BestReport(Answer):
    """The outcome of `crochet best --json`."""

    complete: bool
    """whether all orthos that were asked for are in `best`, and it is proven that none is better"""
    proven: bool
    """whether it is proven that no ortho is larger than the first one of `best`, or, without any, than `incumbent`"""
    best: list[BestOrtho]
    """best first; of shapes with very many orthos only the first ones in alphabetical order"""
    found: dict[str, int]
    """per shape of `best`, how many orthos it has"""
    incumbent: BestOrtho | None
    """the best known of those that are not listed, where the search has not come to its end"""
    upper: Bound | None
    """what an ortho that is not listed may have at the most, where the search is not at its end; null: no bound"""
    empty: list[str]
    """shapes that are proven to have no ortho, and so none that contains them has"""
    too_large: list[str]
    """shapes that have more orthos than fit into memory, so that what is made of them was not searched"""
    limits: dict[str, int | None]
    """null: any number"""
    top: int | None
    """how many were asked for; null: all that share the largest volume and cells"""
    seconds: float
