"""`crochet status` in a terminal: a line per corpus while it is watched, or everything."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from crochet_tasks.terminal import numbers
from crochet_tasks.terminal.drawing import EMPTY, shapes_table, text

if TYPE_CHECKING:
    from crochet_tasks.schemas.reports import CorpusStatus, QueueStatus, Status
    from crochet_tasks.schemas.statistics import ErrorSeen, Pace, StatisticsNow, TimeLeft, Unknown, WorkerUse

FIVE_MINUTES = 300
SHOWN_ERRORS = 5
MESSAGE = 80
"""the most characters of an error message"""
NOTHING = "There is nothing yet: 'crochet run FILE' makes a corpus."

_WHY: dict[Unknown, str] = {
    "not_counted": "there is more open work than is counted",
    "texts_waiting": "texts are not versions yet",
    "still_finding": "the work of the last versions is still being found",
    "paused": "work waits until its corpus is resumed",
    "budget_spent": "a budget is spent",
    "held_up": "some work waits for a later try, or for work that has failed",
    "hardly_moving": "hardly anything was searched in the last minute",
    "not_shrinking": "the open work does not shrink steadily",
    "too_far": "the end is too far ahead",
}


# ── a line per corpus ───────────────────────────────────────────────────────────────────────────

BAR = 10
NAME = 18
"""columns of a corpus' name, at the most"""
_ROOM = 5
"""lines other than those of corpora: the head of the table, two reasons, how many more, the cursor's"""


def overview(status: Status, height: int) -> RenderableType:
    """Progress on one page: a line per corpus, those with open work first, and why something is unknown."""
    if not status.corpora:
        return Text(NOTHING)
    heads = _troubles(status)
    reasons: dict[str, None] = {}
    ordered = sorted(status.corpora, key=lambda corpus: (corpus.closed, corpus.corpus))
    visible = ordered[: max(1, height - _ROOM - len(heads))]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name, right in (("corpus", False), ("work done", False), ("orthos", True), ("orthos/s", True), ("left", False)):
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for corpus in visible:
        pace, left = numbers.rate(corpus.rate), _left(corpus)
        if corpus.rate is None:
            reasons["orthos/s unknown: more was found in the last minute than is counted"] = None
        if corpus.statistics.left.unknown is not None:
            reasons[f"left unknown: {_why(corpus.statistics.left)}"] = None
        table.add_row(text(_cut(corpus.corpus, NAME)), _bar(corpus), numbers.count(corpus.total), pace, left)
    notes = [text(reason, "dim") for reason in list(reasons)[:2]]
    hidden = len(ordered) - len(visible)
    if hidden:
        notes.append(text(f"and {numbers.counted(hidden, 'corpus', 'corpora')} more: --corpus NAME shows one", "dim"))
    return Group(*heads, table, *notes)


def _troubles(status: Status) -> list[Text]:
    heads = []
    if status.dead_letters:
        letters = numbers.counted(status.dead_letters, "dead letter")
        heads.append(text(f"{letters}: see 'crochet work list --state dead'", "yellow"))
    if status.broker == "unknown":
        heads.append(text(f"queues: unknown, {status.broker_problem}", "yellow"))
    return heads


def _bar(corpus: CorpusStatus) -> Text:
    """The share of all work so far that is done. Searching brings further work, so it can go back."""
    done, undone = corpus.work.get("done", 0), corpus.work.get("open", 0) + corpus.work.get("failed", 0)
    part = 1.0 if not undone else done / (done + undone)
    full = int(BAR * part)
    return Text.assemble(("█" * full, "green"), ("░" * (BAR - full), "dim"), f" {numbers.share(part):>5}")


def _left(corpus: CorpusStatus) -> Text:
    if corpus.closed:
        return Text("closed")
    if corpus.paused:
        return Text("paused", "yellow")
    failed = corpus.work.get("failed", 0)
    if failed:
        return Text(f"{numbers.count(failed)} failed", "red")
    if corpus.dropped and not corpus.work.get("open", 0):
        return Text(f"{numbers.count(corpus.dropped)} dropped", "yellow")
    left = corpus.statistics.left
    return Text("unknown") if left.unknown is not None else Text(f"about {numbers.seconds(left.seconds or 0)}")


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


# ── everything ──────────────────────────────────────────────────────────────────────────────────


def page(status: Status) -> RenderableType:
    """Everything `crochet status` says."""
    if status.schema_version == "none":
        return Text(NOTHING)
    schema = "" if status.schema_version is None else f", schema {status.schema_version}"
    size = "" if status.bytes is None else f", {numbers.size(status.bytes)} on disk"
    head = [text(f"{status.database}{schema}{size}"), *_troubles(status)]
    if not status.corpora:
        return Group(*head, Text(NOTHING))
    parts: list[RenderableType] = [*head, *([_queues(status.queues)] if status.queues else [])]
    if status.statistics is not None:
        parts.append(_statistics(status.statistics))
    return Group(*parts, *itertools.chain.from_iterable((EMPTY, _corpus(corpus)) for corpus in status.corpora))


def _queues(queues: Mapping[str, QueueStatus]) -> Table:
    """The work queues, and of the dead-letter queues those that hold something."""
    table = Table("queue", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("ready", justify="right")
    table.add_column("consumers", justify="right")
    for name, queue in queues.items():
        if queue.ready or not name.endswith("-dead"):
            table.add_row(text(name), numbers.count(queue.ready), numbers.count(queue.consumers))
    return table


def _corpus(corpus: CorpusStatus) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    last = next(pace for pace in corpus.statistics.paces if pace.seconds == FIVE_MINUTES)
    dropped = f", dropped: {numbers.count(corpus.dropped)}" if corpus.dropped else ""
    for name, fact in {
        "limits": ", ".join(f"{name} {limit}" for name, limit in corpus.limits.items()),
        "version": numbers.count(corpus.version),
        "texts": _listed(corpus.texts),
        "words": numbers.count(corpus.words),
        "phrases": numbers.count(corpus.phrases),
        "work": _listed(corpus.work) + dropped,
        **{f"  {kind}": _listed(states) for kind, states in corpus.by_kind.items()},
        "oldest open": "none" if corpus.oldest_open is None else numbers.seconds(corpus.oldest_open),
        "closed": "yes" if corpus.closed else "no: orthos may be missing",
        "last minute": "" if corpus.rate is None else f"{numbers.rate(corpus.rate)} orthos/s",
        "last 5 minutes": in_words(last),
        "time left": time_left(corpus.statistics.left),
        "batches": f"{numbers.count(corpus.batches)}, {numbers.size(corpus.bytes)} with texts and phrases",
    }.items():
        if fact:
            facts.add_row(text(name, "dim"), text(fact))
    return Group(text(corpus.corpus, "bold"), facts, shapes_table(corpus.orthos))


def _listed(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{numbers.count(number)} {name}" for name, number in parts.items()) or "none"


# ── statistics ──────────────────────────────────────────────────────────────────────────────────


def _statistics(now: StatisticsNow) -> RenderableType:
    """All corpora: pace, workers, time left, errors."""
    facts = Table.grid(padding=(0, 2))
    retrying = sum(kind.retrying for kind in now.work.values())
    facts.add_row(Text("time left", "dim"), Text(time_left(now.left)))
    facts.add_row(Text("workers", "dim"), Text(_workers(now.workers)))
    if retrying:
        facts.add_row(Text("retrying", "dim"), Text(numbers.counted(retrying, "work item"), "yellow"))
    parts: list[RenderableType] = [_paces(now.paces), facts]
    return Group(*parts, *([_errors(now.errors)] if now.errors else []))


def _paces(paces: Sequence[Pace]) -> Table:
    table = Table("last", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("orthos/s", "work/s", "texts/min", "tries", "succeeded"):
        table.add_column(name, justify="right")
    for pace in paces:
        rates = map(numbers.rate, (pace.orthos_per_second, pace.work_per_second, pace.texts_per_minute))
        tries = "unknown" if pace.tries is None else numbers.count(pace.tries)
        succeeded = "" if pace.success is None else numbers.share(pace.success)
        table.add_row(f"{pace.seconds // 60} min", *rates, tries, succeeded)
    return table


def in_words(pace: Pace) -> str:
    """In one line; nothing where nothing happened."""
    if pace.tries == 0:
        return ""
    rates = f"{numbers.rate(pace.orthos_per_second)} orthos/s, {numbers.rate(pace.work_per_second)} work/s"
    failed = f", {numbers.count(pace.failed_tries)} tries failed" if pace.failed_tries else ""
    return f"{rates}, {numbers.rate(pace.texts_per_minute)} texts/min{failed}"


def time_left(left: TimeLeft) -> str:
    """About how long, or why it is unknown."""
    if left.unknown is not None:
        return f"unknown: {_why(left)}"
    return f"about {numbers.seconds(left.seconds)}" if left.seconds else "none: nothing is open"


def _why(left: TimeLeft) -> str:
    assert left.unknown is not None
    return _WHY.get(left.unknown, left.unknown)


def _workers(use: WorkerUse) -> str:
    if use.busy is None or use.processes is None:
        return "unknown"
    return (
        f"{numbers.counted(use.processes, 'process', 'processes')}, busy {numbers.share(use.busy)} of the last minute"
    )


def _errors(errors: Sequence[ErrorSeen]) -> Table:
    """Those of the last 15 minutes that came most often."""
    table = Table("error", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("tries", justify="right")
    for name in ("trend", "last", "message"):
        table.add_column(name)
    for each in errors[:SHOWN_ERRORS]:
        trend = each.trend if each.trend == "new" else f"{each.trend} ({numbers.count(each.before)} before)"
        message = _cut(each.message, MESSAGE)
        facts = (each.code, numbers.count(each.count), trend, f"{each.last_at:%H:%M:%S} UTC", message)
        table.add_row(*map(text, facts))
    return table
