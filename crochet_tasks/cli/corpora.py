"""`crochet corpora`: list, create, change and delete corpora, of the store or of an API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from crochet_tasks.cli.common import (
    Budget,
    Json,
    MaxAxes,
    MaxCells,
    MaxSide,
    State,
    client_of,
    in_store,
    limits_of,
    print_json,
    print_line,
    settings_of,
    whole_number,
)
from crochet_tasks.errors import CorpusUnknown, WrongCall

if TYPE_CHECKING:
    from crochet_tasks.db.process import Process
    from crochet_tasks.schemas.answers import CorpusLine

corpora = typer.Typer(no_args_is_help=True, help="See and change corpora: list, create, set, pause, resume, delete.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The corpus' name.")]
Priority = Annotated[
    int | None,
    whole_number("N", "Each step doubles its share of what its tenant has (a new corpus: 0).", least=-3, most=3),
]
_ALL: Literal["all"] = "all"
Description = Annotated[str | None, typer.Option(metavar="TEXT", help="For people.")]


@corpora.command("list")
def list_corpora(context: typer.Context, state: State = None, *, as_json: Json = False) -> None:
    """List corpora, in the order of their names. With --json, one JSON object per line."""
    if (client := client_of(context, state)) is not None:
        lines: Iterable[CorpusLine] = client.corpora()
    else:
        lines = in_store(state, _listed, [])
    none = True
    for line in lines:
        none = False
        _show(line, as_json=as_json)
    if none and not as_json:
        print_line("There is no corpus yet: 'crochet corpora create NAME' makes one, and so does the first text.")


def _listed(process: Process) -> list[CorpusLine]:
    from crochet_tasks.access import tenancy
    from crochet_tasks.db import corpora as rows

    with process.database.snapshot() as connection:
        return [tenancy.line(corpus) for corpus in rows.every(connection)]


@corpora.command()
def create(
    context: typer.Context,
    name: Name,
    state: State = None,
    max_axes: MaxAxes = None,
    max_side: MaxSide = None,
    max_cells: MaxCells = None,
    description: Description = None,
    budget: Budget = None,
    priority: Priority = None,
    *,
    as_json: Json = False,
) -> None:
    """Make a corpus. Its limits are fixed from now on; its budget is by default CROCHET_DEFAULT_BUDGET.

    On the private database it has none by default: each `crochet run` has its own.
    """
    limits = limits_of(max_axes, max_side, max_cells)
    if (client := client_of(context, state)) is not None:
        given = None if budget is None else budget.most or _ALL
        made = client.create_corpus(
            name, limits=limits, description=description or "", budget=given, priority=priority or 0
        )
    else:
        from crochet_tasks.access import tenancy
        from crochet_tasks.db.corpora import DEFAULT_TENANT, CorpusFields
        from crochet_tasks.embedded import budget as budgets
        from crochet_tasks.embedded import store
        from crochet_tasks.engine.geometry import Limits

        settings = settings_of(state)
        most = budgets.of_new_corpus(settings) if budget is None else budget.most
        fields = CorpusFields(name, description or "", most, priority=priority or 0)
        with store.joined(settings) as process:
            made = tenancy.line(tenancy.create(process, DEFAULT_TENANT, fields, Limits(**limits)))
    _show(made, as_json=as_json)


@corpora.command("set")
def change(
    context: typer.Context,
    name: Name,
    state: State = None,
    description: Description = None,
    budget: Budget = None,
    rename: Annotated[str | None, typer.Option(metavar="NAME", help="Another name.")] = None,
    priority: Priority = None,
    *,
    no_budget: Annotated[bool, typer.Option("--no-budget", help="The same as `--budget all`.")] = False,
    as_json: Json = False,
) -> None:
    """Change the name, description, budget or priority of a corpus.

    A larger budget lets searches go on; limits are fixed. By an API, writers give a priority of up to 1, operators 2,
    administrators 3, and anyone lowers it.
    """
    if no_budget and budget is not None:
        raise WrongCall(problem="give --budget or --no-budget, not both")
    options = {"name": rename, "description": description, "priority": priority}
    changes: dict[str, object] = {field: value for field, value in options.items() if value is not None}
    if budget is not None or no_budget:
        changes["budget"] = None if budget is None else budget.most
    if not changes:
        raise WrongCall(problem="say what to change: --description, --budget, --no-budget, --priority or --rename")
    _show(_changed(context, state, name, changes), as_json=as_json)


def _changed(context: typer.Context, state: State, name: str, changes: dict[str, object]) -> CorpusLine:
    if (client := client_of(context, state)) is not None:
        return client.change_corpus(name, client.corpus(name).tag, **changes).corpus
    from crochet_tasks.access import tenancy
    from crochet_tasks.db.corpora import DEFAULT_TENANT

    return in_store(
        state,
        lambda process: tenancy.line(tenancy.change(process, DEFAULT_TENANT, name, None, changes)),
        CorpusUnknown(corpus=name, known="none"),
    )


@corpora.command()
def pause(context: typer.Context, name: Name, state: State = None, *, as_json: Json = False) -> None:
    """Begin no more work of a corpus. What runs ends; texts are accepted and wait; reads go on."""
    _show(_changed(context, state, name, {"paused": True}), as_json=as_json)


@corpora.command()
def resume(context: typer.Context, name: Name, state: State = None, *, as_json: Json = False) -> None:
    """Let the work of a paused corpus go on."""
    _show(_changed(context, state, name, {"paused": False}), as_json=as_json)


@corpora.command()
def delete(
    context: typer.Context,
    name: Name,
    state: State = None,
    confirm: Annotated[str, typer.Option(metavar="NAME", help="The corpus' name, once more.")] = "",
) -> None:
    """Delete a corpus with all that is in it, for good."""
    if (client := client_of(context, state)) is not None:
        client.delete_corpus(name, confirm=confirm)
        return

    def delete(process: Process) -> None:
        from crochet_tasks.access import tenancy
        from crochet_tasks.db.corpora import DEFAULT_TENANT

        tenancy.remove(process, DEFAULT_TENANT, name, confirm)
        if process.settings.database_url is None:  # else a relay deletes the rows
            while tenancy.sweep(process.database, 1.0):
                pass

    in_store(state, delete, CorpusUnknown(corpus=name, known="none"))


@corpora.command()
def rebuild(
    name: Name, new: Annotated[str, typer.Argument(metavar="NEW", help="Name of the new corpus.")], state: State = None
) -> None:
    """Read the texts of a corpus again, into a new one: for corpora that an older version of crochet has read."""

    def rebuild(process: Process) -> int:
        from crochet_tasks.operate import actions

        return actions.rebuild(process, name, new)

    number = in_store(state, rebuild, CorpusUnknown(corpus=name, known="none"))
    print_line(
        f"{number:,} texts of {name} are to be read into {new}; without a relay, 'crochet run --corpus {new}' does"
    )


def _show(line: CorpusLine, *, as_json: bool) -> None:
    if as_json:
        print_json(line)
        return
    limits = ", ".join(f"{name} {value}" for name, value in line.limits.model_dump().items())
    budget = "" if line.budget is None else f"  budget {line.budget:,}"
    description = f"  {line.description}" if line.description else ""
    paused = "  paused" if line.paused else ""
    priority = f"  priority {line.priority:+}" if line.priority else ""
    print_line(f"{line.name}  {limits}{budget}{priority}{paused}{description}")
