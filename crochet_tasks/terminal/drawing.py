"""Output in a terminal: orthos as grids, tables, and the progress of a run."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich import box
from rich.cells import cell_len
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from crochet_tasks.engine.geometry import shape_name, tiles, volume
from crochet_tasks.terminal import numbers
from crochet_tasks.terminal.numbers import count
from crochet_tasks.terminal.streams import plain

if TYPE_CHECKING:
    from crochet_tasks.schemas.progress import Goal, RunProgress

LINE_SECONDS = 3.0
"""between two lines of progress where there is no terminal"""
PLAIN_WIDTH = 120
"""columns of output that does not go to a terminal"""
PACE_SECONDS = 2.0
"""after which the time left goes by the pace of the run"""
STOPPING = "stopping after this piece of work; Ctrl-C again stops at once"
EMPTY = Text()


def console(*, stderr: bool = False) -> Console:
    """A console for one of the standard streams: neither markup nor guessed highlights, texts are shown as they are."""
    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = max(PLAIN_WIDTH, made.width)
    return made


def cell_width(word: str) -> int:
    """How many columns of a terminal a word takes."""
    return cell_len(word)


def text(line: str, style: str = "") -> Text:
    """A line as it is, without markup; what a terminal would act on is escaped."""
    return Text(plain(line), style)


# ── orthos ──────────────────────────────────────────────────────────────────────────────────────


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
        grid.add_row(*(text(word) for word in row))
    return grid


def gallery(orthos: Sequence[tuple[Sequence[int], Sequence[str]]]) -> RenderableType:
    """Several orthos, one below the other, and what their order goes by."""
    head = Text("Best first: by volume, the product of all sides less one (3x3 has 2 * 2 = 4)", "dim")
    return Group(head, *itertools.chain.from_iterable((drawn(sides, words), EMPTY) for sides, words in orthos))


# ── tables ──────────────────────────────────────────────────────────────────────────────────────


def shapes_table(orthos: Mapping[str, int]) -> Table:
    """How many orthos there are per shape, and in all."""
    table = Table("shape", box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.add_column("orthos", justify="right")
    for shape, number in orthos.items():
        table.add_row(text(shape), count(number))
    table.columns[0].footer = "total"
    table.columns[1].footer = count(sum(orthos.values()))
    return table


class _Drawn:
    """A context manager that ends the drawing."""

    _live: Live | None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()


class Watch(_Drawn):
    """Shows a page that changes: in its place in a terminal, else one after the other. A context manager."""

    def __init__(self, to: Console) -> None:
        self._console = to
        self._live = Live(console=to, auto_refresh=False) if to.is_terminal and not to.is_dumb_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def show(self, page: RenderableType) -> None:
        if self._live is not None:
            self._live.update(page, refresh=True)
        else:
            self._console.print(page)
            self._console.print()
            self._console.file.flush()


# ── progress ────────────────────────────────────────────────────────────────────────────────────


class InPlace(_Drawn):
    """What is shown in its place in a terminal, and elsewhere as a line every few seconds. A context manager.

    A subclass says what by `__rich__`, and writes a line when `_line_is_due`.
    """

    def __init__(self, to: Console, clock: Callable[[], float] = time.monotonic, *, first_line: float = 0.0) -> None:
        """`first_line`: seconds until the first line is due."""
        self._console, self._clock = to, clock
        self._began = clock()
        self._next_line = self._began + first_line
        self._live = None
        self.stopping = False
        """set when a signal came: the current work item may take a moment"""

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(get_renderable=self.__rich__, console=self._console, transient=True, refresh_per_second=4)
            self._live.start()
        return self

    def _line_is_due(self) -> bool:
        now = self._clock()
        due = self._live is None and now >= self._next_line
        if due:
            self._next_line = now + LINE_SECONDS
        return due

    def __rich__(self) -> RenderableType:
        raise NotImplementedError


class Meter(InPlace):
    """How far a run is: a table, or lines, and one line at the end."""

    def __init__(self, to: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(to, clock)
        self._first: tuple[float, RunProgress] | None = None
        self._last: tuple[float, RunProgress] | None = None
        self.goal: Goal | None = None
        self.phase = "opening the store"
        """shown until there is progress"""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._write_line()

    def show(self, progress: RunProgress) -> None:
        """Update the progress of the run."""
        self._last = self._clock(), progress
        self._first = self._first or self._last
        if self._line_is_due():
            self._write_line()

    def _write_line(self) -> None:
        facts = self._facts()
        if facts:
            named = {"version", "work", "best", "left"}
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
            "work": f"{count(now.work.open)} open, {count(now.work.done)} done",
            "found": f"{count(now.total)} orthos",
            "rate": f"{numbers.rate(rate)} orthos/s",
            "best": "-" if now.best is None else shape_name(now.best),
            **self._share(now, rate, until - since),
            "elapsed": numbers.seconds(elapsed),
        }

    def _share(self, now: RunProgress, rate: float, seconds: float) -> dict[str, str]:
        """How much of the goal is reached, and the time left, going by the pace once there is one."""
        if self.goal is None or not self.goal.orthos:
            return {}
        missing = self.goal.orthos - now.total
        share = 1.0 if not now.work.open else min(0.999, now.total / self.goal.orthos)
        facts = {"done": f"{numbers.share(share)} of {self.goal.words}"}
        if share < 1 and missing > 0:
            pace = rate if rate and seconds > PACE_SECONDS else self.goal.rate
            facts["left"] = f"about {numbers.seconds(missing / pace)}"
        return facts

    def __rich__(self) -> RenderableType:
        facts = self._facts()
        if not facts:
            return Text(self.phase)
        table = Table.grid(padding=(0, 3))
        table.add_row(*(Text(name, "dim") for name in facts))
        table.add_row(*(Text(fact, "bold") for fact in facts.values()))
        return Group(table, Text(STOPPING, "yellow")) if self.stopping else table
