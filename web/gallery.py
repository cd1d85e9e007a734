"""The gallery: the orthos of a corpus as grids, best first, and filters. Its address is the whole view."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal, NamedTuple

from flask import Response, abort, jsonify, request
from pydantic import Field, ValidationError

from api import problems, resources, security
from api.parameters import NO_NUL, OrthosQuery, Whole
from crochet_tasks.engine.geometry import Sides, volume
from crochet_tasks.errors import PhraseUnknown
from crochet_tasks.query.export import sides_of
from crochet_tasks.query.pages import OrthoQuery
from web.corpus import Shown, shown
from web.pages import blueprint, show

AT_ONCE = 48
COMPLETIONS, READ_AT_ONCE = 20, 1000
TRAIL, TRAIL_CHARACTERS = 40, 4000
"""cursors of the pages before this one, the first one first; the server takes no address of more than 8190 bytes"""


class GalleryQuery(OrthosQuery):
    """As of the API's list, and how it is shown. Fields of a form that are left empty are left out."""

    density: Literal["wide", "dense"] = "wide"
    across: Annotated[int, Field(ge=1, le=8), Whole] | None = None
    trail: str = Field(default="", max_length=TRAIL_CHARACTERS, json_schema_extra=NO_NUL)


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
    )
    catalog = resources.catalog()
    with resources.open_corpus(name) as (connection, corpus):
        shapes = catalog.shapes(connection, corpus)
        page = catalog.page(connection, corpus, chosen, limit=AT_ONCE, cursor=query.cursor)
    groups = [
        Group(sides, volume(sides), [shown(each, query.across) for each in some])
        for sides, some in itertools.groupby(page.orthos, lambda each: each.sides)
    ]
    filters = {key: given[key] for key in ("shape", "starts_with", "contains", "min_volume") if key in given}
    looks = {key: given[key] for key in ("density", "across") if key in given}
    return show(
        "gallery.html",
        corpus=corpus,
        query=query,
        shapes=shapes,
        groups=groups,
        filters=filters,
        looks=looks,
        axes=max((len(each.shape) for each in shapes), default=2),
        **_neighbours(query, page.next_cursor),
    )


def _neighbours(query: GalleryQuery, following: str | None) -> dict[str, Any]:
    """What leads to the pages before and behind: a cursor leads forward only, so the address keeps those before."""
    trail = query.trail.split(".") if query.trail else []
    behind = None
    if following is not None:
        longer = [*trail, query.cursor or "first"][-TRAIL:]
        while len(".".join(longer)) > TRAIL_CHARACTERS:
            longer.pop(0)
        behind = {"cursor": following, "trail": ".".join(longer)}
    before = None
    if trail:
        last = trail[-1]
        before = {"cursor": None if last == "first" else last, "trail": ".".join(trail[:-1]) or None}
    return {"before": before, "behind": behind}


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
