"""`crochet tenants`: whose corpora and keys there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from crochet_tasks.cli.common import Json, print_json, print_line, whole_number
from crochet_tasks.cli.keys import deployment
from crochet_tasks.errors import WrongCall
from crochet_tasks.terminal.streams import note

if TYPE_CHECKING:
    from crochet_tasks.schemas.access import TenantLine

tenants = typer.Typer(
    no_args_is_help=True, help="See and change tenants: list, show, create, set, suspend, resume, delete."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The tenant's name.")]
_DEFAULT = "default"
_NONE = "'default': any number"


@tenants.command("list")
def list_tenants(*, as_json: Json = False) -> None:
    """List tenants, newest first. With --json, one JSON object per line."""
    from crochet_tasks.access import tenants as service

    with deployment() as (database, _):
        for _, line in service.page(database, None, 100_000):
            _show(line, as_json=as_json)


@tenants.command()
def show(name: Name, *, as_json: Json = False) -> None:
    """Show a tenant, with how much it uses of its quotas."""
    from crochet_tasks.access import tenants as service
    from crochet_tasks.terminal.numbers import size

    with deployment() as (database, _):
        line = service.one(database, name)
    _show(line, as_json=as_json)
    if not as_json:
        print_line(f"number: {line.number}, in metrics and the audit")
        held = "; its searches are held" if line.full else ""
        used = [("orthos", f"{line.orthos:,}", line.max_orthos, f"{line.max_orthos or 0:,}{held}")]
        used.append(("texts", f"{line.texts:,}", line.max_texts, f"{line.max_texts or 0:,}"))
        used.append(("bytes of texts", size(line.bytes), line.max_bytes, size(line.max_bytes or 0)))
        for what, number, quota, most in used:
            print_line(f"{what}: {number}" + ("" if quota is None else f" of {most}"))


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
    weight: Annotated[
        int | None,
        whole_number(
            "N", "Its share of the workers, where others have work, too (a new tenant: 1).", least=1, most=100
        ),
    ] = None,
    max_searches: Annotated[
        str | None, typer.Option(metavar="N", help=f"Searches that are published at the same time; {_NONE}.")
    ] = None,
    max_orthos: Annotated[
        str | None, typer.Option(metavar="N", help=f"Orthos after which no more are searched for; {_NONE}.")
    ] = None,
    max_texts: Annotated[
        str | None, typer.Option(metavar="N", help=f"Texts that are kept, in any state; {_NONE}.")
    ] = None,
    max_bytes: Annotated[str | None, typer.Option(metavar="N", help=f"Bytes of these texts; {_NONE}.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Change the name, the weight, the limits or the quotas of a tenant."""
    limits = {"max_corpora": max_corpora, "rate": rate, "max_searches": max_searches}
    limits |= {"max_orthos": max_orthos, "max_texts": max_texts, "max_bytes": max_bytes}
    changes: dict[str, Any] = {"name": rename, "weight": weight}
    changes = {key: value for key, value in changes.items() if value is not None}
    changes |= {key: _limit(key, value) for key, value in limits.items() if value is not None}
    _change(name, changes, as_json=as_json)


def _limit(limit: str, value: str) -> int | None:
    from crochet_tasks.access.tenants import LIMITS

    if value == _DEFAULT:
        return None
    least, most = LIMITS[limit]
    if not (value.isascii() and value.isdecimal() and len(value) < 20 and least <= int(value) <= most):
        option = limit.replace("_", "-")
        raise WrongCall(problem=f"--{option}: a whole number from {least} to {most}, or '{_DEFAULT}'")
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
    weight = "" if line.weight == 1 else f"  weight {line.weight}"
    searches = "" if line.max_searches is None else f"  {line.max_searches} searches at once"
    print_line(
        f"{line.name}  {state}  {line.corpora} corpora (most {most})  {line.keys} keys (rate {rate}){weight}{searches}"
    )
