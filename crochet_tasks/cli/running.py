"""`crochet run`: ingest texts, find their orthos, report."""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType
from typing import NamedTuple, NoReturn, Protocol, Self

from crochet_tasks import telemetry
from crochet_tasks.cli import accepting
from crochet_tasks.cli.common import Orthos
from crochet_tasks.db import Connection, attempts, corpora, tally, texts, windows
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.embedded import budget as budgets
from crochet_tasks.embedded import pipeline, store
from crochet_tasks.embedded.budget import Budget
from crochet_tasks.engine.geometry import shape_name
from crochet_tasks.errors import CrochetError, DiskNearlyFull, WrongCall
from crochet_tasks.query import best, estimates
from crochet_tasks.query.pages import EVERY, FoundOrtho, page
from crochet_tasks.query.store import Reader, Store
from crochet_tasks.schemas.progress import EndReason, Goal, Outcome
from crochet_tasks.schemas.reports import Best, Estimate, RunReport, WindowLeft
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import correlation
from crochet_tasks.terminal import best as proven
from crochet_tasks.terminal import estimates as words
from crochet_tasks.terminal.drawing import Meter, console
from crochet_tasks.terminal.numbers import about, count
from crochet_tasks.terminal.streams import note

BEST = 3
"""how many of the best orthos the report has"""


BEST_SECONDS = 3.0
"""that a run spends on proving what the best orthos are, before it searches for all"""

NOTHING = "there is no open work to go on with: give a text, as in 'crochet run FILE'"


class Request(NamedTuple):
    """The command's arguments; `limits` has only those of its options."""

    files: list[str]
    corpus: str
    limits: dict[str, int]
    budget: Orthos | None
    """None: the default"""


class Finished(NamedTuple):
    """The outcome of a run. `signal` stopped it; `error` is what failed while the rest was done."""

    report: RunReport
    signal: int | None
    error: CrochetError | None


def run(settings: Settings, request: Request) -> Finished:
    """Accept the texts, all of them or none, and do the work. A bad request changes nothing."""
    began = time.perf_counter()
    read = accepting.read(request.files, request.corpus, request.limits, settings)
    if not read and not store.exists(settings):
        raise WrongCall(problem=NOTHING)
    meter = Meter(console(stderr=True))
    with Stop(meter) as stop, meter, telemetry.running("cli", settings), store.opened(settings) as process:
        with correlation.command("crochet run"):
            store.check_space(settings)
            corpus = _corpus(process, request, going_on=not read)
            accepted = accepting.accept(corpus, read, note)
        with process.database.snapshot() as connection:
            _best_first(process, connection, corpus, meter, stop)
            plan = _plan(process, connection, corpus, request.budget, meter)
        outcome = pipeline.close(
            process, corpus, budget=plan.budget.orthos, progress=meter.show, stopped=lambda: stop.signal is not None
        )
        with process.database.snapshot() as connection:
            # As of the snapshot, not of the outcome: another process may have made a version since.
            reader = Reader(Store(process), connection, corpora.numbered(connection, corpus.id))
            orthos = page(reader, EVERY, BEST, None).orthos
            report = _report(connection, corpus, plan, outcome, orthos)
            report = report.model_copy(update={"seconds": round(time.perf_counter() - began, 3)})
            error = accepting.failure(connection, corpus, {each.text.id: each.source for each in accepted})
            if error is not None:
                error.__cause__ = outcome.failure  # for --debug
            elif isinstance(outcome.failure, DiskNearlyFull):
                error = outcome.failure
    return Finished(report, stop.signal if outcome.ended is EndReason.STOPPED else None, error)


def _corpus(process: Process, request: Request, *, going_on: bool) -> Corpus:
    with process.database.transaction() as connection:
        if going_on:
            if not corpora.every(connection):
                raise WrongCall(problem=NOTHING)
            corpora.named(connection, request.corpus)  # or CorpusUnknown
        budget = budgets.of_new_corpus(process.settings)
        if budget is not None and request.budget is not None:
            budget = None if request.budget.most is None else max(budget, request.budget.most)
        corpus = corpora.get_or_create(connection, request.corpus, request.limits, budget=budget)
        attempts.reopen_failed(connection, corpus.id)
    return corpus


def _best_first(process: Process, connection: Connection, corpus: Corpus, meter: Meter, stop: Stop) -> None:
    """Say what the best orthos are, with proof, before all are searched for; or how to get that, if it takes longer."""
    if not tally.states(connection, corpus.id, most=1).open:
        return
    meter.phase = "proving what the best is"
    tree = best.tree_with_waiting(process, connection, corpus)
    found = best.within(tree, corpus.limits, BEST_SECONDS, lambda: stop.signal is not None)
    for line in proven.headlines(found, corpus.name):
        note(line)


class Plan(NamedTuple):
    """What a run is about to do. Without open work there is no estimate."""

    budget: Budget
    estimate: Estimate | None


def _plan(process: Process, connection: Connection, corpus: Corpus, given: Orthos | None, meter: Meter) -> Plan:
    """Estimate what the texts hold, choose the budget, and say both."""
    settings = process.settings
    option = None if given is None else Budget(given.most, "option")
    room = budgets.room(settings, tally.total(connection, corpus.id))
    budget = budgets.of_run(option, corpus.budget, settings.budget, room)
    if not tally.states(connection, corpus.id, most=1).open:
        return Plan(budget, None)
    meter.phase = "estimating how many orthos there are"
    estimate = estimates.of_corpus(process, connection, corpus)
    meter.phase = "beginning"
    for line in words.before(estimate, *budget):
        note(line)
    if budget.orthos is not None and budget.orthos < estimate.orthos:
        goal, name = budget.orthos, f"{count(budget.orthos)} (the budget)"
    else:
        goal, name = estimate.orthos, count(estimate.orthos) if estimate.exact else f"about {about(estimate.orthos)}"
    meter.goal = Goal(goal, name, max(1.0, estimate.orthos / max(estimate.seconds, 0.1)))
    return Plan(budget, estimate)


def _report(connection: Connection, corpus: Corpus, plan: Plan, outcome: Outcome, best: list[FoundOrtho]) -> RunReport:
    """The report of a run that has ended."""
    version, _, orthos = outcome.progress
    left = tally.left(connection, corpus.id)
    states = tally.texts_by_state(connection, corpus.id)
    return RunReport(
        corpus=corpus.name,
        version=version,
        texts=sum(number for state, number in states.items() if state not in texts.FAILED_OR_CANCELLED),
        orthos={shape_name(sides): number for sides, number in orthos.items()},
        total=outcome.progress.total,
        best=[Best(shape=list(ortho.sides), words=list(ortho.words)) for ortho in best],
        seconds=0.0,
        search_seconds=round(outcome.search_seconds, 3),
        open_work=left.open,
        failed_work=left.failed,
        dropped_work=left.dropped,
        ended=outcome.ended.value,
        closed=outcome.ended is EndReason.CLOSED and left.closed,
        budget=plan.budget.orthos,
        budget_of=plan.budget.set_by,
        estimate=plan.estimate,
        unfinished=[WindowLeft(**each._asdict()) for each in windows.left(connection, corpus.id)] if left.open else [],
    )


class Stoppable(Protocol):
    """What shows the progress."""

    stopping: bool


class Stop:
    """SIGINT and SIGTERM stop a run: the first one cleanly, a second one at once. A context manager."""

    def __init__(self, meter: Stoppable) -> None:
        self.signal: int | None = None
        self._meter = meter

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._received) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _received(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            self._now(number)
        self.signal = number
        self._meter.stopping = True

    def _now(self, number: int) -> NoReturn:
        """Abandon the current work item; its transaction is rolled back. One more signal kills the process."""
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        note("stopped at once; the next run repeats what was not finished")
        raise SystemExit(128 + number)
