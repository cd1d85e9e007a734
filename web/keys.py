"""Keys: make, rotate, revoke; a new one is shown once."""

from __future__ import annotations

import re
import secrets
from http import HTTPStatus

from flask import Response, request

from api import process, security, security_log
from crochet_tasks.access import keys as service
from crochet_tasks.access.keys import SCOPES, KeySpec, NewKey, Tier
from crochet_tasks.db import tenants
from crochet_tasks.errors import CorpusUnknown, InvalidRequest, KeyMadeAlready, TenantUnknown
from web import paging
from web.pages import asked_tenant, blueprint, operates, reach, show

MOST_DAYS = 36_500
GRACES = {"0": "now", "3600": "in an hour", "86400": "in a day", "604800": "in a week"}
"""seconds for which a key that is rotated is still good"""


@blueprint.get("/console/keys")
@security.requires("admin")
def keys() -> Response:
    return _listed({"scope": "read"})


def _listed(given: dict[str, str], problem: str | None = None) -> Response:
    database = process.current().database
    tenant, filters = asked_tenant()
    page = paging.numbered(lambda begin, most, newer: service.page(database, tenant, begin, most, newer=newer))
    with database.snapshot() as connection:
        own = tenants.name(connection, security.caller().tenant)
    status = HTTPStatus.OK if problem is None else HTTPStatus.UNPROCESSABLE_ENTITY
    return show(
        "keys.html",
        status,
        page=page,
        filters=filters,
        given={"tenant": filters.get("tenant", own), **given},
        problem=problem,
        scopes=SCOPES,
        once=secrets.token_urlsafe(16),
    )


@blueprint.post("/console/keys")
@security.requires("admin")
def make_key() -> Response:
    """Of the own tenant; operators choose the tenant, and the limit of requests."""
    given = {name: value.strip() for name, value in request.form.items() if name not in ("csrf_token", "once")}
    database = process.current().database
    try:
        spec = _spec(given)
        if not operates():
            with database.snapshot() as connection:
                own = tenants.name(connection, security.caller().tenant)
            spec = spec._replace(tenant=own, tier="standard")
        made = service.create(database, spec, by=security_log.entry("key.created"), once=_once())
    except KeyMadeAlready as error:
        return show(
            "key_sent_twice.html", HTTPStatus.CONFLICT, line=service.one(database, str(error.context["key"]), reach())
        )
    except (CorpusUnknown, InvalidRequest, TenantUnknown) as error:
        problem = str(error.context.get("problem", error))
        return _listed(given, f"{problem[:1].upper()}{problem[1:]}.")
    return _shown(made)


def _once() -> str | None:
    """The word that was made for this form, and the session that sent it: a form makes one key, however often it is
    sent.
    """
    word = request.form.get("once", "")
    return f"{word} of {security.caller().key}" if word else None


def _spec(given: dict[str, str]) -> KeySpec:
    """Raises InvalidRequest."""
    scope, days = given.get("scope"), given.get("days") or "0"
    if scope not in SCOPES:
        raise InvalidRequest(problem="choose what the key may do")
    if not re.fullmatch("[0-9]{1,5}", days, re.ASCII) or int(days) > MOST_DAYS:
        raise InvalidRequest(problem=f"days are a whole number, at most {MOST_DAYS}")
    tier: Tier = "high" if given.get("tier") == "high" else "standard"
    only = tuple(dict.fromkeys(given.get("corpora", "").replace(",", " ").split()))
    return KeySpec(given.get("name", ""), (scope,), given.get("tenant", ""), tier, int(days) or None, only)


def _shown(made: NewKey) -> Response:
    """The only time that a key is shown: no cache keeps this page."""
    response = show("key_made.html", made=made)
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/console/keys/<key>/<any(rotate,revoke):act>")
@security.requires("admin")
def end_key(key: str, act: str) -> Response:
    """What it touches. Nothing is changed here."""
    line = service.one(process.current().database, key, reach())
    mine = line.key == security.caller().key
    return show("key_end.html", line=line, act=act, mine=mine, graces=GRACES)


@blueprint.post("/console/keys/<key>/rotate")
@security.requires("admin")
def rotate_key(key: str) -> Response:
    grace = request.form.get("grace", "0")
    if grace not in GRACES:
        raise InvalidRequest(problem="choose when the old key ends")
    entry = security_log.entry("key.rotated")
    return _shown(service.rotate(process.current().database, key, float(grace), tenant=reach(), by=entry))


@blueprint.post("/console/keys/<key>/revoke")
@security.requires("admin")
def revoke_key(key: str) -> Response:
    line = service.revoke(process.current().database, key, tenant=reach(), by=security_log.entry("key.revoked"))
    return show("key_ended.html", line=line)
