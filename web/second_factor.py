"""The second factor: its code when one logs in with a key, and the page that turns it on and off."""

from __future__ import annotations

import uuid
from http import HTTPStatus

from flask import Response, make_response, redirect, request
from flask import session as cookie

from api import process, security, security_log
from crochet_tasks.access import second_factor as service
from crochet_tasks.access.second_factor import Enrolment
from crochet_tasks.db import access, second_factors
from crochet_tasks.db.access import KeyRow
from crochet_tasks.errors import CodeRefused, InvalidRequest, NotLoggedIn
from web import session
from web.pages import blueprint, local, show, to

_SHOWN = "second_factor"
"""in the cookie: the mark of the secret that this browser was shown last"""


@blueprint.get("/log-in/code")
def log_in_code() -> Response:
    return _asked(session.pending()[0])


@blueprint.post("/log-in/code")
def log_in_with_code() -> Response:
    """A code of a key that was right a moment ago. Where a factor is needed and there is none, it turns one on."""
    row, back = session.pending()
    current, code, entry = process.current(), request.form.get("code", ""), security_log.entry("second_factor")
    try:
        if _is_on(row):
            service.check(current.database, process.settings(), row, code, entry)
            session.finish(row)
            return make_response(redirect(local(back), HTTPStatus.SEE_OTHER))
        made = service.confirm(current.database, process.settings(), row, code, entry)
    except CodeRefused as error:
        _record(error, row)
        return _asked(row, str(error))
    session.finish(row)
    return _recovery(made, local(back))


def _asked(row: KeyRow, problem: str | None = None) -> Response:
    status = HTTPStatus.OK if problem is None else HTTPStatus.FORBIDDEN
    new = None if _is_on(row) else _enrolled(row, again=problem is not None)
    return _private(show("second_factor.html", status, new=new, on=new is None, problem=problem, logging_in=True))


def _enrolled(row: KeyRow, *, again: bool) -> Enrolment:
    """A new secret; after a wrong code `again` that which this browser was shown, unless it was replaced meanwhile."""
    shown = cookie.get(_SHOWN) if again else None
    new = service.enrol(process.current().database, process.settings(), row, shown)
    cookie[_SHOWN] = new.mark
    return new


@blueprint.get("/second-factor")
@security.requires("read", filters=True)
def second_factor() -> Response:
    return _own()


@blueprint.post("/second-factor")
@security.requires("read", filters=True)
def change_second_factor() -> Response:
    """Turned on with a first code, off with another one."""
    row, current, entry = _mine(), process.current(), security_log.entry("second_factor")
    try:
        if request.form.get("act") == "off":
            service.check(current.database, process.settings(), row, request.form.get("code", ""), entry)
            service.disable(current.database, row, entry)
            return to("second_factor")
        made = service.confirm(
            current.database, process.settings(), row, request.form.get("code", ""), entry, _session()
        )
    except CodeRefused as error:
        _record(error, row)
        return _own(str(error))
    return _recovery(made, "/second-factor")


def _own(problem: str | None = None) -> Response:
    row = _mine()
    if row.person is not None:
        raise InvalidRequest(problem="the second factor of people is their provider's")
    new = None if _is_on(row) else _enrolled(row, again=problem is not None)
    status = HTTPStatus.OK if problem is None else HTTPStatus.FORBIDDEN
    return _private(show("second_factor.html", status, new=new, on=new is None, problem=problem, logging_in=False))


def _mine() -> KeyRow:
    with process.current().database.snapshot() as connection:
        row = access.key(connection, security.caller().key)
    if row is None:
        raise NotLoggedIn(reason="this page is for users")
    return row


def _session() -> uuid.UUID | None:
    number = security.caller().session
    return None if number is None else uuid.UUID(number)


def _is_on(row: KeyRow) -> bool:
    with process.current().database.snapshot() as connection:
        found = second_factors.of(connection, row.id)
    return found is not None and found.confirmed_at is not None


def _record(error: CodeRefused, row: KeyRow) -> None:
    security_log.record_refusal(error, row.prefix)


def _recovery(codes: list[str], back: str) -> Response:
    return _private(show("recovery_codes.html", codes=codes, back=back))


def _private(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
