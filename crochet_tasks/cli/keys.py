"""`crochet keys`: manage API keys and show the security log."""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from crochet_tasks.cli.common import Json, number, print_json, print_line, settings_of, whole_number
from crochet_tasks.errors import SettingMissing
from crochet_tasks.terminal.streams import note

if TYPE_CHECKING:
    from crochet_tasks.access.keys import NewKey
    from crochet_tasks.db.sessions import Database
    from crochet_tasks.schemas.reports import KeyLine, SecurityLine
    from crochet_tasks.settings import Settings

keys = typer.Typer(
    no_args_is_help=True, help="See and change who may use the API: create, list, rotate, revoke; and what was done."
)


class Scope(enum.StrEnum):
    """As keys.SCOPES, which `--help` does not wait for."""

    READ = "read"
    WRITE = "write"
    OPERATE = "operate"
    ADMIN = "admin"


class Tier(enum.StrEnum):
    STANDARD = "standard"
    HIGH = "high"


Key = Annotated[str, typer.Argument(metavar="KEY", help="The key's prefix, as `crochet keys list` shows it.")]


@keys.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="For people: whose it is, or what it is for.")],
    scope: Annotated[
        Scope, typer.Option(help="What may be done with it; each scope includes those before it.")
    ] = Scope.READ,
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose corpora.")] = "default",
    tier: Annotated[Tier, typer.Option(help="Which limit of requests applies.")] = Tier.STANDARD,
    corpus: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this corpus; may be repeated. All without it.")
    ] = None,
    days: Annotated[float | None, number("N", "After which it ends; never by default.", least=0, most=36_500)] = None,
    *,
    new_tenant: Annotated[bool, typer.Option("--new-tenant", help="Make the tenant, if there is none.")] = False,
    as_json: Json = False,
) -> None:
    """Make a key. It is printed on standard output, once, and cannot be shown again."""
    from crochet_tasks.access import keys as service

    request = service.KeySpec(name, (scope.value,), tenant, tier.value, days, tuple(corpus or ()))
    with deployment() as (database, _):
        made = service.create(database, request, new_tenant=new_tenant)
    _show(made, as_json=as_json)


@keys.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this tenant.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """List keys, also those that have ended, without their secrets."""
    from crochet_tasks.access import keys as service
    from crochet_tasks.schemas.reports import KeyList

    with deployment() as (database, _):
        found = service.listed(database, tenant)
    if as_json:
        print_json(KeyList(keys=found))
    for line in () if as_json else found:
        print_line(_key_line(line))


@keys.command()
def rotate(
    key: Key,
    grace: Annotated[float, number("SECONDS", "How long the old one is still good.", least=0, most=2_592_000)] = 0.0,
    *,
    as_json: Json = False,
) -> None:
    """Make a key in place of another one, with the same scopes."""
    from crochet_tasks.access import keys as service

    with deployment() as (database, _):
        made = service.rotate(database, key, grace)
    _show(made, as_json=as_json)


@keys.command()
def revoke(key: Key, *, as_json: Json = False) -> None:
    """End a key, now: the next request with it is refused, and so are the tokens that it was exchanged for."""
    from crochet_tasks.access import keys as service

    with deployment() as (database, _):
        line = service.revoke(database, key)
    if as_json:
        print_json(line)
    else:
        print_line(_key_line(line))


@keys.command("reset-second-factor")
def reset_second_factor(key: Key, *, as_json: Json = False) -> None:
    """Take the second factor of a key away: its holder has lost the phone and the recovery codes."""
    from crochet_tasks.access import keys as service

    with deployment() as (database, _):
        line = service.reset_second_factor(database, key)
    if as_json:
        print_json(line)
    else:
        print_line(_key_line(line))


@keys.command()
def log(
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Only of this key, or of who claimed to have it.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this tenant.")] = None,
    since: Annotated[dt.datetime | None, typer.Option(metavar="TIME", help="Only from then on, in UTC.")] = None,
    limit: Annotated[int, whole_number("N", "The newest N lines.", least=1, most=100_000)] = 100,
    *,
    as_json: Json = False,
) -> None:
    """Show the security log, oldest first: keys made, first used and ended, what was done and refused."""
    from crochet_tasks.access import keys as service
    from crochet_tasks.schemas.reports import SecurityLog

    after = None if since is None else since.replace(tzinfo=dt.UTC)
    with deployment() as (database, _):
        found = service.log(database, limit, key=key, tenant=tenant, since=after)
    if as_json:
        print_json(SecurityLog(lines=found))
    for line in () if as_json else found:
        print_line(_log_line(line))


def _log_line(line: SecurityLine) -> str:
    """Values that came with requests are quoted and escaped as JSON."""
    values = {"address": line.address, "request": line.request, **(line.details or {})}
    about = " ".join(f"{name}={json.dumps(value)}" for name, value in values.items() if value is not None)
    return f"{line.at:%Y-%m-%d %H:%M:%S}  {line.what}  {line.tenant or '-'}  {line.key or '-'}  {about}"


def _show(made: NewKey, *, as_json: bool) -> None:
    from crochet_tasks.schemas.reports import KeyMade

    if as_json:
        print_json(KeyMade(key=made.key, line=made.line))
    else:
        print_line(made.key)
    note(f"key {made.line.key} of tenant {made.line.tenant}; store it now: it cannot be shown again")


def _key_line(line: KeyLine) -> str:
    used = "never used" if line.last_used_at is None else f"used {line.last_used_at:%Y-%m-%d %H:%M}"
    ends = "" if line.expires_at is None else f"  until {line.expires_at:%Y-%m-%d %H:%M}"
    scopes = ",".join(line.scopes) + ("" if line.corpora is None else f" of {','.join(line.corpora) or 'none'}")
    return f"{line.key}  {line.state}  {line.tenant}  {scopes}  {line.tier}  {used}{ends}  {line.name}"


@contextlib.contextmanager
def deployment() -> Iterator[tuple[Database, Settings]]:
    """The database of the deployment, and the settings. Raises SettingMissing, and what schema.check does."""
    from crochet_tasks.db import schema
    from crochet_tasks.db.sessions import Database

    settings = settings_of(None)
    if settings.database_url is None:
        raise SettingMissing(variable="CROCHET_DATABASE_URL", needed_for="keys are kept in the API's database")
    database = Database(settings.database_url.get_secret_value(), settings)
    try:
        schema.check(database)
        yield database, settings
    finally:
        database.close()
