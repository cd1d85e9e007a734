"""What the API answers: models that its routes write and its client reads."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from crochet_tasks.schemas.access import KeyLine, TenantLine
from crochet_tasks.schemas.reports import Answer, AuditLine, CorpusStatus, Estimate, TextError, TextLine, WorkList


class LimitsSet(Answer):
    max_axes: int
    max_side: int
    max_cells: int


class CorpusLine(Answer):
    """The settings of a corpus; /version and /status report its progress."""

    name: str
    description: str
    limits: LimitsSet
    budget: int | None
    paused: bool
    """none of its work is begun; texts are accepted and wait"""
    priority: int = 0
    """each step doubles its share of what its tenant has; older programs answer none"""
    revision: int


class CorpusPage(Answer):
    corpora: list[CorpusLine]
    next_cursor: str | None


class AuditPage(Answer):
    lines: list[AuditLine]
    next_cursor: str | None


class KeyPage(Answer):
    keys: list[KeyLine]
    next_cursor: str | None


class TenantPage(Answer):
    tenants: list[TenantLine]
    next_cursor: str | None


class TextPage(Answer):
    version: int
    texts: list[TextLine]
    next_cursor: str | None


class TextTaken(Answer):
    """What became of one text of a batch. `status` is that of the answer if it had come by itself: 202, 200, 409, 422
    or 503.
    """

    title: str
    status: int
    text: TextLine | None
    replayed: bool
    """whether this answers an earlier request with its key"""
    error: TextError | None


class TextsTaken(Answer):
    texts: list[TextTaken]
    """in the order of the request"""


class VersionNow(Answer):
    corpus: str
    version: int


class CorpusEstimate(Estimate):
    """How many orthos a corpus holds at its version, and how many of them are stored."""

    version: int
    stored: int
    budget: int | None
    spent: bool
    """whether the budget is, or the tenant's quota of orthos: no more is searched for until it is raised"""


class OrthoSeen(Answer):
    """An ortho with the requested fields. `born` is the version since which it exists."""

    id: str | None = None
    shape: list[int] | None = None
    words: list[str] | None = None
    """row-major, the last axis fastest"""
    born: int | None = None
    volume: int | None = None


class LookedThrough(Answer):
    """How many orthos were looked through, from the first one on, `of` those whose shapes may fit."""

    orthos: int
    of: int


class OrthoPage(Answer):
    version: int
    orthos: list[OrthoSeen]
    next_cursor: str | None
    """the next page begins there, also where this one is short or empty; null: that was all"""
    looked: LookedThrough | None = None
    """where the page is short, but not the last one"""


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
    """whether it was read elsewhere, too, or may have been; without any source: ask again, the texts are large"""


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
    """always false: no answer depends on Redis any more"""
    false_positives: float | None = None
    """the share of what is not stored that is reported as stored: of random ids; of boxes that are no orthos, which is
    0, or null while searches are still to be done: an ortho that is yet to be found counts as stored
    """
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
    """the version whose search found it"""


class WaitingOn(Answer):
    version: int
    phrase: list[str]
    born: int
    shapes: list[ShapeLine]
    batches: list[WaitingBatch]
    more: int
    at_least: bool = False
    """whether there may be more than these numbers say: the 256 oldest batches are read"""


class WorkPage(WorkList):
    version: int
    at_least: bool = False
    """whether `more` may be larger than that: counting stops somewhere"""


class StatusNow(CorpusStatus):
    budget: int | None
    spent: bool
    """whether the budget is, or the tenant's quota of orthos: no more is searched for until it is raised"""
    at_least: bool = False
    """whether there may be more work than these numbers say: counting ends somewhere"""


# ── events ──────────────────────────────────────────────────────────────────────────────────────


class Progress(Answer):
    """The progress of a corpus, sent when it changes."""

    corpus: str
    version: int
    orthos: int
    waiting_texts: int
    open_work: int
    failed_work: int


class Gone(Answer):
    """A corpus was deleted or renamed."""

    corpus: str


# ── problems ────────────────────────────────────────────────────────────────────────────────────

PROBLEM = "application/problem+json"


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    where: str
    """a JSON pointer into the body, or `query/name`"""
    code: str
    message: str


class Problem(BaseModel):
    """RFC 9457. Programs go by `code`, which is stable; `title` and `detail` are for people."""

    type: str = Field(examples=["/problems/corpus_unknown"])
    title: str = Field(examples=["Corpus unknown"])
    status: int = Field(examples=[404])
    code: str = Field(examples=["corpus_unknown"])
    detail: str = Field(examples=["there is no corpus 'genesis' here; known: main"])
    request_id: str | None = Field(default=None, examples=["01JB3Z9Q4T8W2K7N5M6P0R1S2X"])
    errors: list[Fault] | None = None


# ── health ──────────────────────────────────────────────────────────────────────────────────────

State = Literal["ok", "degraded", "away", "none"]


class Component(BaseModel):
    """`none`: the server is not set up to use it. `degraded`: it answers, but a queue lacks a consumer."""

    state: State


class Live(BaseModel):
    status: Literal["live"] = "live"


class Connections(BaseModel):
    """Those of a process to the database: in use, open, and how many it may have."""

    used: int
    open: int
    limit: int


class ProcessUse(BaseModel):
    """What a process of the API uses. It runs for `seconds`; `memory_bytes` are resident."""

    pid: int
    seconds: float
    memory_bytes: int
    cpu_seconds: float
    threads: int
    open_files: int
    connections: Connections


class CacheUse(BaseModel):
    """Look-ups since the process began; `hit_rate` is null before the first one."""

    hits: int
    misses: int
    hit_rate: float | None
    bytes: int
    limit_bytes: int


class Details(BaseModel):
    """Of the one process that answered. `caches` by name, `problems` of the last `minutes` by code."""

    process: ProcessUse
    caches: dict[str, CacheUse]
    problems: dict[str, int]
    minutes: int


class Ready(BaseModel):
    """`degraded` names what is away; reading, and accepting texts, goes on without all but the database."""

    status: Literal["ready", "degraded", "away"]
    degraded: list[str]
    components: dict[str, Component]
    details: Details | None = None
    """for operators, while the database, which knows their keys, answers"""


class Started(BaseModel):
    status: Literal["started", "starting"]
