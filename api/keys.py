"""API keys: list, make, rotate, revoke. The only answers that hold a key are those that make it."""

from __future__ import annotations

from api import process, resources, responses, security, security_log
from api.bodies import KeyRotation, NewKey
from api.openapi import NOT_MODIFIED, errors
from api.parameters import KeyPath, KeysQuery
from api.responses import Answered
from api.routes import Routes
from crochet_tasks.access import keys
from crochet_tasks.access.keys import KeySpec
from crochet_tasks.db import tenants
from crochet_tasks.errors import CorpusUnknown, InvalidCursor, KeyEnded, KeyUnknown, OperatorNeeded, TenantUnknown
from crochet_tasks.query.cursor import opened, sealed
from crochet_tasks.schemas.access import KeyLine, KeyMade
from crochet_tasks.schemas.answers import KeyPage

api = Routes("keys", "/v1/keys")


def _of(name: str | None) -> int:
    """The number of the tenant that is asked for, the caller's without a name. Raises OperatorNeeded, TenantUnknown."""
    if name is None:
        return security.caller().tenant
    with process.current().database.snapshot() as connection:
        if name != tenants.name(connection, security.caller().tenant):
            security.check_operator()
        return tenants.number(connection, name)


@api.get(
    "",
    responses={200: KeyPage, **NOT_MODIFIED, **errors(InvalidCursor, OperatorNeeded, TenantUnknown, of_corpus=False)},
    operation_id="listKeys",
)
@security.requires("admin")
def every(query: KeysQuery) -> Answered:
    """Keys without their secrets, newest first, also those that have ended."""
    tenant, secret = _of(query.tenant), resources.cursor_secret()
    begin = None if query.cursor is None else int(opened(secret, ["keys", tenant], query.cursor))
    found = keys.page(process.current().database, tenant, begin, query.limit + 1)
    page, more = found[: query.limit], len(found) > query.limit
    following = sealed(secret, ["keys", tenant], str(page[-1][0]).encode()) if more else None
    return responses.tagged(KeyPage(keys=[line for _, line in page], next_cursor=following))


@api.post(
    "",
    responses={201: KeyMade, **errors(CorpusUnknown, OperatorNeeded, TenantUnknown, of_corpus=False)},
    operation_id="createKey",
)
@security.requires("admin")
def create(body: NewKey) -> Answered:
    """Make a key. It cannot be shown again. Limited to corpora it may use what names one of them, and lists of them."""
    database = process.current().database
    with database.snapshot() as connection:
        tenant = tenants.name(connection, _of(body.tenant))
    spec = KeySpec(body.name, (body.scope,), tenant, days=body.days, corpora=tuple(body.corpora))
    made = keys.create(database, spec, by=security_log.entry("key.created"))
    return responses.json(KeyMade(key=made.key, line=made.line), 201)


@api.post(
    "/<key>/rotate",
    responses={201: KeyMade, **errors(KeyUnknown, KeyEnded, of_corpus=False)},
    operation_id="rotateKey",
)
@security.requires("admin")
def rotate(path: KeyPath, body: KeyRotation) -> Answered:
    """Make a key in place of another one, which may do the same; the old one ends after `grace` seconds."""
    entry = security_log.entry("key.rotated")
    made = keys.rotate(process.current().database, path.key, body.grace, tenant=security.tenants(), by=entry)
    return responses.json(KeyMade(key=made.key, line=made.line), 201)


@api.delete(
    "/<key>/second-factor",
    responses={200: KeyLine, **errors(KeyUnknown, KeyEnded, of_corpus=False)},
    operation_id="resetSecondFactor",
)
@security.requires("admin")
def reset(path: KeyPath) -> Answered:
    """Take the second factor of a key away: its holder has lost it."""
    entry, database = security_log.entry("second_factor"), process.current().database
    return responses.json(keys.reset_second_factor(database, path.key, tenant=security.tenants(), by=entry))


@api.post(
    "/<key>/revoke",
    responses={200: KeyLine, **errors(KeyUnknown, KeyEnded, of_corpus=False)},
    operation_id="revokeKey",
)
@security.requires("admin")
def revoke(path: KeyPath) -> Answered:
    """End a key, now: the next request with it, or with a token for it, is refused."""
    entry = security_log.entry("key.revoked")
    return responses.json(keys.revoke(process.current().database, path.key, tenant=security.tenants(), by=entry))
