"""Corpora: make, list, change, delete."""

from __future__ import annotations

from urllib.parse import quote

from flask import Response, request
from flask_openapi.models import RequestBody

from api import form, process, resources, responses, security, security_log
from api.bodies import CorpusPatch, NewCorpus
from api.form import MERGE_PATCH
from api.openapi import NOT_MODIFIED, errors
from api.parameters import ConfirmQuery, CorpusPath, PageQuery, Preconditions
from api.responses import Answered
from api.routes import Routes
from crochet_tasks.access import tenancy
from crochet_tasks.db import corpora
from crochet_tasks.db.corpora import Corpus, CorpusFields
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.errors import (
    CorpusExists,
    InvalidCursor,
    InvalidName,
    LimitOutOfRange,
    LimitsFixed,
    NotConfirmed,
    PreconditionFailed,
    PreconditionRequired,
    PriorityTooHigh,
    TooManyCorpora,
    WrongContentType,
)
from crochet_tasks.query.cursor import opened, sealed
from crochet_tasks.schemas.answers import CorpusLine, CorpusPage

api = Routes("corpora", "/v1/corpora")


@api.post(
    "",
    responses={
        201: CorpusLine,
        **errors(CorpusExists, InvalidName, LimitOutOfRange, PriorityTooHigh, TooManyCorpora, of_corpus=False),
    },
    operation_id="createCorpus",
)
@security.requires("write")
def create(body: NewCorpus) -> Answered:
    """Make a corpus. Its limits are fixed from now on. Without a `budget` it has the server's default."""
    budget = body.budget if "budget" in body.model_fields_set else process.settings().budget
    fields = CorpusFields(body.name, body.description, budget, priority=body.priority)
    limits = Limits(**body.limits.model_dump())
    entry = security_log.entry("corpus.created", {"corpus": body.name})
    caller = security.caller()
    highest = security.highest_priority()
    return _created(tenancy.create(process.current(), caller.tenant, fields, limits, entry, highest=highest))


def _created(corpus: Corpus) -> Response:
    response = responses.json(tenancy.line(corpus), 201, {"Location": address(corpus.name)})
    response.set_etag(tenancy.tag(corpus))
    return response


@api.get(
    "",
    responses={200: CorpusPage, **NOT_MODIFIED, **errors(InvalidCursor, of_corpus=False)},
    operation_id="listCorpora",
)
@security.requires("read", filters=True)
def every(query: PageQuery) -> Answered:
    """The corpora, in the order of their names."""
    (tenant, only), secret = security.reach(), resources.cursor_secret()
    question: list[object] = ["corpora", tenant]
    after = "" if query.cursor is None else opened(secret, question, query.cursor).decode()
    with process.current().database.snapshot() as connection:
        found = corpora.page(connection, tenant, after, query.limit + 1, only)
    page, more = found[: query.limit], len(found) > query.limit
    following = sealed(secret, question, page[-1].name.encode()) if more else None
    return responses.tagged(CorpusPage(corpora=[tenancy.line(corpus) for corpus in page], next_cursor=following))


@api.get("/<corpus>", responses={200: CorpusLine, **NOT_MODIFIED, **errors()}, operation_id="getCorpus")
@security.requires("read")
def one(path: CorpusPath) -> Answered:
    """The settings of a corpus; PATCH takes their ETag in If-Match."""
    with resources.open_corpus(path.corpus) as (_, corpus):
        return responses.tagged(tenancy.line(corpus), tag=tenancy.tag(corpus), strong=True)


@api.patch(
    "/<corpus>",
    request_body=RequestBody(
        content={MERGE_PATCH: {"schema": {"$ref": "#/components/schemas/CorpusPatch"}}},  # type: ignore[dict-item]
        required=True,
    ),
    responses={
        200: CorpusLine,
        **errors(
            CorpusExists,
            InvalidName,
            LimitsFixed,
            PreconditionFailed,
            PreconditionRequired,
            PriorityTooHigh,
            WrongContentType,
        ),
    },
    operation_id="changeCorpus",
)
@security.requires("write")
@form.accepts(form.Accepts((MERGE_PATCH,)))
def change(path: CorpusPath, header: Preconditions, body: CorpusPatch) -> Answered:
    """Change name, description, budget or priority, pause or resume it.

    More budget lets searches go on, less holds back what is not begun. Each step of priority doubles the share that
    the corpus has of what its tenant has; writers give up to 1, operators 2, administrators 3, and anyone lowers it.
    While a corpus is paused its work is not begun;
    what runs ends, texts are accepted and wait, and reads go on.
    """
    if header.if_match is None:
        raise PreconditionRequired
    with resources.open_corpus(path.corpus) as (_, corpus):
        existing = corpus.limits._asdict()
    if "limits" in body.model_fields_set:
        raise LimitsFixed(corpus=corpus.name, existing=_in_words(existing), wanted=_in_words(body.limits or {}))
    changes = body.model_dump(exclude_unset=True)
    if "description" in changes:
        changes["description"] = changes["description"] or ""
    etags = None if request.if_match.star_tag else request.if_match.as_set()
    entry = security_log.entry("corpus.changed", {"corpus": path.corpus, "changed": sorted(changes)})
    caller = security.caller()
    highest = security.highest_priority()
    changed = tenancy.change(process.current(), caller.tenant, path.corpus, etags, changes, entry, highest=highest)
    response = responses.json(tenancy.line(changed), headers={"Content-Location": address(changed.name)})
    response.set_etag(tenancy.tag(changed))
    return response


def _in_words(limits: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in limits.items()) or "none"


@api.delete("/<corpus>", responses={204: None, **errors(NotConfirmed)}, operation_id="deleteCorpus")
@security.requires("admin")
def delete(path: CorpusPath, query: ConfirmQuery) -> Answered:
    """Delete a corpus with all that is in it, for good. It is gone at once; its rows are deleted in the background."""
    entry = security_log.entry("corpus.deleted", {"corpus": path.corpus})
    number = tenancy.remove(process.current(), security.caller().tenant, path.corpus, query.confirm, entry)
    resources.catalog().forget(number)
    return Response(status=204)


def address(corpus: str) -> str:
    return f"/v1/corpora/{quote(corpus)}"
