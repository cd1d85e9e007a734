"""Keys, tenants and the security log, as the commands and the API show them."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from crochet_tasks.schemas.reports import Answer


class KeyLine(Answer):
    """An API key, without its secret, which is not stored."""

    key: str
    """its prefix: what `crochet keys` takes and logs show"""
    tenant: str
    name: str
    scopes: list[str]
    person: bool
    """somebody who logs in by OpenID Connect: nobody holds a key"""
    corpora: list[str] | None
    """names of those that it is limited to; None: all of its tenant"""
    tier: str
    state: Literal["good", "revoked", "expired", "rotated"]
    created_at: dt.datetime
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None
    last_used_at: dt.datetime | None
    """to the minute"""
    rotated_at: dt.datetime | None


class TenantLine(Answer):
    """A tenant. Null: corpora and rate are limited as the settings say, and of the rest there may be any number."""

    number: int
    """what metrics and the audit call it"""
    name: str
    created_at: dt.datetime
    suspended: bool
    max_corpora: int | None
    rate: int | None
    """requests of a key in a minute"""
    weight: int
    """its share of the workers, where others have work, too"""
    max_searches: int | None
    """that are published at the same time"""
    max_orthos: int | None
    """after which no more are searched for"""
    max_texts: int | None
    """that are kept, in any state"""
    max_bytes: int | None
    """of the texts that are kept"""
    full: bool
    """it has as many orthos as it may have: its searches are held"""
    corpora: int
    keys: int
    """those that are good"""


class TenantUse(TenantLine):
    """A tenant, and how much of its quotas it uses."""

    orthos: int
    texts: int
    bytes: int
    """of its texts"""


class KeyList(Answer):
    keys: list[KeyLine]


class KeyMade(Answer):
    """The outcome of `crochet keys create` and `rotate` with --json: the only time that the key itself is shown."""

    key: str
    line: KeyLine


class SecurityLine(Answer):
    """What was done with a key, or refused."""

    at: dt.datetime
    what: str
    """`key.created`, `key.first_used`, `corpus.deleted`, `refused.forbidden`, ..."""
    tenant: str | None
    key: str | None
    """its prefix; null if the request had no key, or no valid one"""
    address: str | None
    request: str | None
    """its id, as in the server's log"""
    who: str
    """user of the database that wrote the line"""
    details: dict[str, Any] | None


class SecurityLog(Answer):
    """The outcome of `crochet keys log` with --json, oldest first."""

    lines: list[SecurityLine]


class Tokens(Answer):
    """What a key or a refresh token was exchanged for."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - that is its type
    expires_in: int
    """seconds for which the access token is valid"""
    refresh_token: str
    """valid once, for 30 days since the key was exchanged"""
    scopes: list[str]
