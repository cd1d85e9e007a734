"""An ortho: its grid, where each line was read, its family, and what it waits for."""

from __future__ import annotations

from typing import NamedTuple

from flask import Response, render_template, request

from api import resources, security
from crochet_tasks.db import Connection, texts
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.engine.geometry import lines, shape_name
from crochet_tasks.errors import NotFound
from crochet_tasks.query.answers import OrthoDetail
from crochet_tasks.query.pages import OrthoQuery
from crochet_tasks.schemas.answers import LineSeen, OrthoWhole, Source
from crochet_tasks.schemas.names import text_name
from web import grids
from web.corpus import shown
from web.pages import blueprint, show
from web.sentences import Part, marked

CHILDREN, SHARING = 12, 8
FILTERED = 1 << 16
"""orthos, for those that share a line: the gallery looks on"""


class Read(NamedTuple):
    """A sentence that a line was read from, with the line marked in it."""

    text: str
    title: str
    sentence: int
    parts: list[Part]


class LineOf(NamedTuple):
    """A line, the cells that it runs through, and where it was read."""

    seen: LineSeen
    cells: str
    read: list[Read]


class Axis(NamedTuple):
    number: int
    length: int
    lines: list[LineOf]


@blueprint.get("/corpora/<name>/orthos/<id>")
@security.requires("read")
def ortho(name: str, id: str) -> Response:  # noqa: A002 - as the address has it
    across = request.args.get("across", type=int)
    catalog = resources.catalog()
    with resources.open_corpus(name) as (connection, corpus):
        detail = _found(connection, corpus, id)
        seen = catalog.provenance(connection, corpus, detail.lines)
        parent = catalog.parent(connection, corpus, detail)
        children = catalog.children(connection, corpus, detail, CHILDREN)
        sharing = catalog.page(
            connection, corpus, OrthoQuery(shares_line_with=detail.id), limit=SHARING, budget=FILTERED
        )
        brought = texts.versions(connection, corpus.id, detail.born, detail.born)
    found = grids.layers(detail.sides, detail.words, across)
    return show(
        "ortho.html",
        corpus=corpus,
        ortho=detail,
        layers=found,
        rtl=grids.right_to_left(detail.words),
        text=grids.text(found),
        across=across,
        axes=_axes(detail, seen),
        parent=parent,
        parent_layers=None if parent is None else grids.layers(parent.sides or (), parent.words or ()),
        children=[shown(each) for each in children.orthos],
        more=children.more,
        sharing=[shown(each) for each in sharing.orthos],
        more_sharing=sharing.next_cursor,
        looked=sharing.looked,
        brought=[(text_name(each.id), each.title) for each in brought],
    )


def _found(connection: Connection, corpus: Corpus, id: str) -> OrthoDetail:  # noqa: A002 - as above
    """Raises NotFound and InvalidOrthoId."""
    detail = resources.catalog().by_id(connection, corpus, id)
    if detail is None:
        raise NotFound(what="ortho", name=id)
    return detail


def _axes(detail: OrthoDetail, seen: list[LineSeen]) -> list[Axis]:
    """The longest axis first, as the grid shows it."""
    cells = [" ".join(map(str, each)) for each in lines(detail.sides)]
    every = [
        LineOf(line, where, [_read(line, source) for source in line.sources])
        for line, where in zip(seen, cells, strict=True)
    ]
    return [
        Axis(axis + 1, detail.sides[axis], [each for each in every if each.seen.axis == axis])
        for axis in reversed(range(len(detail.sides)))
    ]


def _read(line: LineSeen, source: Source) -> Read:
    return Read(source.text, source.title, source.sentence, marked(source.words, line.words))


@blueprint.get("/corpora/<name>/orthos/<id>.<any(json, svg, txt):form>")
@security.requires("read")
def ortho_file(name: str, id: str, form: str) -> Response:  # noqa: A002 - as above
    """An ortho as a file: JSON as the API has it, a picture, or plain text."""
    catalog = resources.catalog()
    with resources.open_corpus(name) as (connection, corpus):
        detail = _found(connection, corpus, id)
        seen = catalog.provenance(connection, corpus, detail.lines) if form == "json" else []
    found = grids.layers(detail.sides, detail.words, request.args.get("across", type=int))
    if form == "json":
        whole = OrthoWhole(
            version=corpus.version,
            id=detail.id,
            shape=list(detail.sides),
            words=list(detail.words),
            born=detail.born,
            volume=detail.volume,
            grid=detail.grid,
            lines=seen,
        )
        response = Response(whole.model_dump_json(indent=2), mimetype="application/json")
    elif form == "svg":
        picture = render_template("ortho.svg", picture=grids.picture(found), size=grids.SIZE)
        response = Response(picture, mimetype="image/svg+xml")
    else:
        response = Response(grids.text(found), mimetype="text/plain")
    file = f"{corpus.name}-{shape_name(detail.sides)}-{detail.id[:8]}.{form}"
    response.headers["Content-Disposition"] = f'attachment; filename="{file}"'
    return response
