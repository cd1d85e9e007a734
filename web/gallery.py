"""The gallery: the orthos of a corpus as grids, best first, and filters. Its address is the whole view."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal, NamedTuple

from flask import Response, abort, jsonify, request
from pydantic import Field, ValidationError

from api import problems, resources, security
from api.parameters import OrthosQuery, Whole
from crochet_tasks.engine.geometry import Sides, volume
from crochet_tasks.errors import PhraseUnknown
from crochet_tasks.query.export import sides_of
from crochet_tasks.query.pages import OrthoQuery
from web.corpus import Shown, shown
from web.pages import blueprint, show

AT_ONCE = 48
COMPLETIONS, READ_AT_ONCE = 20, 1000
FILTERS = ("shape", "starts_with", "contains", "min_volume", "shares_line_with")


class GalleryQuery(OrthosQuery):
    """As of the API's list, and how it is shown. Fields of a form that are left empty are left out."""

    density: Literal["wide", "dense"] = "wide"
    across: Annotated[int, Field(ge=1, le=8), Whole] | None = None


class Group(NamedTuple):
    """Orthos of one shape that follow each other."""

    shape: Sides
    volume: int
    orthos: list[Shown]


@blueprint.get("/corpora/<name>/orthos")
@security.requires("read")
def gallery(name: str) -> Response:
    given = {key: value for key, value in request.args.items() if value}
    try:
        query = GalleryQuery.model_validate(given)
    except ValidationError as error:
        abort(problems.invalid(error))
    chosen = OrthoQuery.of(
        None if query.shape is None else sides_of(query.shape.replace("×", "x")),
        query.starts_with,
        query.contains,
        query.min_volume,
        query.shares_line_with,
    )
    catalog = resources.catalog()
    with resources.open_corpus(name) as (connection, corpus):
        shapes = catalog.shapes(connection, corpus)
        page = catalog.page(connection, corpus, chosen, limit=AT_ONCE, cursor=query.cursor)
        if query.cursor and page.previous_cursor is None and len(page.orthos) < AT_ONCE:
            # Gone back to the beginning: as a whole page, with what was found meanwhile.
            page = catalog.page(connection, corpus, chosen, limit=AT_ONCE)
        shared = query.shares_line_with
        other = None if shared is None else catalog.by_id(connection, corpus, shared)
    groups = [
        Group(sides, volume(sides), [shown(each, query.across) for each in some])
        for sides, some in itertools.groupby(page.orthos, lambda each: each.sides)
    ]
    filters = {key: given[key] for key in FILTERS if key in given}
    looks = {key: given[key] for key in ("density", "across") if key in given}
    return show(
        "gallery.html",
        corpus=corpus,
        query=query,
        shapes=shapes,
        groups=groups,
        other=other,
        looked=page.looked,
        filters=filters,
        looks=looks,
        axes=max((len(each.shape) for each in shapes), default=2),
        before=page.previous_cursor,
        behind=page.next_cursor,
    )


@blueprint.get("/corpora/<name>/complete")
@security.requires("read")
def complete(name: str) -> Response:
    """What words that somebody types may become: `q` with its last word completed, as far as there are such phrases."""
    typed = request.args.get("q", "")[:2000]
    head, _, last = typed.rpartition(" ")
    catalog = resources.catalog()
    with resources.open_corpus(name) as (connection, corpus):
        if not head.strip():
            page = catalog.vocabulary(connection, corpus, last.strip(), COMPLETIONS)
            return jsonify([each.word for each in page.words])
        try:
            found = catalog.phrases(connection, corpus, head.split(), READ_AT_ONCE).phrases
        except PhraseUnknown:
            return jsonify([])
    fitting = (each.words for each in found if each.words[-1].startswith(last.lower()))
    return jsonify([" ".join(words) for words in itertools.islice(fitting, COMPLETIONS)])
