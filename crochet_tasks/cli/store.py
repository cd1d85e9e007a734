"""Commands on a store: texts in, orthos out, and what there is. They work embedded or on any database."""

from __future__ import annotations

import contextlib
import enum
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from crochet_tasks.cli.common import (
    Corpus,
    Json,
    State,
    client_of,
    given,
    looked_into,
    output,
    print_json,
    say,
    settings_of,
)
from crochet_tasks.errors import StoreCorrupt

if TYPE_CHECKING:
    from crochet_tasks.cli.running import Finished
    from crochet_tasks.schemas.reports import Status


class Format(enum.StrEnum):
    """As reports.Format, which `--help` does not wait for."""

    JSONL = "jsonl"
    CSV = "csv"
    TEXT = "text"


def run(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="UTF-8 texts, ingested in order; '-' is standard input. Without any, open work goes on.",
        ),
    ] = None,
    state: State = None,
    corpus: Corpus = "main",
    max_axes: Annotated[int | None, typer.Option(metavar="N", help="Most axes of an ortho (a new corpus: 3).")] = None,
    max_side: Annotated[int | None, typer.Option(metavar="N", help="Longest axis (a new corpus: 8).")] = None,
    max_cells: Annotated[int | None, typer.Option(metavar="N", help="Most cells (a new corpus: 64).")] = None,
    budget: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Take up no more work once N orthos are stored.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Ingest texts, find every ortho in them, and show the best.

    Run again with another text, it continues. Ctrl-C stops it cleanly; the next run goes on.

    Limits belong to a corpus from its creation.
    """
    from crochet_tasks.cli import running

    limits = {"max_axes": max_axes, "max_side": max_side, "max_cells": max_cells}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    finished = running.run(settings_of(state), running.Request(files or [], corpus, given, budget))
    with output():
        if as_json:
            print_json(finished.report)
        else:
            _print_report(finished)
    if finished.error is not None:
        raise finished.error
    if finished.signal is not None:
        raise typer.Exit(128 + finished.signal)


def export(
    context: typer.Context,
    state: State = None,
    corpus: Corpus = "main",
    shape: Annotated[str | None, typer.Option(metavar="SHAPE", help="Only this shape, such as 2x3.")] = None,
    form: Annotated[Format, typer.Option("--format", help="How to write them.")] = Format.JSONL,
) -> None:
    """Write every ortho of a corpus to standard output, best volume first."""
    if (client := client_of(context, state)) is not None:
        from crochet_tasks.cli import remote

        with output():
            for part in remote.export(client, corpus, form, shape):
                sys.stdout.buffer.write(part)
        return
    from crochet_tasks.embedded import pipeline
    from crochet_tasks.reporting import reports

    only = None if shape is None else reports.sides_of(shape)
    settings = looked_into(state, corpus)
    with pipeline.opened(settings) as process, output():
        for part in reports.export(process, corpus, reports.Format(form), only):
            sys.stdout.buffer.write(part)


def verify(
    state: State = None,
    corpus: Corpus = "main",
    *,
    closure: Annotated[bool, typer.Option("--closure", help="Search everything again, too, and compare.")] = False,
) -> None:
    """Check every stored ortho, and what goes with it, against its definition."""
    from crochet_tasks.db import corpora
    from crochet_tasks.embedded import pipeline
    from crochet_tasks.verify import verify as problems_of

    settings = looked_into(state, corpus)
    with pipeline.opened(settings) as process:
        with process.database.transaction() as connection:
            named = corpora.named(connection, corpus)
        problems = problems_of(process, named, closure=closure, progress=say)
    with output():
        for problem in problems:
            typer.echo(problem)
        if not problems:
            typer.echo(f"corpus '{corpus}': no problems")
    if problems:
        more = f" (and {len(problems) - 1} more, listed above)" if len(problems) > 1 else ""
        raise StoreCorrupt(problem=f"{problems[0]}{more}")


def migrate(state: State = None) -> None:
    """Make the schema in the database, or bring it up to date."""
    from crochet_tasks.db import schema
    from crochet_tasks.embedded import pipeline

    with pipeline.connected(settings_of(state)) as process:
        before, after = schema.migrate(process.database)
    with output():
        typer.echo(f"schema: {before or 'none'} -> {after}{' (nothing to do)' if before == after else ''}")


def status(
    context: typer.Context,
    state: State = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(metavar="SECONDS", min=0.05, help="How often --watch looks.")] = 1.0,
    as_json: Json = False,
) -> None:
    """Show what there is: corpora, their texts, orthos, open work and queues.

    With --watch and --json, one JSON object per line.
    """
    if (client := client_of(context, state)) is not None:
        from crochet_tasks.cli import remote

        if watch:
            with contextlib.suppress(KeyboardInterrupt), output():
                _watch(remote.looks(client, every, say), as_json=as_json)
        else:
            _show_status(remote.status(client), as_json=as_json)
        return
    from crochet_tasks.embedded import pipeline
    from crochet_tasks.operate import inspection
    from crochet_tasks.reporting import reports

    settings = settings_of(state)
    if watch and pipeline.store_exists(settings):
        with contextlib.suppress(KeyboardInterrupt), pipeline.opened(settings) as process, output():
            _watch(inspection.looks(process, every, say), as_json=as_json)
        return
    found = reports.nothing_yet()
    if pipeline.store_exists(settings):
        with pipeline.opened(settings) as process:
            found = reports.status(process)
    _show_status(found, as_json=as_json)


def _show_status(found: Status, *, as_json: bool) -> None:
    from crochet_tasks.terminal import drawing

    with output():
        if as_json:
            print_json(found)
        else:
            drawing.console().print(drawing.status_page(found))


def _watch(looks: Iterator[Status], *, as_json: bool) -> None:
    from crochet_tasks.terminal import drawing

    if as_json:
        for found in looks:
            print_json(found)
            sys.stdout.flush()
        return
    with drawing.Watch(drawing.console()) as page:
        for found in looks:
            page.show(drawing.status_page(found))


def doctor(state: State = None) -> None:
    """Check configuration, paths and database, and say what to do. Exit code 4 when something is wrong."""
    from crochet_tasks.doctor import checks as looks

    well = True
    with output():
        for check in looks.checks(**given(state)):
            well = well and check.well
            advice = f"  ->  {check.advice}" if check.advice else ""
            typer.echo(f"{'ok   ' if check.well else 'WRONG'}  {check.name}: {check.found}{advice}")
            sys.stdout.flush()
    if not well:
        raise typer.Exit(4)


def _print_report(finished: Finished) -> None:
    from crochet_tasks.terminal import drawing

    report = finished.report
    out = drawing.console()
    if report.best:
        out.print(drawing.gallery([(best.shape, best.words) for best in report.best]))
        out.print(drawing.shapes_table(report.orthos))
    words = f"{report.total:,} orthos of {report.texts} text{'s' * (report.texts != 1)}"
    out.print(drawing.text(f"corpus {report.corpus}, version {report.version}: {words}, {report.seconds:.1f} s"))
    if report.open_work:
        why = {
            "budget": "the budget is reached",
            "stopped": "stopped",
            "elsewhere": "another process is at work",
            "waiting": "some wait for a later try, or for work that has failed",
        }.get(report.ended, "not done")
        open_work = f"{report.open_work:,} pieces of work are open"
        out.print(drawing.text(f"{why}: {open_work}; 'crochet run' goes on with them"))
    if report.dropped_work:
        out.print(drawing.text(f"{report.dropped_work:,} pieces of work were dropped: what they would find is missing"))
