"""Texts: post, read, cancel."""

from __future__ import annotations

from typing import Any

from flask import abort, request
from flask_openapi.models import RequestBody
from pydantic import ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from api import form, problems, process, resources, responses, security
from api.bodies import NewText
from api.corpora import address
from api.form import JSON, PLAIN
from api.openapi import NOT_MODIFIED, errors
from api.parameters import CorpusPath, RequestKey, TextPath, TextsQuery, TitleQuery
from api.responses import Answered
from api.routes import Routes
from crochet_tasks.db import texts
from crochet_tasks.errors import (
    IdempotencyKeyReused,
    InvalidCursor,
    InvalidRequest,
    NotFound,
    PriorityTooHigh,
    QuotaReached,
    RequestTooLarge,
    TextHasNul,
    TextIsVersion,
    TextNotUtf8,
    TextStarted,
    TextTooLarge,
    TextWithoutWords,
    TooBusy,
    WorkNotCancellable,
    WrongContentType,
)
from crochet_tasks.intake import files, posted
from crochet_tasks.intake.admission import SubmittedText
from crochet_tasks.operate import cancelling
from crochet_tasks.query.cursor import opened, sealed
from crochet_tasks.schemas.answers import TextPage
from crochet_tasks.schemas.names import UNTITLED
from crochet_tasks.schemas.reports import TextLine

api = Routes("texts", "/v1/corpora/<corpus>/texts")
_BODY: dict[str, Any] = {
    JSON: {"schema": NewText.model_json_schema()},
    PLAIN: {"schema": {"type": "string"}, "example": "The seas and the land."},
}


@api.post(
    "",
    request_body=RequestBody(content=_BODY, required=True),
    responses={
        200: TextLine,
        202: TextLine,
        **errors(
            IdempotencyKeyReused,
            PriorityTooHigh,
            QuotaReached,
            RequestTooLarge,
            TextHasNul,
            TextNotUtf8,
            TextTooLarge,
            TextWithoutWords,
            TooBusy,
            WrongContentType,
        ),
    },
    operation_id="postText",
)
@security.requires("write")
@form.accepts(form.Accepts((JSON, PLAIN), bytes=None, values=16))
def post(path: CorpusPath, query: TitleQuery, header: RequestKey) -> Answered:
    """Post a text: 202, and it becomes a version soon, in the order in which texts were accepted.

    200 where the corpus has a text with the same body; the answer is that one. Texts are accepted also while the broker
    is down. Where too much waits they are not: 503, and Retry-After says when to try again. With a `priority` the
    corpus is hurried along until the text is searched; texts stay in their order.
    """
    security.check_priority(query.priority)
    submitted = _submitted(query)._replace(priority=query.priority)
    kept, again = resources.admission().post(security.caller().tenant, path.corpus, submitted, header.key)
    line = TextLine.model_validate(kept.answer)
    return responses.accepted(line, kept.status, f"{address(path.corpus)}/texts/{line.id}", again=again)


def _submitted(query: TitleQuery) -> SubmittedText:
    """The text of this request. Raises what is wrong with it, before more of it is read than may be."""
    limit = process.settings().max_text_bytes
    if request.mimetype == PLAIN:
        request.max_content_length = limit
        try:
            return SubmittedText(query.title or UNTITLED, files.decoded("the body", request.get_data(), limit))
        except (RequestTooLarge, RequestEntityTooLarge):
            raise TextTooLarge(source="the body", limit=limit) from None
    if query.title is not None:
        raise InvalidRequest(problem="a JSON body has its own title", where="query/title", fault="extra_forbidden")
    try:
        text = NewText.model_validate(request.get_json())
    except ValidationError as error:
        abort(problems.invalid(error))
    return SubmittedText(text.title, files.decoded("the body", files.encoded("the body", text.body), limit))


@api.get("", responses={200: TextPage, **NOT_MODIFIED, **errors(InvalidCursor)}, operation_id="listTexts")
@security.requires("read")
def every(path: CorpusPath, query: TextsQuery) -> Answered:
    """The texts, in the order of acceptance. A failed text that is accepted again moves to the end."""
    secret = resources.cursor_secret()
    with resources.open_corpus(path.corpus) as (connection, corpus):
        question: list[object] = ["texts", corpus.id, query.state]
        after = 0 if query.cursor is None else int(opened(secret, question, query.cursor))
        found = texts.page(connection, corpus.id, after, query.state, query.limit + 1)
    page, more = found[: query.limit], len(found) > query.limit
    following = sealed(secret, question, str(page[-1].seq).encode()) if more else None
    lines = [posted.line(row) for row in page]
    return responses.tagged(TextPage(version=corpus.version, texts=lines, next_cursor=following), corpus.version)


@api.get("/<unreserved:text>", responses={200: TextLine, **NOT_MODIFIED, **errors(NotFound)}, operation_id="getText")
@security.requires("read")
def one(path: TextPath) -> Answered:
    """A text: its state, its place in the queue, the version that it made, or why it failed."""
    with resources.open_corpus(path.corpus) as (connection, corpus):
        return responses.tagged(posted.text(connection, corpus, path.text), corpus.version)


@api.post(
    "/<text>/cancel",
    responses={200: TextLine, **errors(NotFound, TextIsVersion, TextStarted, WorkNotCancellable)},
    operation_id="cancelText",
)
@security.requires("write")
def cancel(path: TextPath) -> Answered:
    """Cancel a text that is no version yet; what was ingested of it is deleted.

    Idempotent; if it is posted again, it is accepted at the end.
    """
    with resources.open_corpus(path.corpus) as (connection, corpus):
        posted.text(connection, corpus, path.text)
    cancelling.cancel(process.current(), [path.text])
    with resources.open_corpus(path.corpus) as (connection, corpus):
        return responses.json(posted.text(connection, corpus, path.text))
