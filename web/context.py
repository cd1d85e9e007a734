"""A sentence among those around it: wider and wider, without a script by a link."""

from __future__ import annotations

from typing import NamedTuple

from flask import Response, request

from api import resources, security
from crochet_tasks.errors import NotFound
from crochet_tasks.intake import posted
from web.pages import blueprint, show
from web.sentences import Part, marked

FIRST, MOST = 3, 100
"""sentences before and behind it"""


class Said(NamedTuple):
    number: int
    parts: list[Part]


@blueprint.get("/corpora/<name>/texts/<id>/sentences/<number>")
@security.requires("read")
def context(name: str, id: str, number: str) -> Response:  # noqa: A002 - as the address has it
    phrase = request.args.get("words", "")[:2000].split()
    wide = max(1, min(request.args.get("around", FIRST, type=int), MOST))
    with resources.open_corpus(name) as (connection, corpus):
        text = posted.text(connection, corpus, id)
        found = None
        place = int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0
        if text.version is not None:
            found = resources.catalog().around(connection, corpus, posted.number_of(id), place, wide)
    if found is None:
        raise NotFound(what="sentence", name=number[:20])
    return show(
        "context.html",
        corpus=corpus,
        text=text,
        number=place,
        words=" ".join(phrase),
        said=[Said(at, marked(each, phrase)) for at, each in enumerate(found.sentences, start=found.first)],
        wider=min(4 * wide, MOST) if wide < MOST and len(found.sentences) < found.total else None,
    )
