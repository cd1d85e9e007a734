"""A text: what became of it, and its body, its words shaded by the number of orthos that they stand in."""

from __future__ import annotations

import bisect
import math
from typing import NamedTuple

from flask import Response, request

from api import resources, security
from crochet_tasks.db import texts
from crochet_tasks.intake import posted
from crochet_tasks.query.holding import Piece, pieces
from web.pages import blueprint, show

SHOWN = 60_000
"""characters of a body on one page"""
STEPS = 5
"""of shading"""


class Shaded(NamedTuple):
    piece: Piece
    step: int
    """from 0, in no ortho, to STEPS"""


@blueprint.get("/corpora/<name>/texts/<id>")
@security.requires("read")
def text(name: str, id: str) -> Response:  # noqa: A002 - as the address has it
    catalog = resources.catalog()
    with resources.open_corpus(name) as (connection, corpus):
        line = posted.text(connection, corpus, id)
        body = texts.body(connection, posted.number_of(id))
        tree, held = catalog.holding(connection, corpus)
    begins = beginnings(body)
    page = max(0, bisect.bisect(begins, request.args.get("from", 0, type=int)) - 1)
    begin, end = begins[page], begins[page + 1] if page + 1 < len(begins) else len(body)
    most = int(held.orthos.max(initial=0))
    return show(
        "text.html",
        corpus=corpus,
        text=line,
        begin=begin,
        end=end,
        back=begins[page - 1] if page else None,
        length=len(body),
        words=[Shaded(each, shade(each.orthos, most)) for each in pieces(body[begin:end], tree, held)],
        held=held,
        most=most,
    )


def beginnings(body: str) -> list[int]:
    """Where the pages of a body begin: none in a word, and the same on the way back."""
    found = [0]
    while (end := _end(body, found[-1])) < len(body):
        found.append(end)
    return found


def _end(body: str, begin: int) -> int:
    """Where a page of the body ends: at white space, if there is some."""
    if len(body) - begin <= SHOWN:
        return len(body)
    space = max(body.rfind(" ", begin, begin + SHOWN), body.rfind("\n", begin, begin + SHOWN))
    return begin + SHOWN if space <= begin else space + 1


def shade(orthos: int, most: int) -> int:
    """A step for so many orthos, on a logarithmic scale: counts of words differ by orders of magnitude."""
    if orthos <= 0:
        return 0
    return min(STEPS, 1 + int(STEPS * math.log(orthos) / max(1e-9, math.log(most)))) if most > 1 else STEPS
