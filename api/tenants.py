"""Tenants, for operators of the deployment (docs/adr/0045)."""

from __future__ import annotations

from flask import Response
from flask_openapi.models import RequestBody

from api import form, process, resources, responses, security, security_log
from api.bodies import NewTenant, TenantPatch
from api.form import MERGE_PATCH
from api.openapi import NOT_MODIFIED, errors
from api.parameters import ConfirmQuery, PageQuery, TenantPath
from api.responses import Answered
from api.routes import Routes
from crochet_tasks.access import tenants
from crochet_tasks.errors import (
    InvalidCursor,
    OperatorNeeded,
    TenantExists,
    TenantNeeded,
    TenantNotConfirmed,
    TenantUnknown,
    WrongContentType,
)
from crochet_tasks.query.cursor import opened, sealed
from crochet_tasks.schemas.access import TenantLine, TenantUse
from crochet_tasks.schemas.answers import TenantPage

api = Routes("tenants", "/v1/tenants")


@api.get(
    "",
    responses={200: TenantPage, **NOT_MODIFIED, **errors(InvalidCursor, OperatorNeeded, of_corpus=False)},
    operation_id="listTenants",
)
@security.requires("admin", operators=True)
def every(query: PageQuery) -> Answered:
    """All tenants, newest first."""
    secret = resources.cursor_secret()
    begin = None if query.cursor is None else int(opened(secret, ["tenants"], query.cursor))
    found = tenants.page(process.current().database, begin, query.limit + 1)
    page, more = found[: query.limit], len(found) > query.limit
    following = sealed(secret, ["tenants"], str(page[-1][0]).encode()) if more else None
    return responses.tagged(TenantPage(tenants=[line for _, line in page], next_cursor=following))


@api.post(
    "",
    responses={201: TenantLine, **errors(OperatorNeeded, TenantExists, of_corpus=False)},
    operation_id="createTenant",
)
@security.requires("admin", operators=True)
def create(body: NewTenant) -> Answered:
    """Make a tenant, without corpora and keys: make a key for it next."""
    entry = security_log.entry("tenant.created", {"name": body.name})
    return responses.json(tenants.add(process.current().database, body.name, entry), 201)


@api.get(
    "/<tenant>",
    responses={200: TenantUse, **NOT_MODIFIED, **errors(OperatorNeeded, TenantUnknown, of_corpus=False)},
    operation_id="getTenant",
)
@security.requires("admin", operators=True)
def one(path: TenantPath) -> Answered:
    """A tenant, with its weight, its limits and quotas, and how much of them it uses."""
    return responses.tagged(tenants.one(process.current().database, path.tenant))


@api.patch(
    "/<tenant>",
    request_body=RequestBody(
        content={MERGE_PATCH: {"schema": {"$ref": "#/components/schemas/TenantPatch"}}},  # type: ignore[dict-item]
        required=True,
    ),
    responses={
        200: TenantLine,
        **errors(OperatorNeeded, TenantExists, TenantNeeded, TenantUnknown, WrongContentType, of_corpus=False),
    },
    operation_id="changeTenant",
)
@security.requires("admin", operators=True)
@form.accepts(form.Accepts((MERGE_PATCH,)))
def change(path: TenantPath, body: TenantPatch) -> Answered:
    """Rename a tenant, change its weight, limits and quotas, suspend it or end that.

    What it has above a quota stays: no more is accepted, and searches are held until less is there. While it is
    suspended its keys and tokens are refused and its corpora are paused; nothing is lost.
    """
    changes = body.model_dump(exclude_unset=True)
    entry = security_log.entry("tenant.changed", {"name": path.tenant, **changes})
    current = process.current()
    return responses.json(tenants.change(current.database, process.settings(), path.tenant, changes, entry))


@api.delete(
    "/<tenant>",
    responses={
        204: None,
        **errors(OperatorNeeded, TenantNeeded, TenantNotConfirmed, TenantUnknown, of_corpus=False),
    },
    operation_id="deleteTenant",
)
@security.requires("admin", operators=True)
def delete(path: TenantPath, query: ConfirmQuery) -> Answered:
    """Delete a tenant with all its corpora, for good. Its keys end at once; rows are deleted in the background."""
    entry = security_log.entry("tenant.deleted", {"name": path.tenant})
    current = process.current()
    tenants.remove(current.database, process.settings(), path.tenant, query.confirm, entry)
    return Response(status=204)
