"""Commands of operators: hand in texts, and look after the work of a deployment."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from crochet_tasks.cli.common import Corpus, Json, Local, client_of, output, print_json, say, settings_of
from crochet_tasks.errors import WorkUnknown, WrongCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from crochet_tasks.db.process import Process
    from crochet_tasks.schemas.reports import IngestReport, WorkChanged, WorkList


Answered = TypeVar("Answered")


def ingest(
    context: typer.Context,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="UTF-8 texts, ingested in order; '-' is standard input.")
    ],
    corpus: Corpus = "main",
    max_axes: Annotated[int | None, typer.Option(metavar="N", help="Most axes of an ortho (a new corpus: 3).")] = None,
    max_side: Annotated[int | None, typer.Option(metavar="N", help="Longest axis (a new corpus: 8).")] = None,
    max_cells: Annotated[int | None, typer.Option(metavar="N", help="Most cells (a new corpus: 64).")] = None,
    *,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until their orthos are found; Ctrl-C only stops waiting.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Hand texts to a deployment: they are in the database when this returns, and its workers do the rest.

    Needs CROCHET_DATABASE_URL, or an API (--url).
    """
    from crochet_tasks.cli import accepting
    from crochet_tasks.settings import Settings

    client = client_of(context)

    limits = {"max_axes": max_axes, "max_side": max_side, "max_cells": max_cells}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    request = accepting.Request(files, corpus, given, wait)
    if client is not None:
        from crochet_tasks.cli import remote_ingest

        handed = remote_ingest.hand_in(client, Settings.load(), request, say)
    else:
        handed = accepting.hand_in(Settings.load(), request, say)
    with output():
        if as_json:
            print_json(handed.report)
        else:
            _print_report(handed.report)
    if handed.error is not None:
        raise handed.error
    if handed.signal is not None:
        raise typer.Exit(128 + handed.signal)


def _print_report(report: IngestReport) -> None:
    from crochet_tasks.terminal import drawing

    for text in report.texts:
        typer.echo(f"{text.id}  seq {text.seq}  {text.state}  {text.source}")
    waited = report.waited
    if waited is not None:
        found = f"{waited.total:,} orthos, {waited.seconds:.1f} s"
        drawing.console().print(drawing.text(f"corpus {report.corpus}, version {waited.version}: {found}"))
        if waited.open_work:
            drawing.console().print(drawing.text(f"{waited.open_work:,} pieces of work are open"))


# ── work ────────────────────────────────────────────────────────────────────────────────────────

work = typer.Typer(no_args_is_help=True, help="See and change what is to be done: list, show, cancel, retry, drop.")


class Standing(enum.StrEnum):
    """As naming.STATES, which `--help` does not wait for."""

    OPEN = "open"
    READY = "ready"
    HELD = "held"
    PUBLISHED = "published"
    WAITING = "waiting"
    PARKED = "parked"
    FAILED = "failed"
    DONE = "done"
    CANCELLED = "cancelled"
    DEAD = "dead"


class Kind(enum.StrEnum):
    """What there is to be done, stage by stage."""

    INGEST = "ingest"
    CONTEXT = "context"
    REMEDIATIONS = "remediations"
    SEED = "seed"
    GROW = "grow"


ID = "The beginning of an id of work, 4 digits at least; or text-NUMBER, or dead-NUMBER."
Ids = Annotated[list[str], typer.Argument(metavar="ID", help=ID)]
OneCorpus = Annotated[str | None, typer.Option("--corpus", metavar="NAME", help="Only of this corpus.")]


@work.command("list")
def list_work(
    context: typer.Context,
    corpus: OneCorpus = None,
    standing: Annotated[
        Standing | None,
        typer.Option("--state", help="Only this state; `open` is ready, held, published, waiting and parked together."),
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only this kind.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="How many, at the most.")] = 50,
    *,
    as_json: Json = False,
) -> None:
    """List work: by default what is open or has failed, and dead letters."""
    from crochet_tasks.terminal import drawing

    found = _listed(context, corpus, standing, kind, limit)
    with output():
        if as_json:
            print_json(found)
        elif found.work:
            drawing.console().print(drawing.work_table(found.work))
        else:
            typer.echo("There is no such work.")
    if found.more and not as_json:
        say(f"{found.more:,} more: see --limit")


def _listed(
    context: typer.Context, corpus: str | None, standing: Standing | None, kind: Kind | None, limit: int
) -> WorkList:
    if (client := client_of(context)) is not None:
        from crochet_tasks.cli import remote

        return remote.listed(client, corpus, standing, kind, limit)
    from crochet_tasks.operate import inspection
    from crochet_tasks.schemas.reports import WorkList

    def listed(process: Process) -> WorkList:
        return inspection.listed(process, corpus=corpus, state=standing, kind=kind, most=limit)

    return _in_store(listed, WorkList(work=[], more=0))


@work.command(cls=Local)
def show(name: Annotated[str, typer.Argument(metavar="ID", help=ID)], *, as_json: Json = False) -> None:
    """Show all about a piece of work, a text or a dead letter: its tries, their errors, when it is published next."""
    from crochet_tasks.operate import inspection
    from crochet_tasks.terminal import drawing

    found = _in_store(lambda process: inspection.shown(process, name), WorkUnknown(work=name))
    with output():
        if as_json:
            print_json(found)
        else:
            drawing.console().print(drawing.work_page(found))


@work.command()
def cancel(context: typer.Context, names: Ids, *, as_json: Json = False) -> None:
    """Cancel texts that have not been started: they become no version. They can be given again.

    An API (--url) takes whole ids, one after the other.
    """
    from crochet_tasks.operate import actions

    if (client := client_of(context)) is not None:
        from crochet_tasks.cli import remote

        _show_changed(remote.cancel(client, names), as_json=as_json)
        return
    _change(lambda process: actions.cancel(process, names), names, as_json=as_json, publishes=True)


@work.command()
def retry(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="ID", help=ID)] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All that has failed.")] = False,
    dropped: Annotated[bool, typer.Option("--dropped", help="With --all: what was dropped, too.")] = False,
    corpus: Annotated[str | None, typer.Option(metavar="NAME", help="With --all: only of this corpus.")] = None,
    as_json: Json = False,
) -> None:
    """Do failed or dropped work again; a text is accepted again, at the end of the line.

    An API (--url) takes whole ids, one after the other.
    """
    from crochet_tasks.operate import actions

    if bool(names) == everything or (names and (dropped or corpus)):
        raise WrongCall(problem="give IDs, or --all, perhaps with --dropped and --corpus")
    if (client := client_of(context)) is not None:
        from crochet_tasks.cli import remote

        if dropped:
            raise WrongCall(problem="an API does not say what was dropped: --dropped is not for --url")
        made = remote.retry(client, names) if names else remote.retry_all(client, corpus)
        _show_changed(made, as_json=as_json)
        return

    def again(process: Process) -> WorkChanged:
        return actions.retry(process, names) if names else actions.retry_all(process, corpus, dropped=dropped)

    _change(again, names or [], as_json=as_json, publishes=True)


@work.command(cls=Local)
def drop(names: Ids, *, as_json: Json = False) -> None:
    """Let failed work be; a dead letter is deleted. Without its searches a corpus is incomplete."""
    from crochet_tasks.operate import actions

    _change(lambda process: actions.drop(process, names), names, as_json=as_json, publishes=False)


def _in_store(step: Callable[[Process], Answered], nothing: Answered | WorkUnknown) -> Answered:
    """Do something with the store; where there is none, the answer or error is `nothing`."""
    from crochet_tasks.embedded import pipeline

    settings = settings_of(None)
    if not pipeline.store_exists(settings):
        if isinstance(nothing, WorkUnknown):
            raise nothing
        return nothing
    with pipeline.opened(settings) as process:
        return step(process)


def _change(step: Callable[[Process], WorkChanged], names: list[str], *, as_json: bool, publishes: bool) -> None:
    """Make a change and say what it was; its follow-up work is published once it is committed."""
    from crochet_tasks.cli import accepting
    from crochet_tasks.schemas.reports import WorkChanged

    def changed(process: Process) -> WorkChanged:
        made = step(process)
        if publishes and made.changed and process.settings.database_url is not None:
            accepting.publish(None, say)
        return made

    done = _in_store(changed, WorkUnknown(work=names[0]) if names else WorkChanged(changed=[], notes=[]))
    _show_changed(done, as_json=as_json)


def _show_changed(done: WorkChanged, *, as_json: bool) -> None:
    with output():
        if as_json:
            print_json(done)
        else:
            for line in done.changed:
                typer.echo(f"{line.id}  {line.kind}  {line.state}  {line.about}")
    for note in done.notes:
        say(note)
