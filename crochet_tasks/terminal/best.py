"""The search for the best in words: its progress, and what is proven when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.text import Text

from crochet_tasks.engine.geometry import shape_name, volume
from crochet_tasks.terminal import numbers
from crochet_tasks.terminal.drawing import LINE_SECONDS, STOPPING, InPlace, text
from crochet_tasks.terminal.numbers import count, counted

if TYPE_CHECKING:
    from crochet_tasks.engine.best.solve import Progress
    from crochet_tasks.schemas.answers import LineSeen
    from crochet_tasks.schemas.best import BestOrtho, BestReport

HEADLINES = 3
"""orthos that have one"""
AIMS = {"one": "looking for a {}", "list": "listing all {}", "faces": "listing all {}, to stack them"}


def progress(now: Progress) -> str:
    """`best so far 3x5, volume 8 · at most volume 12 with 36 cells · looking for a 3x3x3, 14 % · 2 s to 4 s left`."""
    facts = ["nothing found yet" if now.incumbent is None else f"best so far {_shape(now.incumbent.sides)}"]
    if now.upper is None:
        facts.append("no bound yet")
    elif now.incumbent is None or now.upper > (volume(now.incumbent.sides), len(now.incumbent.words)):
        facts.append(f"at most volume {now.upper[0]} with {now.upper[1]} cells")
    else:
        facts.append("nothing is larger")
    if now.shape is not None and now.aim is not None:
        facts.append(f"{AIMS[now.aim.value].format(shape_name(now.shape))}, {numbers.share(now.share)}")
    if now.left is not None:
        low, high = numbers.seconds(now.left.low), numbers.seconds(now.left.high)
        left = f"{low} to {high} left" if now.left.all else f"at least {low} left"
        facts.append(f"{left}, if nothing better is found" if now.aim is not None and now.aim.value == "one" else left)
    return " · ".join(facts)


def _shape(sides: tuple[int, ...]) -> str:
    return f"{shape_name(sides)}, volume {volume(sides)}"


class BestMeter(InPlace):
    """How far the search for the best is, in one line."""

    def __init__(self, to: Console) -> None:
        super().__init__(to, first_line=LINE_SECONDS)
        self._line = ""

    def show(self, now: Progress) -> None:
        self._line = progress(now)
        if self._line_is_due():
            self._console.print(Text(self._line), soft_wrap=True)

    def __rich__(self) -> RenderableType:
        return Text(STOPPING if self.stopping else self._line)


def conclusion(report: BestReport) -> list[str]:
    """What is proven and what is not, in sentences."""
    limits = ", ".join(
        f"{'any number of' if most is None else f'at most {count(most)}'} {name.removeprefix('max_')}"
        if name != "max_side"
        else f"sides up to {most}"
        for name, most in report.limits.items()
    )
    lines: list[str] = []
    total = sum(report.found.values())
    if report.complete and not report.best:
        lines.append("proven: these texts have no ortho")
    elif report.complete and report.top is not None:
        shown = "this one" if len(report.best) == 1 else f"these {count(len(report.best))}"
        which = "these are all orthos" if total < report.top else f"no ortho is better than {shown}"
        lines.append(f"proven: {which}")
    elif report.complete:
        first = report.best[0]
        share = "it alone has" if total == 1 else f"these {count(total)} share"
        lines.append(f"proven: no ortho is larger; {share} volume {first.volume} with {counted(first.cells, 'cell')}")
    if total > len(report.best) and report.top is None:
        lines.append(f"the first {count(len(report.best))} of {count(total)} are listed")
    if not report.complete:
        lines += _unfinished(report)
    return [*lines, f"({limits}; {numbers.seconds(report.seconds)})"]


def headlines(report: BestReport, corpus: str) -> list[str]:
    """The best orthos in a line each, for a command that waits for something else."""
    if not report.complete:
        best = report.best[0] if report.best else report.incumbent
        known = "" if best is None else f": {shape_name(tuple(best.shape))}, volume {best.volume}, is the best so far"
        return [
            f"what the best ortho is takes longer to prove{known}; after this, 'crochet best --corpus {corpus}' does"
        ]
    if not report.best:
        return ["proven: these texts have no ortho"]
    first, total = report.best[0], sum(report.found.values())
    lines = [f"proven: no ortho is larger than volume {first.volume} with {first.cells} cells; {_these(total)}"]
    for ortho in report.best[:HEADLINES]:
        *_, side = ortho.shape
        rows = [" ".join(ortho.words[at : at + side]) for at in range(0, len(ortho.words), side)]
        lines.append(f"{shape_name(tuple(ortho.shape))}: {' / '.join(rows)}")
    return lines


def _these(total: int) -> str:
    return "this one has that" if total == 1 else f"{count(total)} have that"


def _unfinished(report: BestReport) -> list[str]:
    best = report.best[0] if report.best else report.incumbent
    lines = []
    if best is None:
        lines.append("not proven yet: no ortho is known")
    elif report.proven:
        lines.append("proven: no ortho is larger; not all that are asked for are listed yet")
    else:
        lines.append(f"not proven yet: {shape_name(tuple(best.shape))}, volume {best.volume}, is the best known")
    if report.upper is not None and not report.proven:
        lines.append(f"an ortho has at most volume {report.upper.volume} with {counted(report.upper.cells, 'cell')}")
    if report.empty:
        lines.append(f"proven to have no ortho, and none that contains them: {', '.join(report.empty)}")
    if report.too_large:
        lines.append(f"too many for the memory, so not stacked: {', '.join(report.too_large)}")
    return lines


def sources(ortho: BestOrtho) -> list[RenderableType]:
    """Where the lines of an ortho were read, a line each."""
    return [text(_source(line), "dim") for line in ortho.lines or []]


def _source(line: LineSeen) -> str:
    words = " ".join(line.words)
    if not line.sources:
        return f"  {words}"
    first = line.sources[0]
    more = f", and {len(line.sources) - 1} more" if len(line.sources) > 1 else ""
    return f"  {words}: {first.title}, sentence {first.sentence}{more}"
