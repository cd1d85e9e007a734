"""What people see in a terminal: orthos as grids, tables, and how far a run is."""

from __future__ import annotations

import datetime as dt
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from rich import box
from rich.cells import cell_len
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from crochet_tasks.engine.geometry import shape_name, volume
from crochet_tasks.terminal.statistics import FIVE_MINUTES, in_words, statistics_page, time_left

if TYPE_CHECKING:
    from crochet_tasks.embedded.pipeline import Progress
    from crochet_tasks.schemas.reports import CorpusStatus, QueueStatus, Status, Try, WorkDetail, WorkLine

LINE_SECONDS = 3.0
"""how often a line about the progress is written where there is no terminal"""
PLAIN_WIDTH = 120
"""columns of output that does not go to a terminal"""
STOPPING = "stopping after this piece of work; Ctrl-C again stops at once"
_EMPTY = Text()


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Nobody reads on: the caller says what that means. Rich would exit with 1."""
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """A console for one of the standard streams: neither markup nor guessed highlights, texts are shown as they are."""
    made = _Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = max(PLAIN_WIDTH, made.width)
    return made


def cell_width(word: str) -> int:
    """How many columns of a terminal a word takes."""
    return cell_len(word)


def text(line: str) -> Text:
    """A line as it is."""
    return Text(line)


# ── orthos ──────────────────────────────────────────────────────────────────────────────────────


def tiles(sides: Sequence[int]) -> Iterator[tuple[str, list[range]]]:
    """A box as 2-D tiles of its last two axes: (label, cells row by row). Labels count along the other axes."""
    *outer, rows, columns = sides
    first = 0
    for layer in itertools.product(*map(range, outer)):
        label = f"layer {'.'.join(str(step + 1) for step in layer)}" if outer else ""
        yield label, [range(first + row * columns, first + (row + 1) * columns) for row in range(rows)]
        first += rows * columns


def drawn(sides: Sequence[int], words: Sequence[str]) -> RenderableType:
    """One ortho, headed by its shape and volume."""
    head = Text.assemble((shape_name(tuple(sides)), "bold"), (f"  volume {volume(tuple(sides))}", "dim"))
    grids = [_grid(label, [[words[cell] for cell in row] for row in rows]) for label, rows in tiles(sides)]
    return Group(head, grids[0] if len(grids) == 1 else Columns(grids, padding=(0, 3)))


def _grid(label: str, rows: list[list[str]]) -> Table:
    grid = Table(box=box.SQUARE, show_header=False, show_lines=True, title=label or None, title_justify="left")
    grid.title_style = "dim"
    grid.border_style = "dim"
    for _ in rows[0]:
        grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*(Text(word) for word in row))
    return grid


def gallery(orthos: Sequence[tuple[Sequence[int], Sequence[str]]]) -> RenderableType:
    """Several orthos, one below the other."""
    return Group(*itertools.chain.from_iterable((drawn(sides, words), _EMPTY) for sides, words in orthos))


# ── tables ──────────────────────────────────────────────────────────────────────────────────────


def shapes_table(orthos: Mapping[str, int]) -> Table:
    """How many orthos there are per shape, and in all."""
    table = Table("shape", box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.add_column("orthos", justify="right")
    for shape, number in orthos.items():
        table.add_row(shape, f"{number:,}")
    table.columns[0].footer = "total"
    table.columns[1].footer = f"{sum(orthos.values()):,}"
    return table


def status_page(status: Status) -> RenderableType:
    """Everything `crochet status` says."""
    if status.schema_version == "none":
        return Text("There is nothing yet: 'crochet run FILE' makes a corpus.")
    schema = "" if status.schema_version is None else f", schema {status.schema_version}"
    size = "" if status.bytes is None else f", {readable_bytes(status.bytes)} on disk"
    head = [Text(f"{status.database}{schema}{size}")]
    if status.dead_letters:
        head.append(Text(f"{status.dead_letters:,} dead letters: see 'crochet work list --state dead'", "yellow"))
    if status.broker == "unknown":
        head.append(Text(f"queues: unknown, {status.broker_problem}", "yellow"))
    if not status.corpora:
        return Group(*head, Text("There is no corpus yet: 'crochet run FILE' makes one."))
    parts: list[RenderableType] = [*head, *([_queues(status.queues)] if status.queues else [])]
    if status.statistics is not None:
        parts.append(statistics_page(status.statistics))
    return Group(*parts, *itertools.chain.from_iterable((_EMPTY, _corpus(corpus)) for corpus in status.corpora))


def _queues(queues: Mapping[str, QueueStatus]) -> Table:
    """The work queues, and of the dead-letter queues those that hold something."""
    table = Table("queue", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("ready", justify="right")
    table.add_column("consumers", justify="right")
    for name, queue in queues.items():
        if queue.ready or not name.endswith("-dead"):
            table.add_row(name, f"{queue.ready:,}", str(queue.consumers))
    return table


def _corpus(corpus: CorpusStatus) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    for name, fact in {
        "limits": ", ".join(f"{name} {limit}" for name, limit in corpus.limits.items()),
        "version": f"{corpus.version:,}",
        "texts": _listed(corpus.texts),
        "words": f"{corpus.words:,}",
        "phrases": f"{corpus.phrases:,}",
        "work": _listed(corpus.work) + (f", dropped: {corpus.dropped:,}" if corpus.dropped else ""),
        **{f"  {kind}": _listed(standings) for kind, standings in corpus.by_kind.items()},
        "oldest open": "none" if corpus.oldest_open is None else f"{corpus.oldest_open:,.1f} s",
        "closed": "yes" if corpus.closed else "no: orthos may be missing",
        "last minute": "" if corpus.rate is None else f"{corpus.rate:,.1f} orthos/s",
        "last 5 minutes": in_words(next(pace for pace in corpus.statistics.paces if pace.seconds == FIVE_MINUTES)),
        "time left": time_left(corpus.statistics.left),
        "batches": f"{corpus.batches:,}, {readable_bytes(corpus.bytes)} with texts and phrases",
    }.items():
        if fact:
            facts.add_row(Text(name, "dim"), Text(fact))
    return Group(Text(corpus.corpus, "bold"), facts, shapes_table(corpus.orthos))


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in numbers.items()) or "none"


def readable_bytes(number: float) -> str:
    """A size for people: 1 kB is 1000 bytes."""
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


class Watch:
    """Shows a page that changes: in its place in a terminal, else one after the other. A context manager."""

    def __init__(self, to: Console) -> None:
        self._console = to
        self._live = Live(console=to, auto_refresh=False) if to.is_terminal and not to.is_dumb_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, page: RenderableType) -> None:
        if self._live is not None:
            self._live.update(page, refresh=True)
        else:
            self._console.print(page)
            self._console.print()
            self._console.file.flush()


# ── work ────────────────────────────────────────────────────────────────────────────────────────

SHOWN_DIGITS = 13
"""of an id in a table, its first dash counted: enough to name it"""


def work_table(lines: Sequence[WorkLine]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("id", "corpus", "kind", "about", "state"):
        table.add_column(name, overflow="fold")
    table.add_column("tries", justify="right")
    table.add_column("error", overflow="fold")
    for line in lines:
        facts = [line.id[:SHOWN_DIGITS], line.corpus or "-", line.kind, line.about, line.state, f"{line.tries or ''}"]
        table.add_row(*map(Text, facts), Text(_problem(line.error)))
    return table


def _problem(error: Mapping[str, Any] | None) -> str:
    if error is None:
        return ""
    message = str(error.get("message", "")).split("\n", 1)[0]
    return f"{message} [{error.get('code', 'internal')}]"


def work_page(detail: WorkDetail) -> RenderableType:
    """Everything `crochet work show` says."""
    line = detail.line
    facts = Table.grid(padding=(0, 2))
    for name, fact in {
        "corpus": line.corpus,
        "about": line.about,
        "state": line.state,
        "next": detail.next,
        "error": _problem(line.error),
        "created": _time(line.created_at),
        "not before": _time(line.not_before),
        "published": _time(line.published_at),
        "finished": _time(line.finished_at),
        **detail.details,
    }.items():
        if fact not in (None, ""):
            facts.add_row(Text(name, "dim"), Text(str(fact)))
    parts: list[RenderableType] = [Text(f"{line.kind} {line.id}", "bold"), facts]
    if detail.tries:
        parts += [_EMPTY, Text("tries that did not succeed", "bold"), *map(_try, detail.tries)]
    if detail.related:
        parts += [_EMPTY, work_table(detail.related)]
    if detail.audit:
        parts += [_EMPTY, Text("audit", "bold")]
        parts += [Text(f"{_time(entry.at)}  {entry.what}  by {entry.who}") for entry in detail.audit]
    return Group(*parts)


def _try(each: Try) -> RenderableType:
    """A try, and below it what is known about its error."""
    facts = Table.grid(padding=(0, 2))
    for name, fact in each.error.items():
        if name not in ("code", "message") and fact:
            facts.add_row(Text(f"    {name}", "dim"), Text(str(fact)))
    return Group(Text(f"{each.number}  {_time(each.at)}  {_problem(each.error)}"), facts)


def _time(at: dt.datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


# ── progress ────────────────────────────────────────────────────────────────────────────────────


class Meter:
    """Shows how far a run is: a table that moves in a terminal, else a line every few seconds. A context manager."""

    def __init__(self, to: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = to
        self._clock = clock
        self._began = self._line_due = clock()
        self._live: Live | None = None
        self._first: tuple[float, Progress] | None = None
        self._last: tuple[float, Progress] | None = None
        self.stopping = False
        """set when a stop was asked for: the piece of work at hand may take a moment"""

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(self, console=self._console, transient=True, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        self._write_line()

    def show(self, progress: Progress) -> None:
        """Take in how far the run is."""
        now = self._clock()
        self._last = now, progress
        self._first = self._first or self._last
        if self._live is None and now >= self._line_due:
            self._line_due = now + LINE_SECONDS
            self._write_line()

    def _write_line(self) -> None:
        facts = self._facts()
        if facts:
            named = {"version", "work", "best"}
            line = " · ".join(f"{name} {fact}" if name in named else fact for name, fact in facts.items())
            self._console.print(Text(line), soft_wrap=True)

    def _facts(self) -> dict[str, str]:
        if self._first is None or self._last is None:
            return {}
        (since, before), (until, now) = self._first, self._last
        rate = (now.total - before.total) / (until - since) if until > since else 0
        elapsed = (until if self._live is None else self._clock()) - self._began
        return {
            "version": str(now.version),
            "work": f"{now.work.open:,} open, {now.work.done:,} done",
            "found": f"{now.total:,} orthos",
            "rate": f"{rate:,.0f} orthos/s",
            "best": "-" if now.best is None else shape_name(now.best),
            "elapsed": f"{elapsed:.1f} s",
        }

    def __rich__(self) -> RenderableType:
        facts = self._facts()
        if not facts:
            return Text("opening the store")
        table = Table.grid(padding=(0, 3))
        table.add_row(*(Text(name, "dim") for name in facts))
        table.add_row(*(Text(fact, "bold") for fact in facts.values()))
        return Group(table, Text(STOPPING, "yellow")) if self.stopping else table
