"""A user per kind of service on the test servers, as `crochet roles` makes them, and the addresses of each."""

from __future__ import annotations

import re
from collections.abc import Mapping

from crochet_tasks.broker import permissions
from crochet_tasks.db import privileges
from crochet_tasks.db.process import open_process
from crochet_tasks.settings import Settings
from crochet_tasks.settings.field_types import ROLES

PASSWORDS = {kind: f"password-of-{kind}" for kind in ROLES}


def make_in_postgres(owner: str, passwords: Mapping[str, str] = PASSWORDS) -> None:
    with (
        open_process(Settings.load(database_url=owner), owner) as process,
        process.database.transaction() as connection,
    ):
        privileges.make(connection, {kind: passwords[kind] for kind in privileges.KINDS if kind in passwords})
        privileges.grant(connection)


def make_in_rabbitmq(vhost: str, api: str, passwords: Mapping[str, str] = PASSWORDS) -> None:
    permissions.make(Settings.load(broker_url=vhost, broker_api_url=api), passwords)


def postgres(owner: str, kind: str, password: str | None = None) -> str:
    """The address of the same database for this kind."""
    return _as(owner, f"{owner.rpartition('/')[2]}_{kind}", password or PASSWORDS[kind])


def rabbitmq(vhost: str, kind: str, password: str | None = None) -> str:
    return _as(vhost, f"{vhost.rpartition('/')[2]}_{kind}", password or PASSWORDS[kind])


def _as(url: str, user: str, password: str) -> str:
    return re.sub(r"//[^@]*@", f"//{user}:{password}@", url)
