"""`crochet --url ... corpora`: the corpora of an API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from crochet_tasks.cli.common import Json, client_of, output, print_json
from crochet_tasks.errors import WrongCall

if TYPE_CHECKING:
    from crochet_tasks.client import Client
    from crochet_tasks.schemas.answers import CorpusLine

corpora = typer.Typer(no_args_is_help=True, help="See and change the corpora of an API (--url): list, create, delete.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The corpus' name.")]


@corpora.command("list")
def list_corpora(context: typer.Context, *, as_json: Json = False) -> None:
    """List corpora, in the order of their names. With --json, one JSON object per line."""
    with output():
        for line in _client(context).corpora():
            _show(line, as_json=as_json)


@corpora.command()
def create(
    context: typer.Context,
    name: Name,
    max_axes: Annotated[int | None, typer.Option(metavar="N", help="Most axes of an ortho (3).")] = None,
    max_side: Annotated[int | None, typer.Option(metavar="N", help="Longest axis (8).")] = None,
    max_cells: Annotated[int | None, typer.Option(metavar="N", help="Most cells (64).")] = None,
    description: Annotated[str, typer.Option(metavar="TEXT", help="For people.")] = "",
    budget: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Begin no more searches once N orthos are stored.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Make a corpus. Its limits are fixed from now on."""
    wanted = {"max_axes": max_axes, "max_side": max_side, "max_cells": max_cells}
    limits = {limit: value for limit, value in wanted.items() if value is not None}
    made = _client(context).create_corpus(name, limits=limits, description=description, budget=budget)
    with output():
        _show(made, as_json=as_json)


@corpora.command()
def delete(
    context: typer.Context,
    name: Name,
    confirm: Annotated[str, typer.Option(metavar="NAME", help="The corpus' name, once more.")] = "",
) -> None:
    """Delete a corpus with all that is in it, for good."""
    _client(context).delete_corpus(name, confirm=confirm)


def _client(context: typer.Context) -> Client:
    client = client_of(context)
    if client is None:
        raise WrongCall(problem="these are the corpora of an API: say which with --url or CROCHET_URL")
    return client


def _show(line: CorpusLine, *, as_json: bool) -> None:
    if as_json:
        print_json(line)
        return
    limits = ", ".join(f"{name} {value}" for name, value in line.limits.model_dump().items())
    budget = "" if line.budget is None else f"  budget {line.budget:,}"
    description = f"  {line.description}" if line.description else ""
    typer.echo(f"{line.name}  {limits}{budget}{description}")
