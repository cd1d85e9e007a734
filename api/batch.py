"""Many texts in one request: as JSON, or as files and zip files of a form. Each has an answer of its own."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from flask import abort, request
from flask_openapi.models import RequestBody
from pydantic import Field, ValidationError
from werkzeug.datastructures import FileStorage

from api import form, problems, process, request_metrics, resources, responses, security
from api.bodies import Body, NewText
from api.form import JSON, MULTIPART
from api.openapi import errors
from api.parameters import REQUEST_KEY, TEXTS_AT_ONCE, BatchKey, CorpusPath, PriorityQuery
from api.responses import Answered
from api.routes import Routes
from crochet_tasks.errors import (
    CrochetError,
    IdempotencyKeyReused,
    InvalidRequest,
    PriorityTooHigh,
    QuotaReached,
    RequestTooLarge,
    TextHasNul,
    TextNotUtf8,
    TextTooLarge,
    TextWithoutWords,
    TooBusy,
    WrongContentType,
    ZipRefused,
    public_message,
)
from crochet_tasks.intake import files, zips
from crochet_tasks.intake.admission import SubmittedText
from crochet_tasks.schemas.answers import TextsTaken, TextTaken
from crochet_tasks.schemas.names import UNTITLED, title_of
from crochet_tasks.schemas.reports import TextError, TextLine
from crochet_tasks.telemetry import metrics

api = Routes("batch", "/v1/corpora/<corpus>/texts/batch", "texts")
OF_A_TEXT = (
    *(IdempotencyKeyReused, QuotaReached, TextHasNul, TextNotUtf8, TextTooLarge, TextWithoutWords, TooBusy),
    ZipRefused,
)
"""what is wrong with one text, and no fault of the others"""
FILES = "files"
"""the field of a form that holds them"""
REPLACED = "\ufffd"
"""in a field, what was no UTF-8: Werkzeug decodes it"""
LONGEST = 1000
"""characters of a message"""


class BatchText(NewText):
    idempotency_key: str | None = Field(default=None, pattern=REQUEST_KEY, examples=["chapter-1"])


class NewBatch(Body):
    texts: list[BatchText] = Field(min_length=1, max_length=TEXTS_AT_ONCE)


def _body() -> dict[str, Any]:
    """Both forms of a body. Pydantic would describe what is in the list by a reference that OpenAPI does not have."""
    listed = copy.deepcopy(NewBatch.model_json_schema())
    listed.pop("$defs")
    listed["properties"]["texts"]["items"] = BatchText.model_json_schema()
    one = {"type": "string", "contentMediaType": "application/octet-stream"}
    many = {"type": "array", "items": one, "minItems": 1, "maxItems": TEXTS_AT_ONCE}
    sent = {"type": "object", "required": [FILES], "properties": {FILES: many}, "additionalProperties": False}
    return {JSON: {"schema": listed}, MULTIPART: {"schema": sent}}


class _Item(NamedTuple):
    """A text of the request. `read` gives it, or raises one of OF_A_TEXT."""

    title: str
    key: str | None
    read: Callable[[], str]


@api.post(
    "",
    request_body=RequestBody(content=_body(), required=True),
    responses={200: TextsTaken, **errors(PriorityTooHigh, RequestTooLarge, TooBusy, WrongContentType)},
    operation_id="postTexts",
)
@security.requires("write")
@form.accepts(form.Accepts((JSON, MULTIPART), bytes=None, values=10 * TEXTS_AT_ONCE))
def post(path: CorpusPath, query: PriorityQuery, header: BatchKey) -> Answered:
    """Post up to 100 texts, accepted in this order, each as in a request of its own: `status` and `error` are its.

    A form has them as `files`; a zip file stands for the files in it, whose names are the titles. One text is refused,
    the others are accepted all the same. Text number N of a request with an `Idempotency-Key` has the key `KEY:N`,
    unless it has one of its own: so the same request may be sent again, with the texts in the same places.
    """
    security.check_priority(query.priority)
    found = _files() if request.mimetype == MULTIPART else _listed()
    items = list(itertools.islice(found, TEXTS_AT_ONCE + 1))
    if not items or len(items) > TEXTS_AT_ONCE:
        raise _other_number("more texts" if items else "no text")
    with resources.open_corpus(path.corpus):  # it may be that no text comes so far as to look for it
        pass
    if header.key is not None:
        items = [
            item if item.key else item._replace(key=f"{header.key}:{place}") for place, item in enumerate(items, 1)
        ]
    return responses.json(TextsTaken(texts=[_taken(path.corpus, item, query.priority) for item in items]))


def _other_number(problem: str) -> InvalidRequest:
    return InvalidRequest(problem=f"{problem}; 1 to {TEXTS_AT_ONCE} are accepted at once", where="/texts")


def _taken(corpus: str, item: _Item, priority: int) -> TextTaken:
    try:
        submitted = SubmittedText(item.title, item.read(), priority)
        kept, again = resources.admission().post(security.caller().tenant, corpus, submitted, item.key)
    except OF_A_TEXT as error:
        metrics.PROBLEMS.add(code=error.code, http_route=request_metrics.route())
        return TextTaken(title=item.title, status=error.status, text=None, replayed=False, error=_error(error))
    text = TextLine.model_validate(kept.answer)
    return TextTaken(title=item.title, status=kept.status, text=text, replayed=again, error=None)


def _error(error: CrochetError) -> TextError:
    return TextError(code=error.code, message=problems.cut(public_message(error.code, str(error)), LONGEST))


# ── what is in the request ──────────────────────────────────────────────────────────────────────


def _listed() -> Iterator[_Item]:
    try:
        batch = NewBatch.model_validate(request.get_json())
    except ValidationError as error:
        abort(problems.invalid(error))
    for text in batch.texts:
        yield _Item(text.title, text.idempotency_key, _decoded(text.title, _of_json(text)))


def _of_json(text: BatchText) -> Callable[[int], bytes]:
    return lambda _: files.encoded(f"'{text.title}'", text.body)


def _files() -> Iterator[_Item]:
    """The files of a form, and those in its zip files: each is read when it is its turn. Then what is no file there."""
    for name in {*request.files, *request.form} - {FILES}:
        raise InvalidRequest(problem=f"a form has {FILES} only", where=f"/{name}", fault="extra_forbidden")
    if len(request.files.getlist(FILES)) > TEXTS_AT_ONCE:  # also of zip files without a text
        raise _other_number("more files")
    room = request.max_content_length or 0
    for sent in request.files.getlist(FILES):
        if not _is_zip(sent):
            yield _file(sent)
            continue
        try:
            members = zips.members(sent.stream, f"'{title_of(sent.filename or '')}'", TEXTS_AT_ONCE, room)
        except ZipRefused as error:
            yield _Item(title_of(sent.filename or ""), None, _refused(error))
        else:
            room -= sum(member.size for member in members)  # all of them may not unpack to more than a request holds
            yield from (_Item(title_of(one.name), None, _decoded(title_of(one.name), one.read)) for one in members)
    for value in request.form.getlist(FILES):
        yield _Item(UNTITLED, None, _field(value))


def _field(value: str) -> Callable[[], str]:
    def read() -> str:
        if REPLACED in value:
            raise TextNotUtf8(source="a field", offset=value.index(REPLACED), looks="send it as a file")
        return files.decoded("a field", value.encode(), process.settings().max_text_bytes)

    return read


def _is_zip(sent: FileStorage) -> bool:
    begins = sent.stream.read(len(zips.MAGIC))
    sent.stream.seek(0)
    return bool(begins == zips.MAGIC)


def _file(sent: FileStorage) -> _Item:
    title = title_of(sent.filename or "")
    return _Item(title, None, _decoded(title, sent.stream.read))


def _refused(error: ZipRefused) -> Callable[[], str]:
    def read() -> str:
        raise error

    return read


def _decoded(title: str, read: Callable[[int], bytes]) -> Callable[[], str]:
    limit = process.settings().max_text_bytes
    return lambda: files.decoded(f"'{title}'", read(limit + 1), limit)
