"""The corpora: what there is, how far each is, and a form for a new one."""

from __future__ import annotations

from typing import NamedTuple

from flask import Response, request

from api import process, security
from crochet_tasks.db import corpora as rows
from crochet_tasks.db import tally
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.tally import Progress
from crochet_tasks.query.events import COUNTED
from web.pages import blueprint, show

AT_ONCE = 100


class Line(NamedTuple):
    corpus: Corpus
    progress: Progress


@blueprint.get("/corpora")
@security.requires("read", filters=True)
def corpora() -> Response:
    (tenant, only), after = security.reach(), request.args.get("after", "")
    with process.current().database.snapshot() as connection:
        found = rows.page(connection, tenant, after, AT_ONCE + 1, only)
        progress = {each.id: each for each in tally.progress(connection, [tenant], COUNTED)}
    lines = [Line(each, progress[each.id]) for each in found[:AT_ONCE]]
    following = found[AT_ONCE - 1].name if len(found) > AT_ONCE else None
    return show("corpora.html", lines=lines, following=following, after=after)
