"""Results of the read side, which the API turns into its answers."""

from __future__ import annotations

from typing import Any, NamedTuple

from crochet_tasks.engine.geometry import Sides, volume
from crochet_tasks.query.checks import Reason
from crochet_tasks.query.pages import FoundOrtho, Looked
from crochet_tasks.query.provenance import Line


class CorpusView(NamedTuple):
    """Version and size of a corpus in a snapshot. `etag` changes exactly when the version or the set of orthos does."""

    version: int
    orthos: int
    etag: str


class Growth(NamedTuple):
    """How many words, phrases and orthos a corpus had at a version.

    `orthos`: of those that are stored now; None where it is unknown, or the version was searched with later ones.
    """

    version: int
    words: int
    phrases: int
    orthos: int | None


class Page(NamedTuple):
    """A part of the orthos, best first. `next_cursor` is None at the end; before, a page may be short, even empty.

    `previous_cursor`: of the page before, which ends where this one begins; None at the first one.
    """

    orthos: list[FoundOrtho]
    next_cursor: str | None
    version: int
    previous_cursor: str | None = None
    looked: Looked | None = None
    """where the page is short, but not the last one"""


class OrthoDetail(NamedTuple):
    """All about one ortho. `grid`: its words as nested lists, one level per axis."""

    id: str
    sides: Sides
    words: tuple[str, ...]
    born: int
    grid: list[Any]
    lines: list[Line]

    @property
    def volume(self) -> int:
        return volume(self.sides)


class Checked(NamedTuple):
    """The result of one item of a check. `sides` and `words`, in canonical form, only for boxes."""

    stored: bool
    id: str | None
    sides: Sides | None
    words: tuple[str, ...] | None
    reason: Reason | None
    """why it is not stored"""


class Checks(NamedTuple):
    """The results of a check. `false_positives`: how often what is not stored is reported as stored; None: unknown."""

    results: list[Checked]
    false_positives: float | None
    version: int
    exact: bool = True
