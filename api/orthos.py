"""Orthos: pages, exports, one by one, checks."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from typing import Any

from flask import Response, request
from pydantic_core import to_json
from werkzeug.routing import BaseConverter

from api import form, process, resources, responses, security, streaming
from api.bodies import ToCheck
from api.openapi import NOT_MODIFIED, errors
from api.parameters import BestQuery, CorpusPath, OrthoPath, OrthosQuery
from api.responses import Answered
from api.routes import Routes
from crochet_tasks.db import Connection, sessions
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.engine.geometry import volume
from crochet_tasks.errors import (
    InvalidCursor,
    InvalidOrthoId,
    InvalidRequest,
    InvalidShape,
    NotAcceptable,
    NotFound,
    TooBusy,
)
from crochet_tasks.query.answers import Checked, OrthoDetail
from crochet_tasks.query.export import Format, sides_of
from crochet_tasks.query.pages import FoundOrtho, OrthoQuery
from crochet_tasks.schemas.answers import BestOrthos, CheckedAll, LineSeen, OrthoPage, OrthoWhole, Shapes

JSON, NDJSON = "application/json", "application/x-ndjson"
IDLE = "30s"
"""a client may pause for so long during an export; its database connection is idle meanwhile"""
NOT_EXPORTED = {"limit", "cursor", "fields"}


class Unreserved(BaseConverter):
    """The part of an address that names an ortho or text: these words are routes of their own, with other methods."""

    regex = "(?!(?:batch|best|check)$)[^/]+"


api = Routes("orthos", "/v1/corpora/<corpus>")


_ORTHOS: dict[str, Any] = {
    "content": {
        JSON: {
            "schema": OrthoPage.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
        },
        NDJSON: {"schema": {"type": "string", "description": "a line of JSON per ortho: id, shape, words, born"}},
    }
}


@api.get(
    "/orthos",
    responses={200: _ORTHOS, **NOT_MODIFIED, **errors(InvalidCursor, InvalidShape, NotAcceptable, NotFound, TooBusy)},
    operation_id="listOrthos",
)
@security.requires("read")
def every(path: CorpusPath, query: OrthosQuery) -> Answered:
    """The orthos: larger volume first, then more cells, then by sides; those of a shape in alphabetical order.

    What is found between two pages is on a later one or left out; nothing comes twice. Where few fit, a page may be
    short or empty: `looked` says how far it came, and `next_cursor` goes on.

    With `Accept: application/x-ndjson` all of them, from one snapshot, as a stream without pages. One that broke off
    goes on with `after`, the id of the last whole line; where its ETag is the same, nothing was found meanwhile.
    """
    chosen = OrthoQuery.of(
        None if query.shape is None else sides_of(query.shape),
        query.starts_with,
        query.contains,
        query.min_volume,
        query.shares_line_with,
    )
    best = request.accept_mimetypes.best_match([JSON, NDJSON]) if request.accept_mimetypes else JSON
    if best is None:
        raise NotAcceptable(offered=f"{JSON} and {NDJSON}")
    if best == NDJSON:
        refused = sorted(NOT_EXPORTED & query.model_fields_set)
        if refused:
            raise InvalidRequest(
                problem=f"an export has no pages: leave out {', '.join(refused)}",
                where=f"query/{refused[0]}",
                fault="extra_forbidden",
            )
        return _export(path.corpus, chosen, query.after)
    catalog = resources.catalog()
    with resources.open_corpus(path.corpus) as (connection, corpus):
        tag = _tag(connection, corpus)
        if known := responses.unchanged(tag, corpus.version):
            return _varied(known)
        page = catalog.page(connection, corpus, chosen, limit=query.limit, cursor=query.cursor, after=query.after)
    fields = None if query.fields is None else set(query.fields.split(","))
    orthos = [_ortho(found, fields) for found in page.orthos]
    body = to_json(
        {
            "version": page.version,
            "orthos": orthos,
            "next_cursor": page.next_cursor,
            "looked": page.looked and page.looked._asdict(),
        }
    )
    return _varied(responses.tagged(body, corpus.version, tag))


def _varied(response: Response) -> Response:
    response.vary.add("Accept")
    return response


def _tag(connection: Connection, corpus: Corpus) -> str:
    """The ETag of a corpus' orthos."""
    return resources.catalog().view(connection, corpus).etag


# ── all of them ─────────────────────────────────────────────────────────────────────────────────


def _export(name: str, query: OrthoQuery, after: str | None) -> Response:
    """A stream; its snapshot is open until the last byte is sent, or the client is gone."""
    caller, database = security.caller(), process.current().database
    with ExitStack() as opened:
        opened.enter_context(resources.exports().slot(caller.tenant))
        connection, corpus = opened.enter_context(resources.open_corpus(name))
        sessions.may_idle(connection, IDLE)
        parts = resources.catalog().export(connection, corpus, Format.JSONL, query, after)
        stream = streaming.bounded(parts, functools.partial(security.is_still_admitted, database, caller))
        response = Response(stream, mimetype=NDJSON)
        response.set_etag(_tag(connection, corpus), weak=True)
        response.call_on_close(opened.pop_all().close)  # also where the client has disconnected before
    response.headers["Content-Disposition"] = f'attachment; filename="{corpus.name}.ndjson"'
    return _varied(responses.conditional(response, corpus.version))


# ── one ─────────────────────────────────────────────────────────────────────────────────────────


@api.get("/orthos/best", responses={200: BestOrthos, **NOT_MODIFIED, **errors()}, operation_id="bestOrthos")
@security.requires("read")
def best(path: CorpusPath, query: BestQuery) -> Answered:
    """The best orthos: of the largest volume."""
    with resources.open_corpus(path.corpus) as (connection, corpus):
        tag = _tag(connection, corpus)
        if known := responses.unchanged(tag, corpus.version):
            return known
        found = resources.catalog().best(connection, corpus, query.limit)
    orthos = [_ortho(ortho, None) for ortho in found]
    return responses.tagged(to_json({"version": corpus.version, "orthos": orthos}), corpus.version, tag)


@api.get(
    "/orthos/<unreserved:ortho>",
    responses={200: OrthoWhole, **NOT_MODIFIED, **errors(InvalidOrthoId, NotFound)},
    operation_id="getOrtho",
)
@security.requires("read")
def one(path: OrthoPath) -> Answered:
    """An ortho with its grid, the version since which it exists, and for each line the sentences it was read from."""
    catalog = resources.catalog()
    with resources.open_corpus(path.corpus) as (connection, corpus):
        detail = catalog.by_id(connection, corpus, path.ortho)
        if detail is None:
            raise NotFound(what="ortho", name=path.ortho)
        lines = catalog.provenance(connection, corpus, detail.lines)
    return responses.tagged(_whole(corpus.version, detail, lines), corpus.version)


@api.get("/shapes", responses={200: Shapes, **NOT_MODIFIED, **errors()}, operation_id="listShapes")
@security.requires("read")
def shapes(path: CorpusPath) -> Answered:
    """How many orthos there are of each shape, best shape first."""
    with resources.open_corpus(path.corpus) as (connection, corpus):
        counted = resources.catalog().shapes(connection, corpus)
    total = sum(each.orthos for each in counted)
    return responses.tagged(Shapes(version=corpus.version, total=total, shapes=counted), corpus.version)


@api.post("/orthos/check", responses={200: CheckedAll, **errors()}, operation_id="checkOrthos")
@security.requires("read")
@form.accepts(form.Accepts(bytes=2 * 1024 * 1024, values=200_000))
def check(path: CorpusPath, body: ToCheck) -> Answered:
    """Whether orthos are stored, by their ids or as boxes of words: up to 1000 at once, with 65,536 cells in total.

    Stored orthos are always found. With `"exact": false` no orthos are read: an id is reported as stored where its
    first half is that of a phrase, a box where all lines are phrases; `false_positives` states how often that errs.
    """
    if (body.ids is None) == (body.grids is None):
        raise InvalidRequest(problem="give either ids or grids")
    with resources.open_corpus(path.corpus) as (connection, corpus):
        items: list[Any] = body.ids if body.ids is not None else body.grids or []
        checks = resources.catalog().check(connection, corpus, items, exact=body.exact)
    results = [_checked(each) for each in checks.results]
    answer = {
        "version": corpus.version,
        "exact": checks.exact,
        "degraded": False,
        "false_positives": checks.false_positives,
        "results": results,
    }
    return responses.conditional(Response(to_json(answer), mimetype=JSON), corpus.version)


# ── in JSON ─────────────────────────────────────────────────────────────────────────────────────


def _ortho(found: FoundOrtho, fields: set[str] | None) -> dict[str, Any]:
    """As OrthoSeen would be written; to make one of each of a thousand orthos takes four times as long."""
    every: dict[str, Any] = {
        "id": found.id,
        "shape": found.sides,
        "words": found.words,
        "born": found.born,
        "volume": found.volume,
    }
    return every if fields is None else {name: value for name, value in every.items() if name in fields}


def _whole(version: int, detail: OrthoDetail, lines: list[LineSeen]) -> OrthoWhole:
    return OrthoWhole(
        version=version,
        id=detail.id,
        shape=list(detail.sides),
        words=list(detail.words),
        born=detail.born,
        volume=volume(detail.sides),
        grid=detail.grid,
        lines=lines,
    )


def _checked(each: Checked) -> dict[str, Any]:
    """As CheckedOne would be written, for the same reason as with `_ortho`."""
    return {
        "stored": each.stored,
        "id": each.id,
        "shape": each.sides,
        "words": each.words,
        "reason": each.reason,
    }
