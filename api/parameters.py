"""What the routes of version 1 take; crochet_tasks.schemas.answers has what they answer. Unknown names are refused."""

from __future__ import annotations

import functools
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
)
from pydantic_core import PydanticKnownError
from typing_extensions import TypeAliasType

from crochet_tasks.access.keys import Scope
from crochet_tasks.db.corpora import RANGES
from crochet_tasks.operate.names import STATES
from crochet_tasks.schemas import names
from crochet_tasks.schemas.names import TITLE, TITLE_LENGTH, UNTITLED

NAME = f"^{names.NAME}$"
PLAIN = TITLE
MOST_AT_ONCE = 1000
LARGEST = 2**53 - 1
"""the largest whole number that every JSON parser reads exactly"""
SHAPE = r"^([2-9]|[1-9][0-9]{1,8})(x([2-9]|[1-9][0-9]{1,8}))+$"
ORTHO_ID = r"^[0-9a-f]{32}$"
SEALED = r"^[A-Za-z0-9_-]+$"
WITHOUT_NUL = r"^[^\x00]*$"
"""SHAPE to WITHOUT_NUL are documentation: what does not match has an error code of its own."""
FIELDS = r"^(id|shape|words|born|volume)(,(id|shape|words|born|volume))*$"
REQUEST_KEY = r"^[\x21-\x7e]{1,255}$"
NO_NUL: dict[str, Any] = {"pattern": WITHOUT_NUL}
IN_WORDS = {
    NAME: "must be 1 to 100 ASCII letters, digits, '.', '_' or '-', beginning with a letter or digit",
    PLAIN: "must hold no control characters",
    WITHOUT_NUL: "must hold no NUL character",
    FIELDS: "must be some of id, shape, words, born and volume, separated by commas",
    REQUEST_KEY: "must be 1 to 255 visible ASCII characters",
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


class Body(Described):
    """A JSON object. Numbers are numbers there, not strings."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _whole(cls, value: object) -> object:
        """In JSON, 3.0 is a whole number."""
        return int(value) if isinstance(value, float) and value.is_integer() else value


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
        description="the corpus' name, once more",
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
    what: str | None = Field(default=None, pattern="^[a-z.]{1,40}$", description="only what begins so")
    since: Moment | None = Field(default=None, description="only from then on")
    until: Moment | None = Field(default=None, description="only before then")


class TextsQuery(PageQuery):
    state: Literal["accepted", "ingested", "current", "failed", "cancelled"] | None = Field(
        default=None, description="only texts in this state"
    )


class TitleQuery(Query):
    title: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        pattern=PLAIN,
        description=f"of a text/plain body, by default '{UNTITLED}'; a JSON body has its own",
    )


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


class Preconditions(Headers):
    """If-Match is required; without it the answer is precondition_required."""

    model_config = ConfigDict(json_schema_extra={"required": ["If-Match"]})

    if_match: str | None = Field(
        default=None, alias="If-Match", max_length=1000, description="the ETag of what is to be changed"
    )


# ── bodies ──────────────────────────────────────────────────────────────────────────────────────


def _limit(name: str, default: int) -> Any:
    low, high = RANGES[name]
    return Field(default=default, ge=low, le=high)


class LimitsGiven(Body):
    """They bound what is searched, and are fixed when a corpus is made."""

    max_axes: int = _limit("max_axes", 3)
    max_side: int = _limit("max_side", 8)
    max_cells: int = _limit("max_cells", 64)


Name = Annotated[str, Field(pattern=NAME, examples=["genesis"])]
Description = Annotated[str, Field(max_length=2000, examples=["the first book"])]
Budget = Annotated[
    int, Field(ge=1, le=LARGEST, description="so many orthos, and no more are searched for", examples=[100000])
]


class NewCorpus(Body):
    name: Name
    limits: LimitsGiven = LimitsGiven()
    description: Description = ""
    budget: Budget | None = Field(default=None, description="null: all are searched for; left out: the default budget")


class CorpusPatch(Body):
    """A JSON merge patch (RFC 7396): what is left out stays, null takes away. `limits` are refused: they are fixed."""

    name: Name = ""
    description: Description | None = None
    budget: Budget | None = None
    paused: bool = Field(default=False, description="none of its work is begun; texts are accepted and wait")
    limits: dict[str, int] | None = None


class NewKey(Body):
    name: str = Field(pattern=r"^[^\x00-\x1f\x7f]{1,100}$", description="whose it is, what it is for", examples=["me"])
    scope: Scope = Field(default="read", description="each includes those before it")
    corpora: list[Name] = Field(default=[], max_length=100, description="only these; none: all of the tenant")
    days: Annotated[int, Field(ge=1, le=36_500)] | None = Field(default=None, description="until it ends; null: never")
    tenant: Name | None = Field(default=None, description="operators only: whose; null: the caller's")


class KeyRotation(Body):
    grace: int = Field(default=0, ge=0, le=2_592_000, description="seconds for which the old one is still good")


class NewBest(Body):
    """What is left out is as the corpus has it. `max_side` is at most that of the corpus."""

    top: int | None = Field(
        default=None,
        ge=1,
        le=MOST_AT_ONCE,
        description="so many, the best first; null: all that share the largest volume and cells",
    )
    max_axes: Annotated[int, Field(ge=2, le=8)] | Literal["any"] = Field(default=3, examples=["any"])
    max_side: int = _limit("max_side", 8)
    max_cells: Annotated[int, Field(ge=4, le=1024)] | Literal["any"] = Field(default=64, examples=["any"])


class NewText(Body):
    title: str = Field(default=UNTITLED, min_length=1, max_length=TITLE_LENGTH, pattern=PLAIN, examples=["chapter 1"])
    body: str = Field(examples=["The seas and the land."])


def _kind_of_cell(value: object) -> str:
    return "cells" if isinstance(value, list) else "word"


Cell = TypeAliasType(
    "Cell",
    "Annotated[Annotated[str, Field(pattern=WITHOUT_NUL), Tag('word')] "
    "| Annotated[list[Cell], Field(fail_fast=True), Tag('cells')], Discriminator(_kind_of_cell)]",
)
"""A word of a grid, or a list of the cells along its next axis. Only the first fault of a list is found: the faults of
a nested list would be many more, and longer, than the list.
"""


def _either(required: str, other: str) -> dict[str, Any]:
    return {"required": [required], "properties": {required: {"type": "array"}, other: {"type": "null"}}}


class ToCheck(Body):
    """Either ids or grids."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"oneOf": [_either("ids", "grids"), _either("grids", "ids")]}
    )

    ids: Annotated[list[Annotated[str, Field(pattern=WITHOUT_NUL)]], Field(fail_fast=True)] | None = Field(
        default=None, min_length=1, max_length=MOST_AT_ONCE
    )
    grids: Annotated[list[Annotated[list[Cell], Field(fail_fast=True)]], Field(fail_fast=True)] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_AT_ONCE,
        description="boxes of words: lists of lists of words, as deep as they have axes",
        examples=[[[["the", "seas"], ["land", "and"]]]],
    )
    exact: bool = Field(
        default=True,
        description="false: answered from the phrases alone; `false_positives` says how often it errs",
    )


class Exchange(Body):
    """What a token is for."""

    scopes: list[Scope] | None = Field(
        default=None, min_length=1, max_length=4, description="those of the key, or fewer", examples=[["read"]]
    )


class Refresh(Body):
    refresh_token: str = Field(max_length=200, json_schema_extra={"pattern": "^crr_[A-Za-z0-9_-]{43}$"})
