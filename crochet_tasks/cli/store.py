"""Commands on a store: texts in, orthos out, and what there is. They work embedded or on any database."""

from __future__ import annotations

import contextlib
import enum
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from crochet_tasks.cli.common import (
    Budget,
    Corpus,
    Json,
    MaxAxes,
    MaxCells,
    MaxSide,
    State,
    client_of,
    in_store,
    limits_of,
    number,
    print_bytes,
    print_json,
    print_line,
    settings_of,
    state_option,
)
from crochet_tasks.errors import CorpusUnknown, SettingMissing, StoreCorrupt
from crochet_tasks.terminal.streams import note

if TYPE_CHECKING:
    from crochet_tasks.cli.running import Finished
    from crochet_tasks.client.client import Which
    from crochet_tasks.db.process import Process
    from crochet_tasks.schemas.reports import Status


NO_CORPUS = "There is no corpus yet: 'crochet run FILE' makes one."


class Format(enum.StrEnum):
    """As query.export.Format, which `--help` does not wait for."""

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
    max_axes: MaxAxes = None,
    max_side: MaxSide = None,
    max_cells: MaxCells = None,
    budget: Budget = None,
    *,
    as_json: Json = False,
) -> None:
    """Ingest texts, find every ortho in them, and show the best.

    It says how many orthos to expect, and ends when its budget is spent: 10 million by default, less on a small disk.

    Run again with another text, it continues. Ctrl-C stops it cleanly; the next run goes on.

    Limits belong to a corpus from its creation.
    """
    from crochet_tasks.cli import running

    limits = limits_of(max_axes, max_side, max_cells)
    finished = running.run(settings_of(state), running.Request(files or [], corpus, limits, budget))
    if as_json:
        print_json(finished.report)
    else:
        _print_report(finished)
    if finished.error is not None:
        raise finished.error
    if finished.signal is not None:
        raise typer.Exit(128 + finished.signal)


def estimate(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="UTF-8 texts; '-' is standard input.")],
    max_axes: MaxAxes = None,
    max_side: MaxSide = None,
    max_cells: MaxCells = None,
    *,
    as_json: Json = False,
) -> None:
    """Say about how many orthos texts hold together, and what finding them takes. Nothing is stored."""
    from crochet_tasks.db import corpora
    from crochet_tasks.engine.geometry import Limits
    from crochet_tasks.intake import files as inputs
    from crochet_tasks.query import estimates

    settings = settings_of(None)
    limits = corpora.checked(Limits(**limits_of(max_axes, max_side, max_cells)))
    texts = inputs.read(files, settings.max_text_bytes)
    found = estimates.of_texts([text.body for text in texts], limits)
    if as_json:
        print_json(found)
        return
    from crochet_tasks.terminal import drawing
    from crochet_tasks.terminal import estimates as words

    drawing.console().print(words.page(found, len(texts), limits._asdict(), settings.budget))


def export(
    context: typer.Context,
    state: State = None,
    corpus: Corpus = "main",
    shape: Annotated[str | None, typer.Option(metavar="SHAPE", help="Only this shape, such as 2x3.")] = None,
    starts_with: Annotated[
        str | None, typer.Option("--starts-with", metavar="WORDS", help="Only those that begin with these words.")
    ] = None,
    contains: Annotated[
        str | None, typer.Option(metavar="WORDS", help="Only those with these words in a row of a line.")
    ] = None,
    shares_line_with: Annotated[
        str | None, typer.Option("--shares-line-with", metavar="ID", help="Only others with a line of this ortho.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to write them.")] = Format.JSONL,
) -> None:
    """Write every ortho of a corpus to standard output: largest volume first, each shape in alphabetical order."""
    if (client := client_of(context, state)) is not None:
        from crochet_tasks.cli import remote

        which: Which = {
            "shape": shape,
            "starts_with": starts_with,
            "contains": contains,
            "shares_line_with": shares_line_with,
        }
        print_bytes(remote.export(client, corpus, form, which))
        return
    from crochet_tasks.query import export as orthos
    from crochet_tasks.query.pages import OrthoQuery
    from crochet_tasks.terminal.drawing import cell_width

    sides = None if shape is None else orthos.sides_of(shape)
    query = OrthoQuery.of(sides, starts_with, contains, shares_line_with=shares_line_with)

    def write(process: Process) -> None:
        print_bytes(orthos.export(process, corpus, orthos.Format(form), query, cell_width))

    in_store(state, write, CorpusUnknown(corpus=corpus, known="none"))


def verify(
    state: State = None,
    corpus: Annotated[str | None, typer.Option("--corpus", metavar="NAME", help="Only this corpus.")] = None,
    *,
    closure: Annotated[bool, typer.Option("--closure", help="Search everything again, too, and compare.")] = False,
) -> None:
    """Check every stored ortho, and what goes with it, against its definition; in all corpora or in one."""
    from crochet_tasks.db import corpora
    from crochet_tasks.verify import verify as problems_of

    def check(process: Process) -> list[str]:
        with process.database.transaction() as connection:
            chosen = corpora.every(connection) if corpus is None else [corpora.named(connection, corpus)]
        if not chosen:
            print_line(NO_CORPUS)
        found = []
        for each in chosen:
            problems = problems_of(process, each, closure=closure, progress=note)
            for problem in problems or ["no problems"]:
                print_line(f"corpus '{each.name}': {problem}")
            found += problems
        return found + (_audit_problems(process) if corpus is None else [])

    problems = in_store(state, check, CorpusUnknown(corpus=corpus, known="none") if corpus else None)
    if problems is None:
        print_line(NO_CORPUS)
    elif problems:
        more = f" (and {len(problems) - 1} more, listed above)" if len(problems) > 1 else ""
        raise StoreCorrupt(problem=f"{problems[0]}{more}")


def _audit_problems(process: Process) -> list[str]:
    from crochet_tasks.db import audit

    found: list[str] = []
    with process.database.snapshot() as connection:
        heads = [audit.verify(connection, source, found.append) for source in audit.SEALED]
    for problem in found:
        print_line(problem)
    for head in heads:
        last = f"; the hash of the last one: {head.hash}" if head.hash else ""
        note(f"checked the {head.source}: seals: {head.seals:,}, rows that are not sealed yet: {head.unsealed:,}{last}")
    return found


def migrate(state: State = None) -> None:
    """Make the schema in the database, or bring it up to date."""
    from crochet_tasks.db import privileges, schema
    from crochet_tasks.embedded import store
    from crochet_tasks.retry import wait_for

    with store.connected(settings_of(state)) as process:
        # What others do waits behind a migration that waits for a lock: it gives up soon, and tries again.
        before, after = wait_for(lambda: schema.migrate(process.database), process.settings.startup_wait, note)
        with process.database.transaction() as connection:
            granted = privileges.grant(connection)
    print_line(f"schema: {before or 'none'} -> {after}{' (nothing to do)' if before == after else ''}")
    if granted:
        print_line(f"rights granted to: {', '.join(granted)}")


def roles(state: State = None) -> None:
    """Make a user per kind of service in Postgres and RabbitMQ, with the passwords of CROCHET_ROLE_PASSWORDS.

    Each gets what its kind needs and no more. Those that are there get these passwords. CROCHET_DATABASE_URL is the
    owner's, who may create roles, and CROCHET_BROKER_API_URL an administrator's; what is not set is left out.
    """
    from crochet_tasks.broker import permissions
    from crochet_tasks.db import privileges
    from crochet_tasks.embedded import store
    from crochet_tasks.settings.field_types import passwords

    configured = settings_of(state)
    wanted = passwords(configured.role_passwords)
    if not wanted:
        raise SettingMissing(variable="CROCHET_ROLE_PASSWORDS", needed_for="it says which users to make")
    if configured.database_url is not None:
        with store.connected(configured) as process, process.database.transaction() as connection:
            made = privileges.make(connection, {kind: wanted[kind] for kind in privileges.KINDS if kind in wanted})
            privileges.grant(connection)
        print_line(f"Postgres: {', '.join(made)}")
    if configured.broker_api_url is not None:
        print_line(f"RabbitMQ: {', '.join(permissions.make(configured, wanted))}")


def status(
    context: typer.Context,
    state: State = None,
    corpus: Annotated[str | None, typer.Option("--corpus", metavar="NAME", help="Only this corpus.")] = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Show progress, a line per corpus, until Ctrl-C.")] = False,
    details: Annotated[bool, typer.Option("--details", help="With --watch: everything, not a line each.")] = False,
    every: Annotated[float, number("SECONDS", "Between two polls of --watch.", least=0.05)] = 1.0,
    as_json: Json = False,
) -> None:
    """Show what there is: corpora, their texts, orthos, open work and queues.

    With --watch and --json, one JSON object per line.
    """
    if (client := client_of(context, state)) is not None:
        from crochet_tasks.cli import remote

        if watch:
            with contextlib.suppress(KeyboardInterrupt):
                _watch(remote.polled(client, every, note), corpus, details=details, as_json=as_json)
        else:
            _show_status(_only(remote.status(client), corpus), as_json=as_json)
        return
    from crochet_tasks.embedded import store
    from crochet_tasks.operate import inspection
    from crochet_tasks.reporting import reports

    settings = settings_of(state)
    if not store.exists(settings):
        _show_status(_only(reports.nothing_yet(), corpus), as_json=as_json)
    elif watch:
        with contextlib.suppress(KeyboardInterrupt), store.joined(settings) as process:
            _watch(inspection.poll_status(process, every, note), corpus, details=details, as_json=as_json)
    else:
        with store.joined(settings) as process:
            found = reports.status(process)
        _show_status(_only(found, corpus), as_json=as_json)


def _only(found: Status, corpus: str | None) -> Status:
    """The status with one corpus; raises CorpusUnknown where it is not there."""
    if corpus is None:
        return found
    chosen = [each for each in found.corpora if each.corpus == corpus]
    if not chosen:
        raise CorpusUnknown(corpus=corpus, known=", ".join(each.corpus for each in found.corpora) or "none")
    return found.model_copy(update={"corpora": chosen})


def _show_status(found: Status, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    from crochet_tasks.terminal import drawing, status

    drawing.console().print(status.page(found))


def _watch(polled: Iterator[Status], corpus: str | None, *, details: bool, as_json: bool) -> None:
    if as_json:
        for found in polled:
            print_json(_only(found, corpus))
        return
    from crochet_tasks.terminal import drawing, status

    console = drawing.console()
    with drawing.Watch(console) as watch:
        for found in polled:
            chosen = _only(found, corpus)
            watch.show(status.page(chosen) if details else status.overview(chosen, console.height))


def doctor(state: State = None) -> None:
    """Check configuration, paths and database, and say what to do. Exit code 4 when something is wrong."""
    from crochet_tasks.doctor import checks

    well = True
    for check in checks.checks(**state_option(state)):
        well = well and check.well
        advice = f"  ->  {check.advice}" if check.advice else ""
        print_line(f"{'ok   ' if check.well else 'WRONG'}  {check.name}: {check.found}{advice}")
        sys.stdout.flush()
    if not well:
        raise typer.Exit(4)


def settings(state: State = None, *, as_json: Json = False) -> None:
    """Show the settings of this process, and where each comes from; secrets are masked."""
    from crochet_tasks.settings import Settings

    effective = Settings.load(**state_option(state)).effective(state_option(state))
    if as_json:
        from crochet_tasks.schemas.reports import SettingList

        print_json(SettingList(settings=effective))
        return
    width = max(len(each.variable) for each in effective)
    for each in effective:
        print_line(f"{each.variable:<{width}}  {each.source:<11}  {each.value}")


def _print_report(finished: Finished) -> None:
    from crochet_tasks.terminal import drawing
    from crochet_tasks.terminal import estimates as words
    from crochet_tasks.terminal.numbers import counted, seconds

    report = finished.report
    out = drawing.console()
    if report.best:
        out.print(drawing.gallery([(best.shape, best.words) for best in report.best]))
        out.print(drawing.shapes_table(report.orthos))
    found = f"{counted(report.total, 'ortho')} of {counted(report.texts, 'text')}"
    out.print(drawing.text(f"corpus {report.corpus}, version {report.version}: {found}, {seconds(report.seconds)}"))
    if lines := words.after(report):
        out.print(words.lines(lines))
