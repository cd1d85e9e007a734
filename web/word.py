"""A word or a phrase: where it stands in the texts, how it goes on, and the orthos that hold it."""

from __future__ import annotations

from typing import NamedTuple

from flask import Response, request

from api import resources, security
from crochet_tasks.query.pages import OrthoQuery
from crochet_tasks.query.provenance import Occurrence
from web.corpus import shown
from web.pages import blueprint, show, to

PLACES, MOST_PLACES, ORTHOS = 50, 1000, 6
CONTINUATIONS, BRANCHES = 30, (6, 3)
"""words that go on, and of each the next two levels of the tree: some 600 links at the most"""
AROUND = 9
"""words of the sentence on each side"""
SORTS = ("text", "left", "right")


class Place(NamedTuple):
    """A line of the concordance."""

    found: Occurrence
    before: str
    after: str


@blueprint.get("/corpora/<name>/phrase")
@security.requires("read")
def phrase(name: str) -> Response:
    words = request.args.get("words", "")[:2000].split()
    if not words:
        return to("corpus", name=name)
    sort = request.args.get("sort", SORTS[0])
    every = "every" in request.args
    catalog = resources.catalog()
    query = OrthoQuery.of(contains=" ".join(words))
    with resources.open_corpus(name) as (connection, corpus):
        continued = catalog.phrases(connection, corpus, words, CONTINUATIONS, request.args.get("on"))
        tree = catalog.branches(connection, corpus, [each.words for each in continued.phrases], BRANCHES)
        waiting = catalog.waiting_on(connection, corpus, words, 1) if len(words) > 1 else None
        concordance = catalog.concordance(connection, corpus, words, MOST_PLACES if every else PLACES)
        page = catalog.page(connection, corpus, query, limit=ORTHOS)
    places = [_place(each) for each in concordance.occurrences]
    if sort == "left":
        places.sort(key=lambda each: each.found.before[::-1])
    elif sort == "right":
        places.sort(key=lambda each: each.found.after)
    return show(
        "word.html",
        corpus=corpus,
        words=continued.prefix,
        born=continued.born,
        tree=tree,
        on=request.args.get("on"),
        more_on=continued.next_cursor,
        waiting=waiting,
        places=places,
        more=concordance.more,
        every=every,
        sort=sort if sort in SORTS else SORTS[0],
        orthos=[shown(each) for each in page.orthos],
        more_orthos=page.next_cursor,
        looked=page.looked,
    )


def _place(found: Occurrence) -> Place:
    before, after = found.before[-AROUND:], found.after[:AROUND]
    return Place(
        found,
        " ".join(["…"] * (len(before) < len(found.before)) + before),
        " ".join(after + ["…"] * (len(after) < len(found.after))),
    )
