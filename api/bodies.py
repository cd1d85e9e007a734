"""The JSON bodies that the routes of version 1 take. Unknown names are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator
from typing_extensions import TypeAliasType

from api.parameters import LARGEST, MOST_AT_ONCE, NAME, NO_NUL, PLAIN, WITHOUT_NUL, Described
from crochet_tasks.access.keys import Scope
from crochet_tasks.access.tenants import LIMITS, WEIGHTS
from crochet_tasks.db.corpora import HIGHEST, LOWEST, RANGES
from crochet_tasks.schemas.names import TITLE_LENGTH, UNTITLED


class Body(Described):
    """A JSON object. Numbers are numbers there, not strings."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _whole(cls, value: object) -> object:
        """In JSON, 3.0 is a whole number."""
        return int(value) if isinstance(value, float) and value.is_integer() else value


def _limit(name: str, default: int) -> Any:
    low, high = RANGES[name]
    return Field(default=default, ge=low, le=high)


class LimitsGiven(Body):
    """They bound what is searched, and are fixed when a corpus is made."""

    max_axes: int = _limit("max_axes", 3)
    max_side: int = _limit("max_side", 8)
    max_cells: int = _limit("max_cells", 64)


def _between(limit: str) -> Any:
    low, high = LIMITS[limit]
    return Field(ge=low, le=high)


Name = Annotated[str, Field(pattern=NAME, examples=["genesis"])]
Description = Annotated[str, Field(max_length=2000, json_schema_extra=NO_NUL, examples=["the first book"])]
Budget = Annotated[
    int, Field(ge=1, le=LARGEST, description="so many orthos, and no more are searched for", examples=[100000])
]


Priority = Annotated[
    int, Field(ge=LOWEST, le=HIGHEST, description="each step doubles its share of what its tenant has", examples=[1])
]


class NewCorpus(Body):
    name: Name
    limits: LimitsGiven = LimitsGiven()
    description: Description = ""
    budget: Budget | None = Field(default=None, description="null: all are searched for; left out: the default budget")
    priority: Priority = 0


class CorpusPatch(Body):
    """A JSON merge patch (RFC 7396): what is left out stays, null takes away. `limits` are refused: they are fixed."""

    name: Name = ""
    description: Description | None = None
    budget: Budget | None = None
    priority: Priority = 0
    paused: bool = Field(default=False, description="none of its work is begun; texts are accepted and wait")
    limits: dict[str, int] | None = None


class NewKey(Body):
    name: str = Field(pattern=r"^[^\x00-\x1f\x7f]{1,100}$", description="whose it is, what it is for", examples=["me"])
    scope: Scope = Field(default="read", description="each includes those before it")
    corpora: list[Name] = Field(default=[], max_length=100, description="only these; none: all of the tenant")
    days: Annotated[int, Field(ge=1, le=36_500)] | None = Field(default=None, description="until it ends; null: never")
    tenant: Name | None = Field(default=None, description="operators only: whose; null: the caller's")


class NewTenant(Body):
    name: Name


class TenantPatch(Body):
    """A JSON merge patch (RFC 7396): what is left out stays, null takes a limit or quota away."""

    name: Name = ""
    weight: Annotated[int, Field(ge=WEIGHTS[0], le=WEIGHTS[1])] = Field(
        default=1, description="its share of the workers, where others have work, too"
    )
    max_corpora: Annotated[int, _between("max_corpora")] | None = None
    rate: Annotated[int, _between("rate")] | None = Field(default=None, description="requests of a key in a minute")
    max_searches: Annotated[int, _between("max_searches")] | None = Field(
        default=None, description="that are published at once"
    )
    max_orthos: Annotated[int, _between("max_orthos")] | None = Field(
        default=None, description="after which no more are searched for"
    )
    max_texts: Annotated[int, _between("max_texts")] | None = Field(
        default=None, description="that are kept, in any state"
    )
    max_bytes: Annotated[int, _between("max_bytes")] | None = Field(
        default=None, description="of the texts that are kept"
    )
    suspended: bool = False


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


class IdToken(Body):
    id_token: str = Field(min_length=1, max_length=3_900, json_schema_extra={"pattern": r"^[A-Za-z0-9_.-]+$"})


class Refresh(Body):
    refresh_token: str = Field(max_length=200, json_schema_extra={"pattern": "^crr_[A-Za-z0-9_-]{43}$"})
