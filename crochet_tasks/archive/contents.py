"""What a complete corpus consists of, wherever it is kept: in the store or in an archive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from crochet_tasks.db.archives import Proof, TextBody
from crochet_tasks.db.batches import Batch
from crochet_tasks.db.verification import PhraseChunk
from crochet_tasks.engine.geometry import Limits


class About(NamedTuple):
    """`source`: what messages call it. `reading`: the rules by which the texts were read (engine/text.py)."""

    source: str
    name: str
    description: str
    budget: int | None
    limits: Limits
    reading: str
    version: int


class Contents(Protocol):
    """Each method reads from the beginning, some rows at a time; one is read to its end before the next is called."""

    @property
    def about(self) -> About: ...

    def texts(self) -> Iterator[TextBody]:
        """The texts by version."""
        ...

    def words(self) -> Iterator[tuple[int, str]]:
        """(version that brought it, word) by id, from 0 on."""
        ...

    def chunks(self) -> Iterator[PhraseChunk]:
        """The phrases by id."""
        ...

    def batches(self) -> Iterator[Batch]:
        """The orthos by shape, each shape by its first ortho; `phrases` may be missing: they follow from the rest."""
        ...

    def proof(self) -> Proof | None:
        """The proof of the best of the version."""
        ...
