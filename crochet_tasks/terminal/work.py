"""Work in a terminal: lists of it, and everything about one item."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from crochet_tasks.terminal.drawing import EMPTY, text

if TYPE_CHECKING:
    from crochet_tasks.schemas.reports import Try, WorkDetail, WorkLine

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
        table.add_row(*map(text, facts), text(_problem(None if line.error is None else line.error.model_dump())))
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
        "error": _problem(None if line.error is None else line.error.model_dump()),
        "created": _time(line.created_at),
        "not before": _time(line.not_before),
        "published": _time(line.published_at),
        "finished": _time(line.finished_at),
        **detail.details,
    }.items():
        if fact not in (None, ""):
            facts.add_row(text(name, "dim"), text(str(fact)))
    parts: list[RenderableType] = [text(f"{line.kind} {line.id}", "bold"), facts]
    if detail.tries:
        parts += [EMPTY, text("tries that did not succeed", "bold"), *map(_try, detail.tries)]
    if detail.related:
        parts += [EMPTY, work_table(detail.related)]
    if detail.audit:
        parts += [EMPTY, text("audit", "bold")]
        parts += [text(f"{_time(entry.at)}  {entry.what}  by {entry.who}") for entry in detail.audit]
    return Group(*parts)


def _try(each: Try) -> RenderableType:
    """A try, and below it what is known about its error."""
    facts = Table.grid(padding=(0, 2))
    for name, fact in each.error.items():
        if name not in ("code", "message") and fact:
            facts.add_row(text(f"    {name}", "dim"), text(str(fact)))
    return Group(text(f"{each.number}  {_time(each.at)}  {_problem(each.error)}"), facts)


def _time(at: dt.datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"
