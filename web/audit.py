"""The audit across all items: who changed what, when and from where; by filters, in pages, and as a file."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack

from flask import Response, abort, request
from pydantic import ValidationError

from api import problems, process, resources, security, streaming
from api.parameters import AuditQuery
from crochet_tasks.db import audit as rows
from crochet_tasks.db.audit import AuditFilter
from crochet_tasks.db.sessions import Database
from crochet_tasks.schemas.reports import AuditLine
from web import paging
from web.log import named
from web.pages import asked_tenant, blueprint, show
from web.paging import Page

ABOUT = ("corpus", "key", "second_factor", "tenant", "text", "work")
"""what changes begin with"""
FILTERS = ("corpus", "by", "subject", "what")
MOMENTS = ("since", "until")
EXPORTED_AT_ONCE = 1000


@blueprint.get("/console/audit")
@security.requires("admin")
def audit() -> Response:
    """Of the tenant; of operators, of all tenants."""
    which, filters = _asked()
    return show("audit.html", page=_page(which), filters=filters, about=ABOUT, differences=differences, actor=actor)


@blueprint.get("/console/audit.ndjson")
@security.requires("admin")
def audit_file() -> Response:
    """All that the filters let through, newest first, one JSON object per line, as `crochet audit --json` has it."""
    which, _ = _asked()
    caller, database = security.caller(), process.current().database
    with ExitStack() as opened:
        opened.enter_context(resources.exports().slot(caller.tenant))
        still = functools.partial(security.is_still_admitted, database, caller)
        response = Response(streaming.bounded(_parts(database, which), still), mimetype="application/x-ndjson")
        response.call_on_close(opened.pop_all().close)  # also where the client has disconnected before
    response.headers["Content-Disposition"] = 'attachment; filename="audit.ndjson"'
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def _parts(database: Database, which: AuditFilter) -> Iterator[bytes]:
    """Each page from a snapshot of its own: lines are only added, and none is open while the client reads."""
    begin: int | None = None
    while True:
        with database.snapshot() as connection:
            lines, begin = rows.page(connection, which, begin, EXPORTED_AT_ONCE)
        yield "".join(f"{line.model_dump_json()}\n" for line in lines).encode()
        if begin is None:
            return


def _asked() -> tuple[AuditFilter, dict[str, str]]:
    """What the address asks for, and the parts of it that say so. A time without a zone is of UTC."""
    given = {name: value for name in (*FILTERS, *MOMENTS) if (value := request.args.get(name, "").strip())}
    moments = {name: value if value.endswith("Z") else f"{value}Z" for name, value in given.items() if name in MOMENTS}
    try:
        query = AuditQuery.model_validate({**given, **moments})
    except ValidationError as error:
        abort(problems.invalid(error))
    tenant, of = asked_tenant()
    only = security.caller().corpora
    which = AuditFilter(tenant, query.corpus, query.by, query.subject, query.what, query.since, query.until, only)
    return which, {**given, **of}


def _page(which: AuditFilter) -> Page[AuditLine]:
    """The page that the address asks for: one may be short, or empty, and lead on (rows.page)."""
    most, before = paging.AT_ONCE, paging.number(request.args.get("before") or None)
    begin = paging.number(request.args.get("after") or None)
    with process.current().database.snapshot() as connection:
        if before is not None:
            lines, further = rows.page(connection, which, before, most, newer=True)
            if further is not None:
                return Page(lines, str(further), str(lines[-1].id if lines else before + 1))
            begin = None  # there are no more: the first page, and that is full
        lines, older = rows.page(connection, which, begin, most)
    newer = None if begin is None else str(lines[0].id if lines else begin - 1)
    return Page(lines, newer, None if older is None else str(older))


def differences(line: AuditLine) -> list[tuple[str, str, str]]:
    """What is another value now: its name, what was there, and what is. All, of what was made or is gone."""
    before, after = dict(named(line.before)), dict(named(line.after))
    names = dict.fromkeys((*before, *after))
    every = [(name, before.get(name, "null"), after.get(name, "null")) for name in names]
    return [(name, _shown(old), _shown(new)) for name, old, new in every if old != new]


def _shown(value: str) -> str:
    return "–" if value in ("null", "") else value


def actor(line: AuditLine) -> str | None:
    """Who made the change, as far as it is known; None: the pipeline itself."""
    by = line.by or {}
    found = by.get("user") or by.get("program")
    return None if found is None else str(found)
