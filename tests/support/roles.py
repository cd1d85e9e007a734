"""A user per kind of service on the test servers, as `crochet roles` makes them, and the addresses of each."""

from __future__ import annotations

import re
from collections.abc import Mapping

import redis
import yaml

from crochet_tasks.broker import permissions
from crochet_tasks.db import privileges
from crochet_tasks.db.process import open_process
from crochet_tasks.settings import Settings
from crochet_tasks.settings.field_types import ROLES
from tests.support.paths import ROOT

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


def make_in_redis(url: str, passwords: Mapping[str, str] = PASSWORDS) -> None:
    """The users of docker-compose.yml, beside the one of this address."""
    command = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["redis"]["command"]
    filled = [re.sub(r"\$\{(\w+)_PASSWORD.*\}", lambda of: passwords[of[1].lower()], word) for word in command]
    with redis.Redis.from_url(url) as server:
        for user in " ".join(filled).split(" --user ")[1:]:
            if not user.startswith("default "):
                server.execute_command("ACL", "SETUSER", user.split()[0], "reset", *user.split()[1:])


def redis_url(url: str, kind: str) -> str:
    return _as(url, f"crochet_{kind}", PASSWORDS[kind])


def postgres(owner: str, kind: str, password: str | None = None) -> str:
    """The address of the same database for this kind."""
    return _as(owner, f"{owner.rpartition('/')[2]}_{kind}", password or PASSWORDS[kind])


def rabbitmq(vhost: str, kind: str, password: str | None = None) -> str:
    return _as(vhost, f"{vhost.rpartition('/')[2]}_{kind}", password or PASSWORDS[kind])


def _as(url: str, user: str, password: str) -> str:
    return re.sub(r"//[^@]*@", f"//{user}:{password}@", url)
