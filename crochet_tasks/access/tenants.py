"""Tenants: make, list, rename, limit, suspend, delete. For operators of the deployment."""

from __future__ import annotations

import re
from typing import Any

from crochet_tasks.db import (
    Connection,
    IntegrityError,
    UniqueViolation,
    access,
    corpora,
    publishing,
    quotas,
    removal,
    tenants,
)
from crochet_tasks.db.access import Entry
from crochet_tasks.db.corpora import Lock
from crochet_tasks.db.sessions import Database
from crochet_tasks.db.tenants import TenantRow
from crochet_tasks.errors import InvalidRequest, TenantExists, TenantNeeded, TenantNotConfirmed
from crochet_tasks.schemas.access import TenantLine, TenantUse
from crochet_tasks.schemas.names import NAME
from crochet_tasks.settings import Settings

DEFAULT_NAME = "default"
"""of the tenant of the command line"""
LIMITS = {
    "max_corpora": (0, 1_000_000),
    "rate": (1, 1_000_000_000),
    "max_searches": (1, 10_000),
    "max_orthos": (1, 2**53 - 1),
    "max_texts": (0, 1_000_000_000),
    "max_bytes": (0, 2**53 - 1),
}
"""each with its smallest and its largest value"""
WEIGHTS = (1, 100)
CHANGEABLE = ("name", "weight", *LIMITS, "suspended")


def line(row: TenantRow) -> TenantLine:
    """The tenant as answers show it."""
    facts = {name: value for name, value in row._asdict().items() if name in TenantLine.model_fields}
    return TenantLine(number=row.id, **facts, suspended=row.suspended_at is not None, full=row.full_at is not None)


def page(database: Database, begin: int | None, most: int, *, newer: bool = False) -> list[tuple[int, TenantLine]]:
    """The newest tenants and their numbers, as db.tenants.page."""
    with database.snapshot() as connection:
        return [(row.id, line(row)) for row in tenants.page(connection, begin, most, newer=newer)]


def one(database: Database, name: str) -> TenantUse:
    """Raises TenantUnknown."""
    with database.snapshot() as connection:
        row = tenants.one(connection, tenants.number(connection, name))
        return TenantUse(**line(row).model_dump(), **quotas.used(connection, row.id)._asdict())


def add(database: Database, name: str, entry: Entry) -> TenantLine:
    """A new tenant, without corpora and keys. Raises InvalidRequest for a name that none can have, and TenantExists."""
    with database.transaction() as connection:
        number = made(connection, name, entry)
        if number is None:
            raise TenantExists(tenant=name)
        return line(tenants.one(connection, number))


def made(connection: Connection, name: str, entry: Entry) -> int | None:
    """The number of a new tenant; None where there is one of that name. Raises InvalidRequest, as `add`."""
    _check_name(name)
    number = tenants.add(connection, name)
    if number is not None:
        access.add_log_entry(connection, entry)
    return number


def change(database: Database, settings: Settings, name: str, changes: dict[str, Any], entry: Entry) -> TenantLine:
    """Change what is given of CHANGEABLE; a limit of None is that of the settings, or none.

    Where the quota of orthos changes, searches are held or go on. While a tenant is suspended its keys and tokens are
    refused at once, and its corpora are paused: work that runs ends, nothing is lost, and what the suspension paused
    goes on with its end. Raises TenantUnknown, TenantExists, InvalidRequest, and TenantNeeded for the tenants of the
    command line and of the operators.
    """
    suspended, values = changes.get("suspended"), {key: changes[key] for key in CHANGEABLE[:-1] if key in changes}
    if "name" in values:
        _check_name(values["name"])
    if suspended or values.get("name", name) != name:
        _check_free(settings, name)
    try:
        with database.transaction() as connection:
            number = tenants.number(connection, name, lock=True)
            was = tenants.one(connection, number).suspended_at is not None
            if values:
                tenants.change(connection, number, values)
            if "max_orthos" in values:
                publishing.hold_searches(connection)
            if suspended and not was:
                tenants.suspend(connection, number)
            if suspended is False and was:
                for corpus in tenants.resume(connection, number):
                    publishing.release_all(connection, corpus)
            access.add_log_entry(connection, entry)
            return line(tenants.one(connection, number))
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation):
            raise TenantExists(tenant=values["name"]) from error
        raise


def remove(database: Database, settings: Settings, name: str, confirmed: str | None, entry: Entry) -> None:
    """Delete a tenant with all its corpora, for good. Its keys are revoked, the sessions of its people end, and its
    name is free at once.

    The rows of its corpora are deleted in the background, as those of any deleted corpus. Audit and security log keep
    their lines for as long as they keep others'. Raises TenantUnknown, TenantNeeded, and TenantNotConfirmed unless
    `confirmed` is its name.
    """
    _check_free(settings, name)
    with database.transaction() as connection:
        number = tenants.number(connection, name, lock=True)  # no key or corpus is made for it meanwhile
        if confirmed != name:
            raise TenantNotConfirmed(tenant=name)
        for corpus in sorted(corpus.id for corpus in corpora.every(connection, number)):
            corpora.take_lock(connection, corpus, Lock.ACCEPTANCE)
            removal.hide(connection, corpus)
        tenants.end_keys(connection, number)
        tenants.hide(connection, number)
        access.add_log_entry(connection, entry)


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME, name):
        of = "1 to 100 ASCII letters, digits, '.', '_', '-', and begins with a letter or digit"
        raise InvalidRequest(problem=f"a tenant's name has {of}")


def _check_free(settings: Settings, name: str) -> None:
    """Nobody locks themselves out."""
    if name in (DEFAULT_NAME, settings.operator_tenant):
        raise TenantNeeded(tenant=name)
