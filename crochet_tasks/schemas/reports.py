"""What the command line and the API answer."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from crochet_tasks.schemas.statistics import Statistics, StatisticsNow


class Answer(BaseModel):
    # Validators are built on first use: workers and the relay import most of these and use few.
    model_config = ConfigDict(frozen=True, defer_build=True)


class OrthoLine(Answer):
    """One ortho of an export."""

    id: str
    shape: list[int]
    words: list[str]
    born: int


class Best(Answer):
    shape: list[int]
    words: list[str]


class Amount(Answer):
    """A number of orthos, and an interval that holds the true one about 19 times in 20."""

    orthos: int
    low: int
    high: int


class Estimate(Amount):
    """How many orthos texts hold, and about what all of them take."""

    exact: bool
    """whether they were counted, not estimated: then the interval is the number itself"""
    shapes: dict[str, Amount]
    bytes: int
    """of everything that is stored for them"""
    seconds: float
    """to find and store them on this machine"""
    cores: int
    """of this machine"""


class WindowLeft(Answer):
    """A search that is not done: that of the orthos with a line born in the versions after `since` up to `version`."""

    version: int
    since: int
    starts: int
    """pairs or phrases that it begins with"""
    starts_left: int
    """those that it has not begun with"""
    left_over: int
    """parts that are left of those it has begun with"""


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
    ended: Literal["closed", "budget", "disk", "stopped", "waiting", "elsewhere"]
    """why the run started no more work (schemas.progress.EndReason)"""
    closed: bool
    """whether the store holds every ortho: nothing is open, nothing has failed, and no search was dropped"""
    budget: int | None
    """orthos that were to be stored at the most; null: all"""
    budget_of: Literal["option", "corpus", "default", "disk"]
    """who set it: --budget; the corpus; CROCHET_DEFAULT_BUDGET; or the disk, which is too small for that"""
    estimate: Estimate | None
    """of all texts of the corpus, made before the work began; null: there was none to do"""
    unfinished: list[WindowLeft]
    """searches that are not done"""


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
    """per kind of work, how much of it is ready, held, published, waiting, parked and failed, where it is not 0; of
    open and of failed work at most 100,000 items are counted
    """
    oldest_open: float | None
    """seconds since the oldest open work was written"""
    dropped: int
    """work that operators dropped: what it would have found is missing until it is retried"""
    closed: bool
    """as in RunReport"""
    paused: bool
    """none of its work is begun until it is resumed"""
    rate: float | None
    """orthos per second in the last minute, as `statistics` has it; null where more was found than is counted"""
    bytes: int
    statistics: Statistics


class QueueStatus(Answer):
    """Ready (not unacknowledged) messages and consumers of a queue."""

    ready: int
    consumers: int


class Status(Answer):
    """The status of a deployment. From an API, what it does not report is null."""

    database: str
    schema_version: str | None
    bytes: int | None
    dead_letters: int | None
    broker: Literal["none", "answers", "unknown"]
    """`none`: there is no CROCHET_BROKER_URL; `unknown`: it does not answer"""
    broker_problem: str | None = None
    """why it is unknown"""
    queues: dict[str, QueueStatus]
    corpora: list[CorpusStatus]
    statistics: StatisticsNow | None
    """of all corpora, not only those that are listed; of an API, of the tenant's"""


# ── operators ──────────────────────────────────────────────────────────────────────────────────


class AcceptedText(Answer):
    """A text that `crochet ingest` accepted; `id` is what `crochet work` takes."""

    id: str
    source: str
    seq: int
    state: str
    new: bool
    """whether it is to be ingested because of this call; else the corpus had it already"""


class Waited(Answer):
    """The state of the corpus when `crochet ingest --wait` ended."""

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


class TextError(Answer):
    """Why a text or a piece of work failed."""

    code: str = "internal"
    message: str = ""


class WorkError(TextError, extra="allow"):
    """With everything that was recorded, such as the worker; only operators see it."""


class WorkLine(Answer):
    """A piece of work, a dead letter (`kind` is `message`) or a text in a list; `id` is what `crochet work` takes."""

    id: str
    corpus: str | None
    kind: str
    about: str
    """for people"""
    state: str
    """ready, held, published, waiting, parked, failed, done or cancelled; dead; or that of a text"""
    tries: int
    """that did not succeed"""
    error: WorkError | None
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


class AuditLine(Answer):
    """A change, and who made it."""

    id: int
    at: dt.datetime
    what: str
    """`text.accepted`, `work.cancelled`, `corpus.changed`, `key.revoked`, `tenant.created`, ..."""
    subject: str
    """`text 7`, `work ID`, `corpus 3`, `key PREFIX`, `tenant 2`"""
    corpus: str | None
    """null where it is of none, or of one that is deleted"""
    tenant: str | None
    who: str
    """user of the database"""
    by: dict[str, Any] | None
    """`via`: api, command or sql; key or user, address, request; null: the pipeline itself"""
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class WorkDetail(Answer):
    """All details of a work item, a dead letter or a text."""

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
    notes: list[str] = []


class AllCancelled(Answer):
    """How much of a corpus was cancelled: texts, work that finds orthos, searches for the best."""

    corpus: str
    texts: int
    work: int
    best: int
    notes: list[str] = []


class WorkRetried(Answer):
    """How many pieces of work and texts of a corpus are open again."""

    corpus: str
    retried: int


# ── what the API answers ────────────────────────────────────────────────────────────────────────


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
    priority: int = 0
    """that its corpus has at least while work is due that it waits for; older programs answer, and keep, none"""


# ── settings ────────────────────────────────────────────────────────────────────────────────


class SettingLine(Answer):
    """A setting that is in force; secrets are masked. `source`: option, environment, file or default."""

    variable: str
    value: str
    source: str


class SettingList(Answer):
    settings: list[SettingLine]
