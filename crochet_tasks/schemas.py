"""What crosses a boundary: the messages of tasks, and what the command line and the API answer."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from crochet_tasks.statistics_answers import Statistics, StatisticsNow

if TYPE_CHECKING:
    from crochet_tasks.engine.geometry import Cells, Sides


class Message(BaseModel):
    """The payload of a task: small, immutable, nothing unknown in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: int

    @property
    def items(self) -> list[uuid.UUID]:
        """The work items that it is about."""
        raise NotImplementedError

    def payload(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def __str__(self) -> str:
        """For people who watch: which corpus and which work, never what is in it."""
        first, *more = map(str, self.items)
        return f"corpus {self.corpus}, work {first}{f' and {len(more)} more' if more else ''}"


class Knock(Message):
    """A piece of work of an ordered stage may be due; the database says whether it is its turn."""

    work: uuid.UUID

    @property
    def items(self) -> list[uuid.UUID]:
        return [self.work]


class SearchCall(Message):
    """Search what these work items ask for: one seed, or batches of one shape through one window."""

    work: Annotated[list[uuid.UUID], Field(min_length=1)]

    @property
    def items(self) -> list[uuid.UUID]:
        return self.work


class Packed(BaseModel):
    """Orthos of one shape, packed as they are stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sides: tuple[int, ...]
    count: Annotated[int, Field(ge=1)]
    width: Literal[2, 4]
    cells: bytes

    @classmethod
    def of(cls, sides: Sides, cells: Cells, **more: Any) -> Self:
        from crochet_tasks.db.batches import packed  # clients of the API come here without a database

        width: Any = cells.dtype.itemsize
        return cls(sides=sides, count=cells.shape[1], width=width, cells=packed(cells), **more)

    def unpacked(self) -> Cells:
        from crochet_tasks.db.batches import unpacked

        return unpacked(self.cells, self.count, self.width)


class Searched(BaseModel):
    """Batches that were searched as one: what they wait on now, and what became of them.

    A batch alone that was searched to its end stays as it is. Several small ones become one, and a batch that
    yielded too much for one result is cut: then `rewritten` holds the orthos searched, and `left_over` the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    work: list[uuid.UUID]
    batches: list[int]
    consulted: bytes
    """int4, little-endian, ascending"""
    rewritten: Packed | None = None
    left_over: Packed | None = None


class FoundBatch(Packed):
    """Orthos that were found, and what they wait on where they were searched at once: None where that is to be done.

    Few orthos are not worth a work item of their own, so a search goes on with them.
    """

    consulted: bytes | None


class SearchResult(Message):
    """What a search hands to `orthos`: one message, in binary."""

    upto: int
    """the version up to which was searched"""
    seed: uuid.UUID | None
    """the seed that was played, or None for a grow"""
    seed_left_over: tuple[int, int] | None
    searched: list[Searched]
    handed_back: list[uuid.UUID]
    """work for which there was no more room in this result"""
    found: list[FoundBatch]

    def payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = _with_texts(self.model_dump())
        return payload

    @property
    def items(self) -> list[uuid.UUID]:
        """The work items that this result completes."""
        return [*([] if self.seed is None else [self.seed]), *(item for batch in self.searched for item in batch.work)]


def _with_texts(value: Any) -> Any:
    """UUIDs as text: msgpack knows bytes and numbers, but no UUIDs."""
    if isinstance(value, dict):
        return {key: _with_texts(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_with_texts(part) for part in value]
    return str(value) if isinstance(value, uuid.UUID) else value


# ── what people and programs get to see ─────────────────────────────────────────────────────────


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class OrthoLine(Answer):
    """One ortho of an export."""

    id: str
    shape: list[int]
    words: list[str]
    born: int


class Best(Answer):
    shape: list[int]
    words: list[str]


class RunReport(Answer):
    """The outcome of `crochet run --json`. `search_seconds` were spent on searching and on storing what was found."""

    corpus: str
    version: int
    texts: int
    orthos: dict[str, int]
    total: int
    best: list[Best]
    seconds: float
    search_seconds: float
    open_work: int
    failed_work: int
    dropped_work: int
    ended: Literal["closed", "budget", "stopped", "waiting", "elsewhere"]
    """why no more work was taken up (embedded.Ended)"""
    closed: bool
    """whether the store holds every ortho: nothing is open, nothing has failed, and no search was dropped"""


class CorpusStatus(Answer):
    """A corpus in `crochet status`; `bytes` are those of its packed values, without what Postgres adds."""

    corpus: str
    limits: dict[str, int]
    version: int
    texts: dict[str, int]
    words: int
    phrases: int
    orthos: dict[str, int]
    total: int
    batches: int
    work: dict[str, int]
    by_kind: dict[str, dict[str, int]]
    """per kind of work, how much of it is ready, published, waiting, parked and failed, where it is not 0"""
    oldest_open: float | None
    """seconds since the oldest open work was written"""
    dropped: int
    """work that operators dropped: what it would have found is missing until it is retried"""
    closed: bool
    """as in RunReport"""
    rate: float | None = None
    """orthos per second since the look before; only while watching"""
    bytes: int
    statistics: Statistics


class QueueStatus(Answer):
    """Messages that wait in a queue, without those in hand, and who takes them."""

    ready: int
    consumers: int


class Status(Answer):
    """Asked of an API, what it does not tell is null."""

    database: str
    schema_version: str | None
    bytes: int | None
    dead_letters: int | None
    broker: Literal["none", "answers", "unknown"]
    """`none`: there is no CROCHET_BROKER_URL; `unknown`: it does not say how long the queues are"""
    broker_problem: str | None = None
    """why it is unknown"""
    queues: dict[str, QueueStatus]
    corpora: list[CorpusStatus]
    statistics: StatisticsNow | None
    """of all corpora, not only those that are listed; of an API, of the tenant's"""


# ── what operators get to see ───────────────────────────────────────────────────────────────────


class AcceptedText(Answer):
    """A text as `crochet ingest` was given it; `id` is what `crochet work` takes."""

    id: str
    source: str
    seq: int
    state: str
    new: bool
    """whether it is to be ingested because of this call; else the corpus had it already"""


class Waited(Answer):
    """What `crochet ingest --wait` saw at its end."""

    version: int
    total: int
    open_work: int
    failed_work: int
    dropped_work: int
    seconds: float
    ended: Literal["done", "stopped"]
    closed: bool
    """as in RunReport"""


class IngestReport(Answer):
    """The outcome of `crochet ingest --json`."""

    corpus: str
    texts: list[AcceptedText]
    published: bool
    """whether the broker has the work; else the relay publishes it"""
    waited: Waited | None = None


class WorkLine(Answer):
    """A piece of work, a dead letter (`kind` is `message`) or a text in a list; `id` is what `crochet work` takes."""

    id: str
    corpus: str | None
    kind: str
    about: str
    """for people"""
    state: str
    """ready, published, waiting, parked, failed, done or cancelled; dead; or that of a text"""
    tries: int
    """that did not succeed"""
    error: dict[str, Any] | None
    created_at: dt.datetime
    not_before: dt.datetime | None
    published_at: dt.datetime | None
    finished_at: dt.datetime | None


class WorkList(Answer):
    work: list[WorkLine]
    more: int
    """how many there are beside these"""


class Try(Answer):
    """A try that did not succeed."""

    number: int
    at: dt.datetime
    error: dict[str, Any]


class Audited(Answer):
    """A change of state, and which user of the database made it."""

    at: dt.datetime
    who: str
    what: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class WorkDetail(Answer):
    """All there is to know about a piece of work, a dead letter or a text."""

    line: WorkLine
    next: str
    """for people: when it is published next"""
    details: dict[str, Any]
    """what is particular to its kind"""
    tries: list[Try]
    related: list[WorkLine]
    """of work on a text: that text; of a text: its work"""
    audit: list[Audited]


class WorkChanged(Answer):
    """What `crochet work cancel`, `retry` and `drop` changed, as it is now."""

    changed: list[WorkLine]
    notes: list[str]


# ── what the API answers ────────────────────────────────────────────────────────────────────────


class TextError(Answer):
    """Why a text or a piece of work failed."""

    code: str
    message: str


class TextLine(Answer):
    """A text without its body."""

    id: str
    title: str
    state: Literal["accepted", "ingested", "current", "failed", "cancelled"]
    """`current`: it is a version"""
    seq: int
    """place in the order of acceptance"""
    position: int | None
    """place among the texts that wait, from 1; null for one that does not"""
    version: int | None
    """the version of the context that it made"""
    sentences: int
    """how many are ingested"""
    bytes: int
    error: TextError | None
    accepted_at: dt.datetime
    finished_at: dt.datetime | None


# ── who may ask ─────────────────────────────────────────────────────────────────────────────────


class KeyLine(Answer):
    """An API key, without its secret, which nobody has but whom it was given to."""

    key: str
    """its prefix: what `crochet keys` takes and logs show"""
    tenant: str
    name: str
    scopes: list[str]
    tier: str
    state: Literal["good", "revoked", "expired", "rotated"]
    created_at: dt.datetime
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None
    last_used_at: dt.datetime | None
    """to the minute"""
    rotated_at: dt.datetime | None


class KeyList(Answer):
    keys: list[KeyLine]


class KeyMade(Answer):
    """The outcome of `crochet keys create` and `rotate` with --json: the only time that the key itself is shown."""

    key: str
    line: KeyLine


class Tokens(Answer):
    """What a key or a refresh token was exchanged for."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - that is its type
    expires_in: int
    """seconds that the access token is good for"""
    refresh_token: str
    """good once, for 30 days since the key was given"""
    scopes: list[str]
