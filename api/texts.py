"""Texts: hand in, look, cancel."""

from __future__ import annotations

from typing import Any

from flask import abort, current_app, request
from flask_openapi import APIBlueprint, Tag
from flask_openapi.models import RequestBody
from pydantic import ValidationError

from api import etags, problems, process, resources, security
from api import responses as answers
from api.corpora import address
from api.openapi import NOT_MODIFIED
from api.openapi import problems as documented
from api.parameters import MayComeAgain, NewText, OfCorpus, OfText, TextsWanted, Titled
from api.responses import Answered
from crochet_tasks.db import texts
from crochet_tasks.errors import (
    IdempotencyKeyReused,
    InvalidCursor,
    InvalidRequest,
    NotFound,
    RequestTooLarge,
    TextHasNul,
    TextNotUtf8,
    TextStarted,
    TextTooLarge,
    TextWithoutWords,
    TooBusy,
    WrongContentType,
)
from crochet_tasks.intake import admission, files
from crochet_tasks.intake.admission import Given
from crochet_tasks.operate import actions
from crochet_tasks.query.cursor import opened, sealed
from crochet_tasks.schemas.answers import TextPage
from crochet_tasks.schemas.reports import TextLine

JSON, PLAIN = "application/json", "text/plain"
CHUNK = 1 << 16

api = APIBlueprint(
    "texts",
    __name__,
    url_prefix="/v1/corpora/<corpus>/texts",
    abp_tags=[Tag(name="texts")],
    abp_security=security.NEEDS_KEY,
)
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
        **documented(
            IdempotencyKeyReused,
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
def post(path: OfCorpus, query: Titled, header: MayComeAgain) -> Answered:
    """Hand in a text: 202, and it is a version soon, in the order in which texts were accepted.

    200 where the corpus has a text with the same body; that one is answered. It is accepted also while the broker is
    away. Where too much waits it is not: 503, and Retry-After says when to try again.
    """
    given = _given(query)
    kept, again = resources.desk().post(security.caller().tenant, path.corpus, given, header.key)
    line = TextLine.model_validate(kept.answer)
    response = answers.json(line, kept.status, {"Location": f"{address(path.corpus)}/texts/{line.id}"})
    if again:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _given(query: Titled) -> Given:
    """The text of this request. Raises what is wrong with it, before more of it is read than may be."""
    limit = process.settings().max_text_bytes
    if request.mimetype == PLAIN:
        _check_charset()
        if query.title is None:
            raise InvalidRequest(problem="a text/plain body needs ?title=")
        return Given(query.title, files.decoded("the body", _read(limit), limit))
    if request.mimetype != JSON:
        raise WrongContentType(wanted=f"{JSON} or {PLAIN}", given=request.mimetype[:100] or "nothing")
    if query.title is not None:
        raise InvalidRequest(problem="a JSON body has its own title")
    text = _parsed(_read(current_app.config["MAX_CONTENT_LENGTH"]))  # for the body as a whole, escapes and all
    return Given(text.title, files.decoded("the body", files.encoded("the body", text.body), limit))


def _check_charset() -> None:
    charset = request.mimetype_params.get("charset", "utf-8")
    if charset.lower() not in ("utf-8", "utf8", "us-ascii"):
        raise WrongContentType(wanted=f"{PLAIN}; charset=utf-8", given=f"charset={charset[:40]}")


def _read(limit: int) -> bytes:
    """The body, which may come in chunks of unknown number; raises TextTooLarge as soon as it is too long."""
    if (request.content_length or 0) > limit:
        raise TextTooLarge(source="the body", limit=limit)
    body = bytearray()
    while chunk := request.stream.read(CHUNK):
        body += chunk
        if len(body) > limit:
            raise TextTooLarge(source="the body", limit=limit)
    return bytes(body)


def _parsed(content: bytes) -> NewText:
    try:
        return NewText.model_validate_json(content)
    except ValidationError as error:
        abort(problems.invalid(error))


@api.get("", responses={200: TextPage, **NOT_MODIFIED, **documented(InvalidCursor)}, operation_id="listTexts")
@security.requires("read")
def every(path: OfCorpus, query: TextsWanted) -> Answered:
    """The texts, in the order of acceptance. One that is given again after it failed stands at the end."""
    secret = resources.cursor_secret()
    with resources.shown(path.corpus) as (connection, corpus):
        question: list[object] = ["texts", corpus.id, query.state]
        after = 0 if query.cursor is None else int(opened(secret, question, query.cursor))
        found = texts.page(connection, corpus.id, after, query.state, query.limit + 1)
    page, more = found[: query.limit], len(found) > query.limit
    following = sealed(secret, question, str(page[-1].seq).encode()) if more else None
    lines = [admission.line(seen) for seen in page]
    return etags.answer(TextPage(version=corpus.version, texts=lines, next_cursor=following), corpus.version)


@api.get("/<text>", responses={200: TextLine, **NOT_MODIFIED, **documented(NotFound)}, operation_id="getText")
@security.requires("read")
def one(path: OfText) -> Answered:
    """A text: its state, its place in the queue, the version that it made, or why it failed."""
    with resources.shown(path.corpus) as (connection, corpus):
        return etags.answer(admission.text(connection, corpus, path.text), corpus.version)


@api.post("/<text>/cancel", responses={200: TextLine, **documented(NotFound, TextStarted)}, operation_id="cancelText")
@security.requires("write")
def cancel(path: OfText) -> Answered:
    """Let a text that was not begun not become a version. Twice is once; handed in again, it stands at the end."""
    with resources.shown(path.corpus) as (connection, corpus):
        admission.text(connection, corpus, path.text)
    actions.cancel(process.process(), [path.text])
    with resources.shown(path.corpus) as (connection, corpus):
        return answers.json(admission.text(connection, corpus, path.text))
