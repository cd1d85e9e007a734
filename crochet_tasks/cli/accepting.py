"""`crochet ingest`: accept texts, leave the work to the deployment, and with --wait wait for it."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from typing import Literal, NamedTuple

from crochet_tasks import publish as work
from crochet_tasks import telemetry
from crochet_tasks.app import app
from crochet_tasks.db import Connection, corpora, operators, tally, texts
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.db.texts import TextRow
from crochet_tasks.embedded import pipeline, store
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.errors import CrochetError, SettingMissing, TextFailed, Unavailable, WorkFailed
from crochet_tasks.intake import admission
from crochet_tasks.intake import files as inputs
from crochet_tasks.intake.files import Input
from crochet_tasks.retry import Outage
from crochet_tasks.schemas.names import text_name
from crochet_tasks.schemas.progress import RunProgress
from crochet_tasks.schemas.reports import AcceptedText, IngestReport, Waited
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import correlation
from crochet_tasks.terminal.drawing import Meter, console

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0

Note = Callable[[str], None]
"""writes a line beside the output"""


class Accepted(NamedTuple):
    """A text that the corpus has; `source` names it in messages; `new`: it is to be ingested."""

    source: str
    text: TextRow
    new: bool


# ── what `run` does, too ────────────────────────────────────────────────────────────────────────


def read(files: Iterable[str], corpus: str, limits: dict[str, int], settings: Settings) -> list[Input]:
    """Read and check the whole request before anything is written; raises what is wrong with it."""
    corpora.checked(Limits(**limits))
    corpora.check_name(corpus)
    return inputs.read(files, settings.max_text_bytes)


def accept(corpus: Corpus, inputs: Iterable[Input], note: Note, priority: int = 0) -> list[Accepted]:
    """Accept texts, each in its transaction: interrupted, it may be called with all of them again."""
    accepted = []
    for source, body in inputs:
        text, new = admission.accept(corpus, source, body, priority)
        if not new:
            known = "" if text.title == source else f", as '{text.title}'"
            note(f"{source}: corpus '{corpus.name}' has this text already{known}")
        accepted.append(Accepted(source, text, new))
    return accepted


def failure(connection: Connection, corpus: Corpus, sources: dict[int, str]) -> CrochetError | None:
    """The error to report where some of these texts, or of the corpus' work, failed."""
    lost = [row for row in texts.all_of(connection, corpus.id) if row.id in sources and row.state == "failed"]
    if lost:
        return TextFailed(source=sources[lost[0].id], reason=reason(lost[0].error, len(lost) - 1))
    failed, first = tally.failures(connection, corpus.id)
    return WorkFailed(failed=failed, error=reason(first)) if failed else None


def reason(error: Mapping[str, str] | None, others: int = 0) -> str:
    """The first line of the error of a text or work that failed, and how many others failed."""
    why = "no reason was recorded" if error is None else " ".join(error["message"].split("\n", 1)[0].split())
    return why + (f"; so could {others} others not" if others else "")


# ── the command ─────────────────────────────────────────────────────────────────────────────────


class Request(NamedTuple):
    """The command's arguments; `limits` has only those of its options."""

    files: list[str]
    corpus: str
    limits: dict[str, int]
    wait: bool
    priority: int = 0


class Ingested(NamedTuple):
    """The outcome. `signal` ended the waiting; `error` is what failed meanwhile."""

    report: IngestReport
    signal: int | None
    error: CrochetError | None


def ingest_texts(settings: Settings, request: Request, note: Note) -> Ingested:
    """Accept the texts, all of them or none, and publish their work; none of it is done in this process.

    Raises SettingMissing, what is wrong with the request, and the database's errors.
    """
    if settings.database_url is None:
        raise SettingMissing(
            variable="CROCHET_DATABASE_URL", needed_for="services share one database; 'crochet run' is for one machine"
        )
    inputs = read(request.files, request.corpus, request.limits, settings)
    with telemetry.running("cli", settings), store.opened(settings) as process:
        with correlation.command("crochet ingest"):
            with process.database.transaction() as connection:
                corpus = corpora.get_or_create(connection, request.corpus, request.limits, budget=settings.budget)
            accepted = accept(corpus, inputs, note, request.priority)
        published = publish(corpus.id, note)
        numbers = [each.text.id for each in accepted]
        result = wait(lambda show: until_done(process, corpus.id, numbers, show, note), note) if request.wait else None
        with process.database.snapshot() as connection:
            report = _report(connection, corpus, accepted, published=published, result=result)
            error = failure(connection, corpus, {each.text.id: each.source for each in accepted}) if result else None
    return Ingested(report, None if result is None else result.signal, error)


def publish(corpus: int | None, note: Note) -> bool:
    """Publish the ready work, of one corpus or of any; whether the broker confirmed it.

    A broker that is down is reported as a note: the relay publishes the work later. No task runs in this process.
    """
    if app.conf.task_always_eager:  # without a broker, publishing would run the tasks here
        note("CROCHET_BROKER_URL is not set: a relay that has it publishes the work")
        return False
    try:
        work.publish_all(corpus)
    except Unavailable as error:
        note(f"{error}; the relay publishes the work later")
        return False
    return True


def _report(
    connection: Connection, corpus: Corpus, accepted: list[Accepted], *, published: bool, result: WaitResult | None
) -> IngestReport:
    now = {row.id: row for row in texts.all_of(connection, corpus.id)}
    return IngestReport(
        corpus=corpus.name,
        texts=[
            AcceptedText(id=text_name(text.id), source=source, seq=now[text.id].seq, state=now[text.id].state, new=new)
            for source, text, new in accepted
        ],
        published=published,
        waited=None if result is None else _waited(connection, corpus, result),
    )


def _waited(connection: Connection, corpus: Corpus, result: WaitResult) -> Waited:
    now = pipeline.read_progress(connection, corpus.id)
    left = tally.left(connection, corpus.id)
    return Waited(
        version=now.version,
        total=now.total,
        open_work=left.open,
        failed_work=left.failed,
        dropped_work=left.dropped,
        seconds=round(result.seconds, 3),
        ended=result.how,
        closed=left.closed,
    )


# ── waiting ─────────────────────────────────────────────────────────────────────────────────────


class WaitResult(NamedTuple):
    """How `wait` ended: all was done, or a signal came."""

    how: Literal["done", "stopped"]
    signal: int | None
    seconds: float


Show = Callable[[RunProgress], None]


def wait(until: Callable[[Show], None], note: Note) -> WaitResult:
    """Run `until` with progress until it returns; Ctrl-C and SIGTERM end the waiting and nothing else."""
    began = time.monotonic()
    number: int | None = None
    try:
        with Meter(console(stderr=True)) as meter:
            until(meter.show)
    except KeyboardInterrupt:
        number = int(signal.SIGINT)
    except SystemExit as stop:  # SIGTERM, as the command line takes it
        number = int(stop.code or 0) - 128
    if number is not None:
        note("stopped waiting; the work goes on")
    return WaitResult("done" if number is None else "stopped", number, time.monotonic() - began)


def until_done(process: Process, corpus: int, ids: Collection[int], show: Show, note: Note) -> None:
    """Return when these texts are versions or have failed, and the corpus has no open work that can be done."""

    def poll() -> tuple[RunProgress, bool]:
        with process.database.snapshot() as connection:
            return pipeline.read_progress(connection, corpus), operators.unfinished(connection, corpus, ids)

    until_nothing_left(poll, show, note)


def until_nothing_left(
    poll: Callable[[], tuple[RunProgress, bool]],
    show: Show,
    note: Note,
    moments: Callable[[], Generator[None]] | None = None,
) -> None:
    """Poll until nothing is left; `poll` returns the progress and whether something is left.

    Polls at these `moments`, by default those of `backing_off`. Reports an outage of a service once.
    """
    outage = Outage(note, "waiting for it")
    with contextlib.closing((moments or backing_off)()) as due:
        for _ in due:
            with outage.tolerated():
                progress, left = poll()
                show(progress)
                if not left:
                    return


def backing_off() -> Generator[None]:
    """At once, then with growing pauses, up to a second."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE_SECONDS)
