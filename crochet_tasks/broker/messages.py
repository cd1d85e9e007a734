"""The messages of tasks, each with the number of its format (docs/upgrades.md).

During an update a worker of the older release gets messages of the newer one, and the other way round. A release reads
the formats up to FORMAT of each message, and writes the newest that the release before it reads.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from crochet_tasks.engine import runs
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.runs import Run
from crochet_tasks.engine.tree import Tree


class Message(BaseModel):
    """The payload of a task: small, immutable, nothing unknown in it; what changes a field needs a new format."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    FORMAT: ClassVar[int] = 1
    """the newest that this program reads"""

    format: Annotated[int, Field(ge=1)] = 1
    corpus: int

    @property
    def items(self) -> list[uuid.UUID]:
        """The work items that it is about."""
        raise NotImplementedError

    def payload(self) -> dict[str, Any]:
        """As it is sent. Without the first format: programs that know no formats refuse it."""
        return self.model_dump(mode="json", exclude=self._unsaid)

    @property
    def _unsaid(self) -> set[str]:
        return {"format"} if self.format == 1 else set()

    def shown(self, about: Mapping[str, object]) -> str:
        """For Flower and logs: corpus, text or shape (from `about`, the log context), work; never contents."""
        first, *more = map(str, self.items)
        subject = [str(about[name]) for name in ("text", "shape") if name in about]
        work = f"work {first}{f' and {len(more)} more' if more else ''}"
        return ", ".join([f"corpus {about.get('corpus', self.corpus)}", *subject, work])

    def __str__(self) -> str:
        return self.shown({})


class Trigger(Message):
    """Names a piece of work to be done; what it is, and whether it has its turn, stands in the database."""

    work: uuid.UUID

    @property
    def items(self) -> list[uuid.UUID]:
        return [self.work]


class Envelope(Trigger):
    """What every format of every message has: its number, and whose work it is."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def read(kind: type[Message], payload: object) -> Message:
    """A message; its Envelope where a newer program wrote it. Raises ValidationError."""
    found = payload.get("format", 1) if isinstance(payload, dict) else 1
    newer = isinstance(found, int) and found > kind.FORMAT
    return (Envelope if newer else kind).model_validate(payload)


class FoundBatch(BaseModel):
    """A sorted run of orthos of one shape as it is stored, and the set of their lines: what they wait on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sides: tuple[int, ...]
    count: Annotated[int, Field(ge=1)]
    first: str
    last: str
    packed: bytes
    phrases: bytes

    @classmethod
    def of(cls, tree: Tree, sides: Sides, rows: Ids) -> FoundBatch:
        """Pack orthos, given as the phrases of their lines along the leading axis, in their order."""
        first, last = (runs.key(runs.text(tree, sides, rows[end])) for end in (0, -1))
        packed = runs.pack(rows, tree.levels[sides[-1] - 1])
        phrases = runs.pack_set(runs.line_set(tree, sides, rows))
        return cls(sides=sides, count=len(rows), first=first, last=last, packed=packed, phrases=phrases)

    @classmethod
    def cut(cls, tree: Tree, found: Iterable[Run], size: int) -> Iterator[FoundBatch]:
        """Cut runs into batches of about the same size, at most `size`."""
        for sides, rows in found:
            pieces = -(-len(rows) // size)
            edges = [len(rows) * piece // pieces for piece in range(pieces + 1)]
            for begin, end in itertools.pairwise(edges):
                yield cls.of(tree, sides, rows[begin:end])


class SearchResult(Trigger):
    """The result of a search, sent to `orthos` as one binary message."""

    written: int | None = None
    """when its work was written, in microseconds: a result of what a restored database does not know is dropped"""
    found: list[FoundBatch]
    left_over: list[tuple[int, int] | bytes]
    """what did not fit into this result: starts of the window, or boxes"""

    def payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = _with_texts(self.model_dump(exclude=self._unsaid))
        return payload


def _with_texts(value: Any) -> Any:
    """UUIDs as text: msgpack knows bytes and numbers, but no UUIDs."""
    if isinstance(value, dict):
        return {key: _with_texts(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_with_texts(part) for part in value]
    return str(value) if isinstance(value, uuid.UUID) else value
