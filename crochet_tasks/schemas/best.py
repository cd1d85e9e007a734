"""What `crochet best` answers."""

from __future__ import annotations

from crochet_tasks.schemas.answers import LineSeen
from crochet_tasks.schemas.reports import Answer, Best


class Bound(Answer):
    """Orthos are compared by volume first, then by cells."""

    volume: int
    cells: int


class BestOrtho(Best):
    volume: int
    cells: int
    lines: list[LineSeen] | None = None
    """where each line was read; null: not looked up, because the text is not stored, or further down the list"""


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
