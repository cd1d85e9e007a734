"""Estimates and budgets in words: `crochet estimate`, and what `crochet run` says before it begins and when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from crochet_tasks.terminal import numbers
from crochet_tasks.terminal.drawing import text
from crochet_tasks.terminal.numbers import about, count, counted

if TYPE_CHECKING:
    from crochet_tasks.schemas.reports import Amount, Estimate, RunReport

_WHY_OPEN = {
    "disk": "the disk is nearly full",
    "stopped": "stopped",
    "elsewhere": "another process is at work",
    "waiting": "some work waits for a later try, or for work that has failed",
}
WINDOWS = 3
"""windows that a report lists"""


def page(estimate: Estimate, texts: int, limits: Mapping[str, int], budget: int | None) -> RenderableType:
    """The output of `crochet estimate`."""
    within = ", ".join(f"{name} {limit}" for name, limit in limits.items())
    table = Table("shape", box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.columns[0].footer = "total"
    rows = [*estimate.shapes.items(), ("total", estimate)]
    columns = {"orthos": [_number(one, estimate) for _, one in rows]}
    if not estimate.exact:
        columns["at least"] = [about(one.low) for _, one in rows]
        columns["at most"] = [about(one.high) for _, one in rows]
    for name, cells in columns.items():
        table.add_column(name, justify="right", footer=cells[-1])
    for place, (shape, _) in enumerate(rows[:-1]):
        table.add_row(text(shape), *(cells[place] for cells in columns.values()))
    lines = [f"{counted(texts, 'text')}, {within}: {total(estimate)}"]
    if not estimate.exact:
        lines.append("sampled; the true numbers are between the last two columns 19 times in 20")
    costs = [] if estimate.exact else [f"to find and store all of them takes {_takes(estimate)}"]
    return Group(*map(text, lines), table, *map(text, [*costs, reach(estimate, budget, "default")]))


def _number(one: Amount, estimate: Estimate) -> str:
    return count(one.orthos) if estimate.exact else f"about {about(one.orthos)}"


def total(estimate: Estimate) -> str:
    """`570 orthos`, or `about 1.7 billion orthos (1.5 to 2.0 billion)`."""
    if estimate.exact:
        return counted(estimate.orthos, "ortho")
    return f"about {about(estimate.orthos)} orthos ({numbers.between(estimate.low, estimate.high)})"


def _takes(estimate: Estimate) -> str:
    on = counted(estimate.cores, "core")
    return f"about {numbers.size(estimate.bytes)} and {numbers.seconds(estimate.seconds)} on {on}"


def reach(estimate: Estimate, budget: int | None, set_by: str) -> str:
    """What the budget of a run means for texts with so many orthos."""
    whose = {
        "option": "the budget",
        "default": "the default budget",
        "corpus": "the budget of the corpus",
        "disk": "what the disk has room for",
    }[set_by]
    if budget is None:
        return "there is no budget: 'crochet run' finds all of them"
    if budget >= estimate.high:
        return f"{whose}, {counted(budget, 'ortho')}, is enough for all of them"
    if budget > estimate.low:
        return f"{whose}, {counted(budget, 'ortho')}, may be too small for all of them"
    share = numbers.share(budget / estimate.orthos)
    return f"{whose} is {counted(budget, 'ortho')}, {share} of them: --budget N sets another, --budget all finds all"


def before(estimate: Estimate, budget: int | None, set_by: str) -> list[str]:
    """What `crochet run` says before it begins."""
    if estimate.exact:
        found = f"the texts hold {total(estimate)}"
        return [found] if budget is None or budget >= estimate.orthos else [found, reach(estimate, budget, set_by)]
    found = f"the texts hold {total(estimate)}; all of them take {_takes(estimate)}"
    return [found, reach(estimate, budget, set_by)]


def after(report: RunReport) -> list[str]:
    """What is complete when a run has ended, what is not, and how to go on."""
    if report.closed:
        return [f"complete: the store holds every ortho of {counted(report.texts, 'text')}"] if report.total else []
    return [*_why(report), *_undone(report), *_how(report)]


def _why(report: RunReport) -> list[str]:
    if report.ended == "budget":
        assert report.budget is not None
        whose = {"corpus": " of the corpus", "disk": ", more do not fit the disk,"}.get(report.budget_of, "")
        reason = f"the budget of {counted(report.budget, 'ortho')}{whose} is reached"
    elif report.open_work:
        reason = _WHY_OPEN.get(report.ended, "not done")
    else:
        return []
    return [f"{reason}: {_stored(report)}"]


def _stored(report: RunReport) -> str:
    estimate = report.estimate
    if estimate is None or not estimate.orthos:
        return f"{count(report.total)} are stored"
    of = count(estimate.orthos) if estimate.exact else f"about {about(estimate.orthos)}"
    share = numbers.share(min(0.999, report.total / estimate.orthos))
    return f"{count(report.total)} of {of} are stored ({share})"


def _undone(report: RunReport) -> list[str]:
    lines = []
    for window in report.unfinished[:WINDOWS]:
        begun = f", and {counted(window.left_over, 'part')} of others" if window.left_over else ""
        starts = f"{count(window.starts_left)} of {counted(window.starts, 'starting point')}"
        lines.append(f"not searched: {starts} of version {window.version}{begun}")
    if len(report.unfinished) > WINDOWS:
        lines.append(f"and some of {counted(len(report.unfinished) - WINDOWS, 'other version')}")
    if report.open_work and not report.unfinished:
        lines.append(f"not done: {counted(report.open_work, 'work item')}")
    if report.dropped_work:
        lines.append(f"{counted(report.dropped_work, 'dropped work item')}: what they would find is missing")
    if report.total:
        lines.append("what is stored are orthos of the texts, but not all: others are missing, also larger ones")
    return lines


def _how(report: RunReport) -> list[str]:
    if not report.open_work:
        return []
    corpus = "" if report.corpus == "main" else f" --corpus {report.corpus}"
    if report.ended != "budget" or report.budget is None:
        return [f"to go on: crochet run{corpus}"]
    more = _rounded_up(2 * max(report.budget, report.total))
    cost = "" if report.estimate is None or report.estimate.exact else f" ({_takes(report.estimate)})"
    if report.budget_of == "corpus":
        change = f"crochet corpora set {report.corpus} --budget"
        return [f"to go on: {change} {more}, or {change} all{cost}; then crochet run{corpus}"]
    return [f"to go on: crochet run{corpus} --budget {more}, or --budget all{cost}"]


def _rounded_up(number: int) -> int:
    """With two digits before its zeros."""
    step: int = 10 ** max(0, len(str(number)) - 2)
    return -(-number // step) * step


def lines(of: Sequence[str]) -> RenderableType:
    """Each on a line of its own."""
    return Group(*map(text, of))
