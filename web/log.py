"""Who did what: the security log."""

from __future__ import annotations

import json
import re

from flask import Response, request

from api import process, security
from crochet_tasks.access import keys
from crochet_tasks.errors import InvalidRequest
from web import paging
from web.pages import asked_tenant, blueprint, show

ABOUT = ("corpus", "key", "person", "refused", "second_factor", "session", "tenant", "work")
"""what lines begin with"""


@blueprint.get("/console/log")
@security.requires("admin")
def log() -> Response:
    """Of the tenant; of operators, of all tenants and of who is of none."""
    given = {name: value for name in ("about", "key") if (value := request.args.get(name, "").strip())}
    if given.get("about", "key") not in ABOUT or not re.fullmatch(r"[\w-]{0,100}", given.get("key", "")):
        raise InvalidRequest(problem=f"a log is asked for by the prefix of a key, and about {', '.join(ABOUT)}")
    tenant, of = asked_tenant()
    what = f"{given['about']}." if "about" in given else None
    page = paging.numbered(
        lambda begin, most, newer: keys.log_page(
            process.current().database, tenant, begin, most, newer=newer, key=given.get("key"), what=what
        )
    )
    return show("log.html", page=page, filters={**given, **of}, about=ABOUT, details=named)


def named(details: dict[str, object] | None) -> list[tuple[str, str]]:
    """Details in words: a text as it is, other values as JSON."""
    return [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in (details or {}).items()
    ]
