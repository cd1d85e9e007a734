"""What the routes of version 1 take beside bodies: parts of the address, queries, headers. Unknown names are refused.

bodies.py has the bodies, crochet_tasks.schemas.answers what they answer.
"""

from __future__ import annotations

import functools
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)
from pydantic_core import PydanticKnownError

from crochet_tasks.db.texts import HIGHEST
from crochet_tasks.operate.names import STATES
from crochet_tasks.schemas import names
from crochet_tasks.schemas.names import TITLE, UNTITLED

NAME = f"^{names.NAME}$"
PLAIN = TITLE
MOST_AT_ONCE = 1000
TEXTS_AT_ONCE = 100
"""of one request, or form of the page"""
LARGEST = 2**53 - 1
"""the largest whole number that every JSON parser reads exactly"""
SHAPE = r"^([2-9]|[1-9][0-9]{1,8})(x([2-9]|[1-9][0-9]{1,8}))+$"
ORTHO_ID = r"^[0-9a-f]{32}$"
SEALED = r"^[A-Za-z0-9_-]+$"
WITHOUT_NUL = r"^[^\x00]*$"
"""SHAPE to WITHOUT_NUL are documentation: what does not match has an error code of its own."""
FIELDS = r"^(id|shape|words|born|volume)(,(id|shape|words|born|volume))*$"
REQUEST_KEY = r"^[\x21-\x7e]{1,255}$"
BATCH_KEY = r"^[\x21-\x7e]{1,250}$"
"""with the number of a text behind it, it is a key"""
NO_NUL: dict[str, Any] = {"pattern": WITHOUT_NUL}
IN_WORDS = {
    NAME: "must be 1 to 100 ASCII letters, digits, '.', '_' or '-', beginning with a letter or digit",
    PLAIN: "must hold no control characters",
    WITHOUT_NUL: "must hold no NUL character",
    FIELDS: "must be some of id, shape, words, born and volume, separated by commas",
    REQUEST_KEY: "must be 1 to 255 visible ASCII characters",
    BATCH_KEY: "must be 1 to 250 visible ASCII characters",
}
"""what a pattern asks for"""


class Described(BaseModel):
    """Caches the JSON schema, which flask-openapi asks for at every request."""

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return super().model_json_schema(*args, **kwargs) if args or kwargs else _schema(cls)


@functools.cache
def _schema(model: type[Described]) -> dict[str, Any]:
    return super(Described, model).model_json_schema()


class Query(Described):
    """The query parameters of a route."""

    model_config = ConfigDict(extra="forbid")


class Headers(Described):
    """Headers that a route reads."""


def _digits(value: object) -> object:
    """Refuse what `int` reads beside plain decimal digits: `1_0`, `1.0`, ` +5`."""
    if isinstance(value, str) and not re.fullmatch(r"0|-?[1-9][0-9]{0,15}", value):
        raise PydanticKnownError("int_parsing")
    return value


# ── parts of the address ────────────────────────────────────────────────────────────────────────


class CorpusPath(BaseModel):
    corpus: str = Field(description="the corpus' name", examples=["genesis"])


class TextPath(CorpusPath):
    text: str = Field(description="as `POST .../texts` answered", examples=["text-1"])


class BestPath(CorpusPath):
    job: str = Field(description="as `POST .../best` answered", examples=["best-1"])


class TenantPath(BaseModel):
    tenant: str = Field(description="the tenant's name", examples=["library"])


class KeyPath(BaseModel):
    key: str = Field(description="the key's prefix", examples=["abcdefghij"])


class OrthoPath(CorpusPath):
    ortho: str = Field(
        description="the ortho's id: 32 hexadecimal digits",
        examples=["0" * 32],
        json_schema_extra={"pattern": ORTHO_ID},
    )


class WorkPath(CorpusPath):
    work: str = Field(description="a piece of work's id, or that of a text", examples=["text-1"])


Whole = BeforeValidator(_digits)
Limit = Annotated[int, Field(ge=1, le=MOST_AT_ONCE, description="how many, at the most"), Whole]
"""Whole comes last: before Field, it would hide the bounds from the JSON schema"""
Cursor = Annotated[
    str,
    Field(
        min_length=1,
        max_length=6000,  # the server takes no address of more than 8190 bytes
        description="`next_cursor` of the page before",
        json_schema_extra={"pattern": SEALED},
    ),
]
Word = Annotated[str, Field(min_length=1, max_length=200, json_schema_extra=NO_NUL)]
Shape = Annotated[
    str, Field(max_length=100, description="only this shape", examples=["2x3"], json_schema_extra={"pattern": SHAPE})
]


class PageQuery(Query):
    limit: Limit = 100
    cursor: Cursor | None = None


class KeysQuery(PageQuery):
    tenant: Annotated[str, Field(pattern=NAME, description="operators only: of this tenant")] | None = None


class NoQuery(Query):
    """No parameters: of every route without a `query`, see `form.check`."""


class ConfirmQuery(Query):
    confirm: str | None = Field(
        default=None,
        max_length=100,
        description="the name of what is deleted, once more",
        json_schema_extra=NO_NUL,
    )


def _moment(value: object) -> object:
    """Pydantic takes numbers for moments, too; the document says that it is RFC 3339."""
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d[Tt ]", value):
        return value
    raise PydanticKnownError("datetime_from_date_parsing", {"error": "give date, time and zone as RFC 3339 has it"})


Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]


class AuditQuery(PageQuery):
    corpus: Annotated[str, Field(pattern=NAME, description="only of this corpus")] | None = None
    by: str | None = Field(
        default=None, min_length=1, max_length=100, pattern=PLAIN, description="only by this key or command line's user"
    )
    subject: str | None = Field(
        default=None, pattern="^(text|work|corpus|key|tenant) [a-z0-9-]{1,40}$", description="only about this"
    )
    what: str | None = Field(default=None, pattern="^[a-z._]{1,40}$", description="only what begins so")
    since: Moment | None = Field(default=None, description="only from then on")
    until: Moment | None = Field(default=None, description="only before then")


class TextsQuery(PageQuery):
    state: Literal["accepted", "ingested", "current", "failed", "cancelled"] | None = Field(
        default=None, description="only texts in this state"
    )


Priority = Annotated[
    int,
    Field(ge=0, le=HIGHEST, description="that the corpus has at least while work is due that the text waits for"),
    Whole,
]


class TitleQuery(Query):
    title: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        pattern=PLAIN,
        description=f"of a text/plain body, by default '{UNTITLED}'; a JSON body has its own",
    )
    priority: Priority = 0


class PriorityQuery(Query):
    priority: Priority = 0


class WordsQuery(PageQuery):
    prefix: str = Field(
        default="",
        max_length=200,
        description="what the words begin with",
        examples=["se"],
        json_schema_extra=NO_NUL,
    )


class PhrasesQuery(PageQuery):
    prefix: str = Field(
        default="",
        max_length=2000,
        description="words, separated by spaces",
        examples=["in the"],
        json_schema_extra=NO_NUL,
    )


class OrthosQuery(PageQuery):
    shape: Shape | None = None
    starts_with: str | None = Field(
        default=None,
        min_length=1,
        max_length=2000,
        description="only those that begin with these words, separated by spaces",
        examples=["the sea"],
        json_schema_extra=NO_NUL,
    )
    contains: str | None = Field(
        default=None,
        min_length=1,
        max_length=2000,
        description="only those with this word, or with these words one after another in a line",
        examples=["sea"],
        json_schema_extra=NO_NUL,
    )
    shares_line_with: str | None = Field(
        default=None,
        pattern=ORTHO_ID,
        description="only others that have a line in common with the ortho of this id, along any axis",
    )
    min_volume: Annotated[int, Field(ge=1, le=LARGEST), Whole] | None = Field(
        default=None, description="only those of at least this volume"
    )
    after: str | None = Field(
        default=None, pattern=ORTHO_ID, description="only those behind the ortho of this id; a cursor goes before it"
    )
    fields: str | None = Field(
        default=None,
        pattern=FIELDS,
        max_length=100,
        description="only these fields, separated by commas",
        examples=["id,words"],
    )


class BestQuery(Query):
    limit: Limit = 10


class WaitingQuery(Query):
    phrase: str = Field(
        min_length=1,
        max_length=2000,
        description="words, separated by spaces",
        examples=["in the beginning"],
        json_schema_extra=NO_NUL,
    )
    limit: Limit = 100


class WorkQuery(Query):
    state: Literal[STATES] | None = Field(  # type: ignore[valid-type]
        default=None,
        description="`open` is all of ready, held, published, waiting and parked; `dead`: failed, because its messages "
        "died. Without one: what is open or failed",
    )
    kind: Literal["ingest", "context", "remediations", "search", "best"] | None = Field(
        default=None, description="only work of this kind"
    )
    limit: Limit = 100


class EventsQuery(Query):
    corpus: str | None = Field(default=None, max_length=100, description="only this corpus", json_schema_extra=NO_NUL)


# ── headers ─────────────────────────────────────────────────────────────────────────────────────


class RequestKey(Headers):
    key: str | None = Field(
        default=None,
        alias="Idempotency-Key",
        pattern=REQUEST_KEY,
        description="the same request with the same key is done once; kept for a day",
        examples=["6f1e5a2c"],
    )


class BatchKey(Headers):
    key: str | None = Field(
        default=None,
        alias="Idempotency-Key",
        pattern=BATCH_KEY,
        description="text number N has this key, a colon and N",
        examples=["6f1e5a2c"],
    )


class Preconditions(Headers):
    """If-Match is required; without it the answer is precondition_required."""

    model_config = ConfigDict(json_schema_extra={"required": ["If-Match"]})

    if_match: str | None = Field(
        default=None, alias="If-Match", max_length=1000, description="the ETag of what is to be changed"
    )
