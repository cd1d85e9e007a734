"""`crochet best`: the largest orthos of texts, with proof."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from crochet_tasks.cli.common import Json, State, client_of, print_json, print_line, settings_of, whole_number
from crochet_tasks.errors import WrongCall, values

if TYPE_CHECKING:
    from crochet_tasks.cli import proving

ANY = "any"


class Most(NamedTuple):
    """The value of a limit; None: any number."""

    number: int | None


def _most(value: str) -> Most:
    return Most(None if value == ANY else values.whole(value))


def _limit(about: str) -> Any:
    return typer.Option(metavar="N|any", parser=_most, help=about)


def best(
    context: typer.Context,
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE", help="UTF-8 texts; '-' is standard input.")
    ] = None,
    state: State = None,
    corpus: Annotated[str | None, typer.Option("--corpus", metavar="NAME", help="Of texts that are stored.")] = None,
    top: Annotated[
        int | None,
        whole_number("N", "The N best; without it all that share the largest volume and cells.", least=1, most=10_000),
    ] = None,
    max_axes: Annotated[Most | None, _limit("Most axes (3, or as the corpus has it).")] = None,
    max_side: Annotated[int | None, whole_number("N", "Longest axis (8, or as the corpus has it).", least=2)] = None,
    max_cells: Annotated[Most | None, _limit("Most cells (64, or as the corpus has it).")] = None,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", metavar="OUT", help="Write what proves it to this file.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option("--check", metavar="CERTIFICATE", help="Check a certificate against these texts.")
    ] = None,
    *,
    full: Annotated[bool, typer.Option("--full", help="With --check: search everything again.")] = False,
    transposed: Annotated[
        bool, typer.Option("--transposed", help="With --check: search everything along another axis.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="With --url: only ask for it.")] = False,
    as_json: Json = False,
) -> None:
    """Find the best orthos of texts, and prove that none is better. Smaller ones are not listed.

    Best: the largest volume (the product of all sides less one), then the most cells.

    Ctrl-C shows what is proven so far; the same command goes on from there. Nothing else is stored.

    With an API (--url) its workers search a corpus (--corpus), and this follows them; Ctrl-C stops only that.
    """
    from crochet_tasks.cli import proving

    given = {"max_axes": max_axes, "max_cells": max_cells}
    limits = {name: most.number for name, most in given.items() if most is not None}
    if max_side is not None:
        limits["max_side"] = max_side
    client = client_of(context, state)
    if client is not None and check is not None:
        raise WrongCall(problem="a certificate is checked here, against the texts: --check is not for --url")
    if client is None and no_wait:
        raise WrongCall(problem="--no-wait goes with --url")
    if check is None:
        if full or transposed:
            raise WrongCall(problem="--full and --transposed go with --check")
        request = proving.Request(files or [], corpus, limits, top, certificate)
        if client is not None:
            from crochet_tasks.cli import remote_best
            from crochet_tasks.terminal.streams import note

            finished = remote_best.prove(client, request, note, follow=not no_wait)
        else:
            finished = proving.prove(settings_of(state), request)
        if as_json:
            print_json(finished.report)
        else:
            _print(finished)
        if finished.signal is not None:
            raise typer.Exit(128 + finished.signal)
        return
    if certificate is not None or as_json:
        raise WrongCall(problem="--certificate and --json do not go with --check")
    request = proving.Request(files or [], corpus, limits, top, check)
    for line in proving.check(settings_of(state), request, full=full, transposed=transposed):
        print_line(line)


def _print(finished: proving.Finished) -> None:
    from crochet_tasks.terminal import best as words
    from crochet_tasks.terminal import drawing

    report, out = finished.report, drawing.console()
    for ortho in report.best or ([report.incumbent] if report.incumbent else []):
        out.print(drawing.drawn(ortho.shape, ortho.words))
        for line in words.sources(ortho):
            out.print(line)
        out.print()
    for sentence in words.conclusion(report):
        out.print(drawing.text(sentence))
