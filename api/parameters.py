"""What the routes of version 1 take; what they answer is in crochet_tasks.schemas.answers. Nothing unknown is taken."""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from typing_extensions import TypeAliasType

from crochet_tasks.db import metadata
from crochet_tasks.db.corpora import RANGES
from crochet_tasks.operate.names import STATES

NAME = f"^{metadata.NAME}$"
PLAIN = r"^[^\x00-\x1f\x7f]*$"
MOST_AT_ONCE = 1000
LARGEST = 2**53 - 1
"""of whole numbers, that every reader of JSON reads right"""
SHAPE = r"^([2-9]|[1-9][0-9]{1,8})(x([2-9]|[1-9][0-9]{1,8}))+$"
ORTHO_ID = r"^[0-9a-f]{32}$"
SEALED = r"^[A-Za-z0-9_-]+$"
WITHOUT_NUL = r"^[^\x00]*$"
"""These four only say what to give: what is something else has an error code of its own."""
NO_NUL: dict[str, Any] = {"pattern": WITHOUT_NUL}


class Described(BaseModel):
    """flask-openapi asks for the schema of parameters and headers at every request: made once, it is kept."""

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return super().model_json_schema(*args, **kwargs) if args or kwargs else _schema(cls)


@functools.cache
def _schema(model: type[Described]) -> dict[str, Any]:
    return super(Described, model).model_json_schema()


class Given(Described):
    """What a client gives: JSON, or parts of the address."""

    model_config = ConfigDict(extra="forbid")


class InJson(Given):
    """Numbers are numbers there, and no strings."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _whole(cls, value: object) -> object:
        """To JSON, 3.0 is a whole number."""
        return int(value) if isinstance(value, float) and value.is_integer() else value


# ── parts of the address ────────────────────────────────────────────────────────────────────────


class OfCorpus(BaseModel):
    corpus: str = Field(description="the corpus' name", examples=["genesis"])


class OfText(OfCorpus):
    text: str = Field(description="as `POST .../texts` answered", examples=["text-1"])


class OfOrtho(OfCorpus):
    ortho: str = Field(
        description="the ortho's id: 32 hexadecimal digits",
        examples=["0" * 32],
        json_schema_extra={"pattern": ORTHO_ID},
    )


class OfWork(OfCorpus):
    work: str = Field(description="a piece of work's id, or that of a text", examples=["text-1"])


Limit = Annotated[int, Field(ge=1, le=MOST_AT_ONCE, description="how many, at the most")]
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


class Paged(Given):
    limit: Limit = 100
    cursor: Cursor | None = None


class Nothing(Given):
    """No parameters: of every route without a `query`, see `problems.check_form`."""


class Confirmed(Given):
    confirm: str | None = Field(
        default=None,
        max_length=100,
        description="the corpus' name, once more",
        json_schema_extra=NO_NUL,
    )


class TextsWanted(Paged):
    state: Literal["accepted", "ingested", "current", "failed", "cancelled"] | None = Field(
        default=None, description="only texts in this state"
    )


class Titled(Given):
    title: str | None = Field(
        default=None, min_length=1, max_length=200, pattern=PLAIN, description="of a text/plain body; JSON has its own"
    )


class WordsWanted(Paged):
    prefix: str = Field(
        default="",
        max_length=200,
        description="what the words begin with",
        examples=["se"],
        json_schema_extra=NO_NUL,
    )


class PhrasesWanted(Paged):
    prefix: str = Field(
        default="",
        max_length=2000,
        description="words, separated by spaces",
        examples=["in the"],
        json_schema_extra=NO_NUL,
    )


class OrthosWanted(Paged):
    shape: Shape | None = None
    contains: Word | None = Field(default=None, description="only those with this word", examples=["sea"])
    min_volume: int | None = Field(default=None, ge=1, le=LARGEST, description="only those of at least this volume")
    fields: str | None = Field(
        default=None,
        pattern=r"^(id|shape|words|born|volume)(,(id|shape|words|born|volume))*$",
        max_length=100,
        description="only these fields, separated by commas",
        examples=["id,words"],
    )


class BestWanted(Given):
    limit: Limit = 10


class WaitingWanted(Given):
    phrase: str = Field(
        min_length=1,
        max_length=2000,
        description="words, separated by spaces",
        examples=["in the beginning"],
        json_schema_extra=NO_NUL,
    )
    limit: Limit = 100


class WorkWanted(Given):
    state: Literal[STATES] | None = Field(  # type: ignore[valid-type]
        default=None,
        description="`open` is all of ready, held, published, waiting and parked; `dead`: failed, because its messages "
        "died. Without one: what is open or failed",
    )
    kind: Literal["ingest", "context", "remediations", "seed", "grow"] | None = Field(
        default=None, description="only work of this kind"
    )
    limit: Limit = 100


class EventsWanted(Given):
    corpus: str | None = Field(default=None, max_length=100, description="only this corpus", json_schema_extra=NO_NUL)


# ── headers ─────────────────────────────────────────────────────────────────────────────────────


class MayComeAgain(Described):
    key: str | None = Field(
        default=None,
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="the same request with the same key is done once; kept for a day",
        examples=["6f1e5a2c"],
    )


class Seen(Described):
    """It is needed; that it is not there has an error code of its own."""

    model_config = ConfigDict(json_schema_extra={"required": ["If-Match"]})

    if_match: str | None = Field(
        default=None, alias="If-Match", max_length=1000, description="the ETag of what is to be changed"
    )


# ── bodies ──────────────────────────────────────────────────────────────────────────────────────


def _limit(name: str, default: int) -> Any:
    low, high = RANGES[name]
    return Field(default=default, ge=low, le=high)


class LimitsGiven(InJson):
    """They bound what is searched, and are fixed when a corpus is made."""

    max_axes: int = _limit("max_axes", 3)
    max_side: int = _limit("max_side", 8)
    max_cells: int = _limit("max_cells", 64)


Name = Annotated[str, Field(pattern=NAME, examples=["genesis"])]
Description = Annotated[str, Field(max_length=2000, examples=["the first book"])]
Budget = Annotated[
    int, Field(ge=1, le=LARGEST, description="so many orthos, and no more are searched for", examples=[100000])
]


class NewCorpus(InJson):
    name: Name
    limits: LimitsGiven = LimitsGiven()
    description: Description = ""
    budget: Budget | None = None


class CorpusPatch(InJson):
    """A JSON merge patch (RFC 7396): what is left out stays, null takes away. `limits` are refused: they are fixed."""

    name: Name = ""
    description: Description | None = None
    budget: Budget | None = None
    limits: dict[str, int] | None = None


class NewText(InJson):
    title: str = Field(min_length=1, max_length=200, pattern=PLAIN, examples=["chapter 1"])
    body: str = Field(examples=["The seas and the land."])


Cell = TypeAliasType("Cell", "Annotated[str, Field(pattern=WITHOUT_NUL)] | list[Cell]")
"""a word of a box, or what is inside it along its next axis"""


def _either(given: str, other: str) -> dict[str, Any]:
    return {"required": [given], "properties": {given: {"type": "array"}, other: {"type": "null"}}}


class ToCheck(InJson):
    """Either ids or grids."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"oneOf": [_either("ids", "grids"), _either("grids", "ids")]}
    )

    ids: list[Annotated[str, Field(pattern=WITHOUT_NUL)]] | None = Field(
        default=None, min_length=1, max_length=MOST_AT_ONCE
    )
    grids: list[list[Cell]] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_AT_ONCE,
        description="boxes of words: lists of lists of words, as deep as they have axes",
        examples=[[[["the", "seas"], ["land", "and"]]]],
    )
    exact: bool = Field(default=True, description="false: at most 1 % of what is not stored is said to be; faster")
