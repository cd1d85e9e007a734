"""`crochet tenants`: whose corpora and keys there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from crochet_tasks.cli.common import Json, print_json, print_line
from crochet_tasks.cli.keys import deployment
from crochet_tasks.errors import WrongCall
from crochet_tasks.terminal.streams import note

if TYPE_CHECKING:
    from crochet_tasks.schemas.reports import TenantLine

tenants = typer.Typer(no_args_is_help=True, help="See and change tenants: list, create, set, suspend, resume, delete.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The tenant's name.")]
_DEFAULT = "default"


@tenants.command("list")
def list_tenants(*, as_json: Json = False) -> None:
    """List tenants, newest first. With --json, one JSON object per line."""
    from crochet_tasks.access import tenants as service

    with deployment() as (database, _):
        for _, line in service.page(database, None, 100_000):
            _show(line, as_json=as_json)


@tenants.command()
def create(name: Name, *, as_json: Json = False) -> None:
    """Make a tenant, without corpora and keys."""
    from crochet_tasks.access import tenants as service
    from crochet_tasks.db.access import Entry

    with deployment() as (database, _):
        _show(service.add(database, name, Entry("tenant.created", details={"name": name})), as_json=as_json)


@tenants.command("set")
def change(
    name: Name,
    rename: Annotated[str | None, typer.Option(metavar="NAME", help="Another name.")] = None,
    max_corpora: Annotated[
        str | None, typer.Option(metavar="N", help="How many corpora it may have; 'default': CROCHET_MAX_CORPORA.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="N", help="Requests of a key in a minute; 'default': that of the key's tier.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Change the name or the limits of a tenant."""
    given = {"name": rename, "max_corpora": _limit("max-corpora", max_corpora, 0), "rate": _limit("rate", rate, 1)}
    changes = {key: None if value == _DEFAULT else value for key, value in given.items() if value is not None}
    _change(name, changes, as_json=as_json)


def _limit(option: str, value: str | None, least: int) -> int | str | None:
    if value is None or value == _DEFAULT:
        return value
    if not value.isdecimal() or not least <= int(value) < 2**31:
        raise WrongCall(problem=f"--{option}: a whole number from {least} on, or '{_DEFAULT}'")
    return int(value)


@tenants.command()
def suspend(name: Name, *, as_json: Json = False) -> None:
    """Refuse the keys and tokens of a tenant from now on, and pause its corpora. Nothing is lost."""
    _change(name, {"suspended": True}, as_json=as_json)


@tenants.command()
def resume(name: Name, *, as_json: Json = False) -> None:
    """End a suspension. What it paused goes on; corpora that were paused before stay so."""
    _change(name, {"suspended": False}, as_json=as_json)


def _change(name: str, changes: dict[str, Any], *, as_json: bool) -> None:
    from crochet_tasks.access import tenants as service
    from crochet_tasks.db.access import Entry

    entry = Entry("tenant.changed", details={"name": name, **changes})
    with deployment() as (database, settings):
        _show(service.change(database, settings, name, changes, entry), as_json=as_json)


@tenants.command()
def delete(
    name: Name,
    confirm: Annotated[str | None, typer.Option(metavar="NAME", help="The tenant's name, once more.")] = None,
) -> None:
    """Delete a tenant with all its corpora, for good. Its keys end at once."""
    from crochet_tasks.access import tenants as service
    from crochet_tasks.db.access import Entry

    with deployment() as (database, settings):
        service.remove(database, settings, name, confirm, Entry("tenant.deleted", details={"name": name}))
    note(f"tenant {name} is gone; the relay deletes the rows of its corpora")


def _show(line: TenantLine, *, as_json: bool) -> None:
    if as_json:
        print_json(line)
        return
    state = "suspended" if line.suspended else "good"
    most = "default" if line.max_corpora is None else line.max_corpora
    rate = "default" if line.rate is None else line.rate
    print_line(f"{line.name}  {state}  {line.corpora} corpora (most {most})  {line.keys} keys (rate {rate})")
