"""The messages of tasks."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from crochet_tasks.engine.geometry import Cells, Sides, pack_cells, unpack_cells


class Message(BaseModel):
    """The payload of a task: small, immutable, nothing unknown in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: int

    @property
    def items(self) -> list[uuid.UUID]:
        """The work items that it is about."""
        raise NotImplementedError

    def payload(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def shown(self, about: Mapping[str, object]) -> str:
        """For Flower and logs: corpus, text or shape (from `about`, the log context), work; never contents."""
        first, *more = map(str, self.items)
        subject = [str(about[name]) for name in ("text", "shape") if name in about]
        work = f"work {first}{f' and {len(more)} more' if more else ''}"
        return ", ".join([f"corpus {about.get('corpus', self.corpus)}", *subject, work])

    def __str__(self) -> str:
        return self.shown({})


class Trigger(Message):
    """Triggers a task of an ordered stage; the database decides whether its work item has its turn."""

    work: uuid.UUID

    @property
    def items(self) -> list[uuid.UUID]:
        return [self.work]


class SearchCall(Message):
    """Search these work items: one seed, or batches of one shape through one window."""

    work: Annotated[list[uuid.UUID], Field(min_length=1)]

    @property
    def items(self) -> list[uuid.UUID]:
        return self.work


class Packed(BaseModel):
    """Orthos of one shape, packed as they are stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sides: tuple[int, ...]
    count: Annotated[int, Field(ge=1)]
    width: Literal[2, 4]
    cells: bytes

    @classmethod
    def of(cls, sides: Sides, cells: Cells, **more: Any) -> Self:
        width: Any = cells.dtype.itemsize
        return cls(sides=sides, count=cells.shape[1], width=width, cells=pack_cells(cells), **more)

    def unpacked(self) -> Cells:
        return unpack_cells(self.cells, self.count, self.width)


class Searched(BaseModel):
    """Batches that were searched as one: their remediations, and what became of them.

    A batch alone that was searched to its end stays as it is. Several small ones become one, and a batch that
    yielded too much for one result is cut: then `rewritten` holds the orthos searched, and `left_over` the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    work: list[uuid.UUID]
    batches: list[int]
    consulted: bytes
    """int4, little-endian, ascending"""
    rewritten: Packed | None = None
    left_over: Packed | None = None


class FoundBatch(Packed):
    """Orthos that were found, and what they wait on where they were searched at once: None where that is to be done.

    Few orthos are not worth a work item of their own, so a search goes on with them.
    """

    consulted: bytes | None


class SearchResult(Message):
    """The result of a search, sent to `orthos` as one binary message."""

    upto: int
    """the version up to which was searched"""
    seed: uuid.UUID | None
    """the seed that was played, or None for a grow"""
    seed_left_over: tuple[int, int] | None
    searched: list[Searched]
    handed_back: list[uuid.UUID]
    """work that did not fit into this result: it is published again"""
    found: list[FoundBatch]

    def payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = _with_texts(self.model_dump())
        return payload

    @property
    def items(self) -> list[uuid.UUID]:
        """The work items that this result completes."""
        return [*([] if self.seed is None else [self.seed]), *(item for batch in self.searched for item in batch.work)]


def _with_texts(value: Any) -> Any:
    """UUIDs as text: msgpack knows bytes and numbers, but no UUIDs."""
    if isinstance(value, dict):
        return {key: _with_texts(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_with_texts(part) for part in value]
    return str(value) if isinstance(value, uuid.UUID) else value
