"""The console of who runs corpora: the work of all of them, of one, a piece of work; and retry and cancel."""

from __future__ import annotations

from http import HTTPStatus
from typing import get_args

from flask import Response, abort, request
from pydantic import ValidationError

from api import problems, process, resources, security, security_log
from api.parameters import WorkQuery
from api.work import public
from crochet_tasks.db import corpora as rows
from crochet_tasks.errors import (
    CrochetError,
    InvalidRequest,
    NotFound,
    TextStarted,
    WorkNotCancellable,
    WorkNotFailed,
    public_message,
)
from crochet_tasks.operate import inspection, tenant_work
from crochet_tasks.operate.names import STATES
from crochet_tasks.reporting import statistics
from crochet_tasks.schemas.reports import WorkLine
from web.pages import blueprint, show

AT_ONCE = 100
KINDS = get_args(get_args(WorkQuery.model_fields["kind"].annotation)[0])
ACTS = {"retry": (tenant_work.retry, "work.retried"), "cancel": (tenant_work.cancel, "work.cancelled")}
REFUSED = (NotFound, TextStarted, WorkNotCancellable, WorkNotFailed)
"""what may have become of work since it was chosen"""


@blueprint.get("/console")
@security.requires("admin")
def console() -> Response:
    tenant = security.caller().tenant
    now = statistics.everything(process.current(), statistics.for_tenants, tenant)
    with process.current().database.snapshot() as connection:
        found = rows.page(connection, tenant, "", AT_ONCE)
    return show("console.html", now=now, corpora=found)


@blueprint.get("/corpora/<name>/work")
@security.requires("admin")
def work(name: str) -> Response:
    given = {key: value for key in ("state", "kind") if (value := request.args.get(key))}
    try:
        query = WorkQuery(**given, limit=AT_ONCE)  # type: ignore[arg-type]
    except ValidationError as error:
        abort(problems.invalid(error))
    with resources.open_corpus(name) as (connection, corpus):
        found, uncounted = inspection.of_corpus(
            connection, corpus.id, query.state, query.kind, query.limit, statistics.COUNTED
        )
    lines = [public(line) for line in found.work]
    return show(
        "work.html",
        corpus=corpus,
        lines=lines,
        more=found.more,
        uncounted=uncounted,
        query=query,
        states=STATES,
        kinds=KINDS,
    )


@blueprint.get("/corpora/<name>/work/<id>")
@security.requires("admin")
def piece(name: str, id: str) -> Response:  # noqa: A002 - as the address has it
    found = tenant_work.details(process.current(), security.caller().tenant, name, id)
    tries = [(each, *_public_error(each.error)) for each in found.tries]
    related = [public(line) for line in found.related]
    return show("piece.html", name=name, detail=found, line=public(found.line), tries=tries, related=related)


def _public_error(error: dict[str, object]) -> tuple[str, str]:
    code = str(error.get("code", "internal"))
    return code, public_message(code, str(error.get("message", "")))


@blueprint.post("/corpora/<name>/work/confirm")
@security.requires("admin")
def confirm(name: str) -> Response:
    """What an act would touch. Nothing is changed here."""
    act, ids = _chosen()
    tenant = security.caller().tenant
    lines = [public(tenant_work.details(process.current(), tenant, name, each).line) for each in ids]
    return show("work_confirm.html", name=name, act=act, lines=lines)


@blueprint.post("/corpora/<name>/work/act")
@security.requires("admin")
def act(name: str) -> Response:
    """Do it, one piece after the other; what cannot be done any more is said, and the rest is done."""
    chosen, ids = _chosen()
    change, what = ACTS[chosen]
    done: list[WorkLine] = []
    refused: list[CrochetError] = []
    for each in ids:
        entry = security_log.entry(what, {"corpus": name, "work": each})
        try:
            done += change(process.current(), security.caller().tenant, name, each, entry).changed
        except REFUSED as error:
            refused.append(error)
    status = HTTPStatus.CONFLICT if refused and not done else HTTPStatus.OK
    return show("work_done.html", status, name=name, act=chosen, lines=[public(line) for line in done], refused=refused)


def _chosen() -> tuple[str, list[str]]:
    act, ids = request.form.get("act", ""), list(dict.fromkeys(request.form.getlist("work")))
    if act not in ACTS or not ids or len(ids) > AT_ONCE:
        raise InvalidRequest(problem=f"choose 1 to {AT_ONCE} pieces of work, and what to do with them")
    return act, ids
