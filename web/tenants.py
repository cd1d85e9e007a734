"""Tenants, for operators of the deployment: make, rename, limit, suspend, delete."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from flask import Response, request

from api import process, security, security_log
from crochet_tasks.access import tenants as service
from crochet_tasks.errors import InvalidRequest, TenantExists, TenantNeeded, TenantNotConfirmed, UsageError
from web import paging
from web.pages import blueprint, show, to

REFUSED = (InvalidRequest, TenantExists, TenantNeeded, TenantNotConfirmed)


@blueprint.get("/console/tenants")
@security.requires("admin", operators=True)
def tenants() -> Response:
    return _listed()


def _listed(name: str = "", problem: str | None = None) -> Response:
    database = process.current().database
    page = paging.numbered(lambda begin, most, newer: service.page(database, begin, most, newer=newer))
    status = HTTPStatus.OK if problem is None else HTTPStatus.UNPROCESSABLE_ENTITY
    named = process.settings().operator_tenant
    return show("tenants.html", status, page=page, filters={}, name=name, problem=problem, operators=named)


@blueprint.post("/console/tenants")
@security.requires("admin", operators=True)
def make_tenant() -> Response:
    name = request.form.get("name", "").strip()
    try:
        service.add(process.current().database, name, security_log.entry("tenant.created", {"name": name}))
    except REFUSED as error:
        return _listed(name, _in_words(error))
    return to("tenants")


@blueprint.get("/console/tenants/<tenant>")
@security.requires("admin", operators=True)
def tenant(tenant: str) -> Response:
    return _one(tenant)


def _one(name: str, problem: str | None = None) -> Response:
    line = service.one(process.current().database, name)
    status = HTTPStatus.OK if problem is None else HTTPStatus.UNPROCESSABLE_ENTITY
    return show("tenant.html", status, line=line, problem=problem)


@blueprint.post("/console/tenants/<tenant>")
@security.requires("admin", operators=True)
def change_tenant(tenant: str) -> Response:
    """Name and limits, or whether it is suspended: each form sends its own fields."""
    current = process.current()
    try:
        changes = _changes(request.form)
        entry = security_log.entry("tenant.changed", {"name": tenant, **changes})
        line = service.change(current.database, process.settings(), tenant, changes, entry)
    except REFUSED as error:
        return _one(tenant, _in_words(error))
    return to("tenant", tenant=line.name)


def _changes(given: Any) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if "name" in given:
        changes["name"] = given["name"].strip()
    if (weight := given.get("weight")) is not None:
        changes["weight"] = _number(weight, "the weight", *service.WEIGHTS)
    for limit, (least, most) in service.LIMITS.items():
        if (value := given.get(limit)) is not None:
            changes[limit] = _number(value, "a limit", least, most, ", or empty") if value.strip() else None
    if given.get("suspended") in ("yes", "no"):
        changes["suspended"] = given["suspended"] == "yes"
    return changes


def _number(given: str, what: str, least: int, most: int, beside: str = "") -> int:
    value = given.strip()
    if not re.fullmatch("[0-9]{1,16}", value, re.ASCII) or not least <= int(value) <= most:
        raise InvalidRequest(problem=f"{what} is a whole number from {least} to {most}{beside}")
    return int(value)


@blueprint.post("/console/tenants/<tenant>/delete")
@security.requires("admin", operators=True)
def delete_tenant(tenant: str) -> Response:
    current, confirmed = process.current(), request.form.get("confirm", "").strip()
    entry = security_log.entry("tenant.deleted", {"name": tenant})
    try:
        service.remove(current.database, process.settings(), tenant, confirmed, entry)
    except REFUSED as error:
        return _one(tenant, _in_words(error))
    return to("tenants")


def _in_words(error: UsageError) -> str:
    problem = str(error.context.get("problem", error))
    return f"{problem[:1].upper()}{problem[1:]}."
