"""What the routes of version 1 take and answer. Nothing unknown is taken."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from crochet_tasks.db.corpora import RANGES
from crochet_tasks.naming import STATES
from crochet_tasks.schemas import Answer, CorpusStatus, TextError, TextLine

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
PLAIN = r"^[^\x00-\x1f\x7f]*$"
MOST_AT_ONCE = 1000
LARGEST = 2**53 - 1
"""of whole numbers, that every reader of JSON reads right"""


class Given(BaseModel):
    """What a client gives: JSON, or parts of the address."""

    model_config = ConfigDict(extra="forbid")


class InJson(Given):
    """Numbers are numbers there, and no strings."""

    model_config = ConfigDict(extra="forbid", strict=True)


# ── parts of the address ────────────────────────────────────────────────────────────────────────


class OfCorpus(BaseModel):
    corpus: str = Field(description="the corpus' name", examples=["genesis"])


class OfText(OfCorpus):
    text: str = Field(description="as `POST .../texts` answered", examples=["text-1"])


class OfOrtho(OfCorpus):
    ortho: str = Field(description="the ortho's id: 32 hexadecimal digits", examples=["0" * 32])


class OfWork(OfCorpus):
    work: str = Field(description="a piece of work's id, or that of a text", examples=["text-1"])


Limit = Annotated[int, Field(ge=1, le=MOST_AT_ONCE, description="how many, at the most")]
Cursor = Annotated[str, Field(min_length=1, max_length=8192, description="`next_cursor` of the page before")]
Word = Annotated[str, Field(min_length=1, max_length=200)]


class Paged(Given):
    limit: Limit = 100
    cursor: Cursor | None = None


class Nothing(Given):
    """No parameters."""


class Confirmed(Given):
    confirm: str | None = Field(default=None, max_length=100, description="the corpus' name, once more")


class TextsWanted(Paged):
    state: Literal["accepted", "ingested", "current", "failed", "cancelled"] | None = Field(
        default=None, description="only texts in this state"
    )


class Titled(Given):
    title: str | None = Field(
        default=None, min_length=1, max_length=200, pattern=PLAIN, description="of a text/plain body; JSON has its own"
    )


class WordsWanted(Paged):
    prefix: str = Field(default="", max_length=200, description="what the words begin with", examples=["se"])


class PhrasesWanted(Paged):
    prefix: str = Field(default="", max_length=2000, description="words, separated by spaces", examples=["in the"])


class OrthosWanted(Paged):
    shape: str | None = Field(default=None, max_length=100, description="only this shape", examples=["2x3"])
    contains: Word | None = Field(default=None, description="only those with this word", examples=["sea"])
    min_volume: int | None = Field(default=None, ge=1, le=LARGEST, description="only those of at least this volume")
    fields: str | None = Field(
        default=None,
        pattern=r"^(id|shape|words|born|volume)(,(id|shape|words|born|volume))*$",
        max_length=100,
        description="only these fields, separated by commas",
        examples=["id,words"],
    )


class BestWanted(Given):
    limit: Limit = 10


class WaitingWanted(Given):
    phrase: str = Field(
        min_length=1, max_length=2000, description="words, separated by spaces", examples=["in the beginning"]
    )
    limit: Limit = 100


class WorkWanted(Given):
    state: Literal[STATES] | None = Field(  # type: ignore[valid-type]
        default=None,
        description="`open` is all of ready, published, waiting and parked; `dead`: failed, because its messages died. "
        "Without one: what is open or failed",
    )
    kind: Literal["ingest", "context", "remediations", "seed", "grow"] | None = Field(
        default=None, description="only work of this kind"
    )
    limit: Limit = 100


class EventsWanted(Given):
    corpus: str | None = Field(default=None, max_length=100, description="only this corpus")


# ── headers ─────────────────────────────────────────────────────────────────────────────────────


class MayComeAgain(BaseModel):
    key: str | None = Field(
        default=None,
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="the same request with the same key is done once; kept for a day",
        examples=["6f1e5a2c"],
    )


class Seen(BaseModel):
    if_match: str | None = Field(
        default=None, alias="If-Match", max_length=1000, description="the ETag of what is to be changed; it is needed"
    )


# ── bodies ──────────────────────────────────────────────────────────────────────────────────────


def _limit(name: str, default: int) -> Any:
    low, high = RANGES[name]
    return Field(default=default, ge=low, le=high)


class LimitsGiven(InJson):
    """They bound what is searched, and are fixed when a corpus is made."""

    max_axes: int = _limit("max_axes", 3)
    max_side: int = _limit("max_side", 8)
    max_cells: int = _limit("max_cells", 64)


Name = Annotated[str, Field(pattern=NAME, examples=["genesis"])]
Description = Annotated[str, Field(max_length=2000, examples=["the first book"])]
Budget = Annotated[
    int, Field(ge=1, le=LARGEST, description="so many orthos, and no more are searched for", examples=[100000])
]


class NewCorpus(InJson):
    name: Name
    limits: LimitsGiven = LimitsGiven()
    description: Description = ""
    budget: Budget | None = None


class CorpusPatch(InJson):
    """A JSON merge patch (RFC 7396): what is left out stays, null takes away. `limits` are refused: they are fixed."""

    name: Name = ""
    description: Description | None = None
    budget: Budget | None = None
    limits: dict[str, int] | None = None


class NewText(InJson):
    title: str = Field(min_length=1, max_length=200, pattern=PLAIN, examples=["chapter 1"])
    body: str = Field(examples=["The seas and the land."])


class ToCheck(InJson):
    """Either ids or grids."""

    ids: list[str] | None = Field(default=None, min_length=1, max_length=MOST_AT_ONCE)
    grids: list[list[Any]] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_AT_ONCE,
        description="boxes of words: lists of lists of words, as deep as they have axes",
        examples=[[[["the", "seas"], ["land", "and"]]]],
    )
    exact: bool = Field(default=True, description="false: at most 1 % of what is not stored is said to be; faster")


# ── answers ─────────────────────────────────────────────────────────────────────────────────────


class LimitsSet(Answer):
    max_axes: int
    max_side: int
    max_cells: int


class CorpusLine(Answer):
    """What is set of a corpus; how far it is say /version and /status."""

    name: str
    description: str
    limits: LimitsSet
    budget: int | None
    revision: int


class CorpusPage(Answer):
    corpora: list[CorpusLine]
    next_cursor: str | None


class TextPage(Answer):
    version: int
    texts: list[TextLine]
    next_cursor: str | None


class VersionNow(Answer):
    corpus: str
    version: int


class OrthoSeen(Answer):
    """Of these fields those that were asked for. `born` is the version since which it exists."""

    id: str | None = None
    shape: list[int] | None = None
    words: list[str] | None = None
    """row-major, the last axis fastest"""
    born: int | None = None
    volume: int | None = None


class OrthoPage(Answer):
    version: int
    orthos: list[OrthoSeen]
    next_cursor: str | None
    """the next page begins there, also where this one is short or empty; null: that was all"""


class BestOrthos(Answer):
    version: int
    orthos: list[OrthoSeen]


class Source(Answer):
    """Where a line was read."""

    text: str
    title: str
    version: int
    sentence: int
    """from 1, of those with words"""
    words: list[str]
    """of that sentence"""


class LineSeen(Answer):
    axis: int
    words: list[str]
    born: int
    sources: list[Source]
    more: bool
    """whether it was read elsewhere, too"""


class OrthoWhole(Answer):
    version: int
    id: str
    shape: list[int]
    words: list[str]
    born: int
    volume: int
    grid: list[Any]
    """the words as nested lists, one level per axis"""
    lines: list[LineSeen]


class ShapeLine(Answer):
    shape: list[int]
    orthos: int
    batches: int


class Shapes(Answer):
    version: int
    total: int
    shapes: list[ShapeLine]


class CheckedOne(Answer):
    stored: bool
    id: str | None
    shape: list[int] | None
    words: list[str] | None
    """in canonical form"""
    reason: str | None
    """why it is not: malformed_id, not_a_box, limits, shell, line, or not_found"""


class CheckedAll(Answer):
    version: int
    exact: bool
    """whether these answers are"""
    degraded: bool
    """whether they are because there was no quicker way at the moment"""
    results: list[CheckedOne]


class WordSeen(Answer):
    word: str
    born: int


class Vocabulary(Answer):
    version: int
    words: list[WordSeen]
    next_cursor: str | None


class PhraseSeen(Answer):
    words: list[str]
    born: int
    continuations: int


class PhrasePage(Answer):
    version: int
    prefix: list[str]
    born: int | None
    phrases: list[PhraseSeen]
    next_cursor: str | None


class WaitingBatch(Answer):
    id: int
    shape: list[int]
    orthos: int
    searched: int
    """the version up to which it was"""


class WaitingOn(Answer):
    version: int
    phrase: list[str]
    born: int
    shapes: list[ShapeLine]
    batches: list[WaitingBatch]
    more: int


class WorkSeen(Answer):
    """A piece of work; `about` is for people."""

    id: str
    kind: str
    about: str
    state: str
    tries: int
    error: TextError | None
    created_at: dt.datetime
    not_before: dt.datetime | None
    published_at: dt.datetime | None
    finished_at: dt.datetime | None


class WorkSeenList(Answer):
    version: int
    work: list[WorkSeen]
    more: int
    """how many there are beside these"""


class WorkChangedList(Answer):
    changed: list[WorkSeen]


class StatusNow(CorpusStatus):
    """`rate`: orthos per second since this server was asked before; null the first time."""

    budget: int | None
    spent: bool
    """whether the budget is: then no more is searched for until it is raised"""
