"""`crochet --url ... ingest`: post texts to an API, and with --wait wait for their orthos."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from typing import NamedTuple

from crochet_tasks.cli import accepting
from crochet_tasks.cli.accepting import Ingested, Note, Request, WaitResult
from crochet_tasks.client import Client
from crochet_tasks.db.tally import BESIDE, OF_A_TEXT
from crochet_tasks.errors import CorpusExists, CorpusUnknown, CrochetError, LimitsFixed, TextFailed, WorkFailed
from crochet_tasks.schemas.answers import StatusNow
from crochet_tasks.schemas.progress import RunProgress, States
from crochet_tasks.schemas.reports import AcceptedText, IngestReport, TextError, TextLine, Waited
from crochet_tasks.settings import Settings

UNFINISHED = ("accepted", "ingested")
LONGEST_TITLE = 200
"""characters that the API accepts: a longer path is cut at its beginning"""
FIRST_POLLS = 9
"""until they are a second apart"""
POLLS_WITHOUT_EVENTS = 10
"""polls before the events are requested again"""


class _Posted(NamedTuple):
    source: str
    text: TextLine
    new: bool


def ingest_texts(client: Client, settings: Settings, request: Request, note: Note) -> Ingested:
    """As `accepting.ingest_texts`; where the API refuses a text, those before it are accepted all the same."""
    inputs = accepting.read(request.files, request.corpus, request.limits, settings)
    _obtain(client, request.corpus, request.limits)
    posted = []
    for source, body in inputs:
        title = source[-LONGEST_TITLE:]
        text, new = client.post_text(request.corpus, title, body, priority=request.priority)
        if not new:
            known = "" if text.title == title else f", as '{text.title}'"
            note(f"{source}: corpus '{request.corpus}' has this text already{known}")
        posted.append(_Posted(source, text, new))
    if not request.wait:
        return Ingested(_report(request.corpus, posted), None, None)
    ids = [each.text.id for each in posted]
    result = accepting.wait(lambda show: _until_done(client, request.corpus, ids, show, note), note)
    now = [each._replace(text=client.text(request.corpus, each.text.id)) for each in posted]
    status = client.status(request.corpus)
    report = _report(request.corpus, now).model_copy(update={"waited": _waited(status, result)})
    return Ingested(report, result.signal, _failure(client, status, now))


def _obtain(client: Client, name: str, limits: dict[str, int]) -> None:
    """Create the corpus if there is none; raises LimitsFixed if it exists with other limits."""
    try:
        found = client.corpus(name).corpus
    except CorpusUnknown:
        try:
            client.create_corpus(name, limits=limits)
            return
        except CorpusExists:  # made by another client meanwhile
            found = client.corpus(name).corpus
    existing = found.limits.model_dump()
    if any(existing[limit] != value for limit, value in limits.items()):
        raise LimitsFixed(corpus=name, existing=_in_words(existing), wanted=_in_words(limits))


def _in_words(limits: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in limits.items())


def _report(corpus: str, posted: Sequence[_Posted]) -> IngestReport:
    texts = [
        AcceptedText(id=text.id, source=source, seq=text.seq, state=text.state, new=new) for source, text, new in posted
    ]
    return IngestReport(corpus=corpus, texts=texts, published=False)


# ── waiting ─────────────────────────────────────────────────────────────────────────────────────


def _until_done(client: Client, corpus: str, ids: Sequence[str], show: accepting.Show, note: Note) -> None:
    left = list(ids)

    def poll() -> tuple[RunProgress, bool]:
        while left and client.text(corpus, left[0]).state not in UNFINISHED:
            del left[0]
        status = client.status(corpus)  # after the texts: their work is open by then
        return _progress(status), bool(left) or _open(status)

    accepting.until_nothing_left(poll, show, note, lambda: moments(client, corpus))


def moments(client: Client, corpus: str) -> Generator[None]:
    """When to poll: with growing pauses at first; then whenever an event of the API says that something has changed.

    If it refuses the events, as when too many clients listen, they are requested again after some polls.
    """
    polled = accepting.backing_off()
    yield from itertools.islice(polled, FIRST_POLLS)
    while True:
        polls = 1
        try:
            yield from client.changes(corpus)
        except CrochetError:  # the next poll finds out whether that matters
            polls = POLLS_WITHOUT_EVENTS
        yield from itertools.islice(polled, polls)


def _open(status: StatusNow) -> bool:
    """Whether work is open that can be done: as operators.unfinished, as far as the API shows."""
    for kind, states in status.by_kind.items():
        if kind == BESIDE:
            continue
        blocked = states.get("failed", 0) > 0 if kind == "remediations" else kind == "search" and status.spent
        if not blocked and any(number for state, number in states.items() if state != "failed"):
            return True
    return False


def _progress(status: StatusNow) -> RunProgress:
    orthos = {tuple(map(int, shape.split("x"))): number for shape, number in status.orthos.items()}
    return RunProgress(status.version, States(**status.work), orthos)


def _waited(status: StatusNow, result: WaitResult) -> Waited:
    return Waited(
        version=status.version,
        total=status.total,
        open_work=States(**status.work).open,
        failed_work=_failed(status),
        dropped_work=status.dropped,
        seconds=round(result.seconds, 3),
        ended=result.how,
        closed=status.closed,
    )


def _failure(client: Client, status: StatusNow, posted: Sequence[_Posted]) -> CrochetError | None:
    """The error to report where some of these texts, or of the corpus' work, failed."""
    lost = [(source, text) for source, text, _ in posted if text.state == "failed"]
    if lost:
        source, text = lost[0]
        return TextFailed(source=source, reason=accepting.reason(_error(text.error), len(lost) - 1))
    number = _failed(status)
    if not number:
        return None
    failed = client.work(status.corpus, state="failed").work
    first = next(
        (work for work in failed if work.kind not in (*OF_A_TEXT, BESIDE)),
        None,
    )
    return WorkFailed(failed=number, error=accepting.reason(_error(None if first is None else first.error)))


def _failed(status: StatusNow) -> int:
    """As tally.failures: failed texts are reported by themselves."""
    return sum(states.get("failed", 0) for kind, states in status.by_kind.items() if kind not in (*OF_A_TEXT, BESIDE))


def _error(error: TextError | None) -> dict[str, str] | None:
    return None if error is None else {"message": error.message}
