"""Work: of a corpus or of all, by state, kind and error; a piece of it; and what can be done about it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable
from http import HTTPStatus
from typing import Annotated, NamedTuple, get_args

from flask import Response, abort, request
from pydantic import Field, ValidationError

from api import problems, process, resources, security, security_log
from api.parameters import NO_NUL, WorkQuery
from api.work import public
from crochet_tasks.db.operators import WorkFilter
from crochet_tasks.db.tally import OF_A_TEXT, OPEN, SEARCHING
from crochet_tasks.errors import (
    CrochetError,
    InvalidRequest,
    NotFound,
    TextIsVersion,
    TextStarted,
    WorkNotCancellable,
    WorkNotFailed,
    public_message,
)
from crochet_tasks.operate import actions, cancelling, inspection, tenant_work
from crochet_tasks.operate.inspection import Placed
from crochet_tasks.operate.names import STATES
from crochet_tasks.schemas.names import DEAD
from crochet_tasks.schemas.reports import WorkDetail, WorkLine
from web import paging
from web.pages import asked_tenant, blueprint, operates, reach, show
from web.paging import Page, Turn

KINDS = get_args(get_args(WorkQuery.model_fields["kind"].annotation)[0])
REFUSED = (NotFound, TextIsVersion, TextStarted, WorkNotCancellable, WorkNotFailed)
"""what may have become of work since it was chosen"""


class Act(NamedTuple):
    """What can be done to work, how the security log calls it, and what a page says of it before."""

    made: tenant_work.Made
    logged: str
    touches: str


ACTS = {
    "retry": Act(
        actions.retry, "work.retried", "It is opened again, as new; a text is accepted again, at the end of the line."
    ),
    "cancel": Act(
        cancelling.cancel,
        "work.cancelled",
        "A text becomes no version: what was ingested of it is deleted, and it can be added again. "
        "Without a search the corpus is incomplete until that is retried.",
    ),
    "drop": Act(
        actions.drop,
        "work.dropped",
        "It is given up, and the corpus stays incomplete: it lacks what this work would have found. Dropped work can "
        "be retried; a dead letter is deleted for good.",
    ),
}
_CANCELLABLE = {"text": ("accepted", "ingested"), **dict.fromkeys((*OF_A_TEXT, *SEARCHING), OPEN)}


class ListQuery(WorkQuery):
    """As the API's, with the code of the last error."""

    error: Annotated[str, Field(pattern="^[a-z_]{1,64}$", json_schema_extra=NO_NUL)] | None = None


def readable(line: WorkLine) -> WorkLine:
    """The line as the caller may read it."""
    return line if operates() else public(line)


def acts_on(line: WorkLine) -> list[str]:
    """What can be done to it, as far as its line says."""
    if line.state == DEAD:
        return ["drop"]
    if line.state == "failed":
        return ["retry", "drop"] if line.kind != "remediations" else ["retry"]
    if line.state == "cancelled":
        return ["retry"]
    return ["cancel"] if line.state in _CANCELLABLE.get(line.kind, ()) else []


@blueprint.get("/console/work")
@security.requires("operate")
def all_work() -> Response:
    query = _query()
    tenant, of = asked_tenant()
    return _shown(query, inspection.chosen(query.state, query.kind, query.error, tenant=tenant), of)


@blueprint.get("/corpora/<name>/work")
@security.requires("operate")
def work(name: str) -> Response:
    query = _query()
    with resources.open_corpus(name) as (_, corpus):
        pass
    return _shown(query, inspection.chosen(query.state, query.kind, query.error, corpus=corpus.id), {}, name)


def _query() -> ListQuery:
    given = {key: value for key in ("state", "kind", "error") if (value := request.args.get(key))}
    try:
        return ListQuery(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        abort(problems.invalid(error))


def _shown(query: ListQuery, which: WorkFilter, of: dict[str, str], name: str | None = None) -> Response:
    def load(turn: Turn, most: int) -> list[Placed]:
        with process.current().database.snapshot() as connection:
            return inspection.page(connection, which, paging.place(turn), most)

    page = paging.turned(load, lambda row: paging.of_place(row.place))
    filters = of | {key: value for key in ("state", "kind", "error") if (value := getattr(query, key))}
    found = Page([row._replace(line=readable(row.line)) for row in page.rows], page.newer, page.older)
    return show(
        "work.html",
        name=name,
        page=found,
        query=query,
        filters=filters,
        states=STATES,
        kinds=KINDS,
        acts=_possible(row.line for row in found.rows),
    )


def _possible(lines: Iterable[WorkLine]) -> list[str]:
    possible = {act for line in lines for act in acts_on(line)}
    return [act for act in ACTS if act in possible]


@blueprint.get("/console/work/<id>")
@security.requires("operate")
def piece(id: str) -> Response:  # noqa: A002 - as the address has it
    found = tenant_work.details(process.current(), reach(), id)
    return show(
        "piece.html",
        detail=found,
        line=readable(found.line),
        timeline=_timeline(found),
        related=[readable(line) for line in found.related],
        acts=acts_on(found.line),
    )


class Happening(NamedTuple):
    """A change of state, or a try that failed: then there is the code of its error."""

    at: dt.datetime
    text: str
    who: str | None = None
    code: str | None = None
    number: int | None = None


def _timeline(found: WorkDetail) -> list[Happening]:
    """Oldest first. Who changed it, as the database calls them, and errors in full are for operators."""
    every = [Happening(each.at, _in_words(each.what), each.who if operates() else None) for each in found.audit]
    for each in found.tries:
        code, message = str(each.error.get("code", "internal")), str(each.error.get("message", ""))
        shown = message if operates() else public_message(code, message)
        every.append(Happening(each.at, shown, code=code, number=each.number))
    return sorted(every, key=lambda each: each.at)


def _in_words(what: str) -> str:
    return what.partition(".")[2] or what


@blueprint.get("/console/confirm")
@security.requires("operate")
def confirm() -> Response:
    """What an act would touch. Nothing is changed here."""
    act, ids = _chosen(request.args.getlist("work"), request.args.get("act", ""))
    lines = [readable(tenant_work.details(process.current(), reach(), each).line) for each in ids]
    return show("work_confirm.html", act=act, touches=ACTS[act].touches, lines=lines)


@blueprint.post("/console/act")
@security.requires("operate")
def act() -> Response:
    """Do it, one piece after the other; what cannot be done any more is said, and the rest is done."""
    chosen, ids = _chosen(request.form.getlist("work"), request.form.get("act", ""))
    done: list[WorkLine] = []
    refused: list[CrochetError] = []
    notes: dict[str, None] = {}
    for each in ids:
        try:
            made = _do(ACTS[chosen], each)
        except REFUSED as error:
            refused.append(error)
        else:
            done += made[0]
            notes |= dict.fromkeys(made[1])
    status = HTTPStatus.CONFLICT if refused and not done else HTTPStatus.OK
    lines = [readable(line) for line in done]
    return show("work_done.html", status, act=chosen, lines=lines, refused=refused, notes=list(notes))


def _do(what: Act, work: str) -> tuple[list[WorkLine], list[str]]:
    before = tenant_work.details(process.current(), reach(), work).line
    entry = security_log.entry(what.logged, {"corpus": before.corpus, "work": work})
    made = tenant_work.change(process.current(), reach(), work, what.made, entry)
    gone = [] if made.changed else [before.model_copy(update={"state": "deleted"})]  # a dead letter
    return [*made.changed, *gone], made.notes


def _chosen(work: Collection[str], act: str) -> tuple[str, list[str]]:
    ids = list(dict.fromkeys(work))
    if act not in ACTS or not ids or len(ids) > 2 * paging.AT_ONCE:
        raise InvalidRequest(problem=f"choose 1 to {2 * paging.AT_ONCE} pieces of work, and what to do with them")
    return act, ids
