"""Commands of operators: hand in texts, and look after the work of a deployment."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated

import typer

from crochet_tasks.commands.common import Corpus, Json, State, output, print_json, say, settings_of
from crochet_tasks.errors import WorkUnknown, WrongCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from crochet_tasks.app import Process
    from crochet_tasks.schemas import IngestReport, WorkChanged
    from crochet_tasks.settings import Settings


def ingest(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="UTF-8 texts, ingested in order; '-' is standard input.")
    ],
    corpus: Corpus = "main",
    max_axes: Annotated[int | None, typer.Option(metavar="N", help="Most axes of an ortho (a new corpus: 3).")] = None,
    max_side: Annotated[int | None, typer.Option(metavar="N", help="Longest axis (a new corpus: 8).")] = None,
    max_cells: Annotated[int | None, typer.Option(metavar="N", help="Most cells (a new corpus: 64).")] = None,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Until their orthos are found; Ctrl-C only stops waiting.")] = False,
    as_json: Json = False,
) -> None:
    """Hand texts to a deployment: they are in the database when this returns, and its workers do the rest.

    Needs CROCHET_DATABASE_URL.
    """
    from crochet_tasks import accepting
    from crochet_tasks.settings import Settings

    limits = {"max_axes": max_axes, "max_side": max_side, "max_cells": max_cells}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    handed = accepting.hand_in(Settings.load(), accepting.Request(files, corpus, given, wait), say)
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
    from crochet_tasks import drawing

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
    """As operating.STATES, which `--help` does not wait for."""

    OPEN = "open"
    READY = "ready"
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


Ids = Annotated[
    list[str],
    typer.Argument(metavar="ID", help="The beginning of an id of work, at least 4 digits; text-NUMBER; dead-NUMBER."),
]
OneCorpus = Annotated[str | None, typer.Option("--corpus", metavar="NAME", help="Only of this corpus.")]


@work.command("list")
def list_work(
    state: State = None,
    corpus: OneCorpus = None,
    standing: Annotated[
        Standing | None,
        typer.Option("--state-of-work", "--is", help="Only this state; `open` is ready, published, waiting and parked."),
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only this kind.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="How many, at the most.")] = 50,
    *,
    as_json: Json = False,
) -> None:
    """List work: by default what is open or failed, and dead letters."""
