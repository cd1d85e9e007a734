"""A closure in memory: seeds, growth and remediations played by hand, as the pipeline plays them.

What the tasks spread over queues and tables is here one loop over a list of batches, to be read beside
1-domain.md ("How orthos are found") and to be held against the oracle.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from crochet_tasks.engine.geometry import Cells, Limits, Sides
from crochet_tasks.engine.growth import Bounds, Found, grow
from crochet_tasks.engine.phrases import Ints, PhraseIndex, index_of
from crochet_tasks.engine.seeds import seed, seed_parts
from crochet_tasks.engine.text import sentences
from tests.support.oracle import Ortho

NO_PHRASES: Ints = np.empty(0, np.int32)


@dataclass(eq=False)
class Batch:
    """Orthos of one shape, grown up to version `searched` (0: never), and the phrases they wait on."""

    sides: Sides
    cells: Cells
    searched: int = 0
    consulted: Ints = field(default_factory=NO_PHRASES.copy)

    def due(self, index: PhraseIndex, version: int) -> bool:
        """Whether a consulted phrase got a continuation born in (searched, version]."""
        born = slice(index.limits[self.searched], index.limits[version])
        return bool(np.isin(self.consulted, index.parent[born]).any())

    def orthos(self, index: PhraseIndex) -> list[Ortho]:
        vocabulary = index.vocabulary
        return [(self.sides, tuple(vocabulary[word] for word in box)) for box in self.cells.T.tolist()]


class Closure:
    """All orthos of a corpus, brought forward a version or several at a time.

    `batches`: every batch found so far. `replayed`: per version played, the batches that were due at it.
    `leftovers`: how often a search handed a part of its input back. `remediate`: whether due batches are grown again.
    """

    def __init__(self, limits: Limits, bounds: Bounds = Bounds(), *, remediate: bool = True) -> None:
        self.limits = limits
        self.bounds = bounds
        self.remediate = remediate
        self.version = 0
        self.batches: list[Batch] = []
        self.replayed: dict[int, list[Batch]] = {}
        self.leftovers = 0

    def play(self, index: PhraseIndex, version: int) -> None:
        """Bring the closure up to `version`; the index may hold more than that."""
        due = [batch for batch in self.batches if batch.due(index, version)] if self.remediate else []
        self.replayed[version] = due
        for batch in due:
            self._grow(batch, index, version)
        for first, last in seed_parts(index, self.version, version):
            self._seed(first, last, index, version)
        while fresh := [batch for batch in self.batches if batch.searched == 0]:
            for batch in fresh:
                self._grow(batch, index, version)
        self.version = version

    def orthos(self, index: PhraseIndex) -> Counter[Ortho]:
        """How often each ortho was found."""
        return Counter(ortho for batch in self.batches for ortho in batch.orthos(index))

    def _seed(self, first: int, last: int, index: PhraseIndex, version: int) -> None:
        while first < last:
            found = seed(index, self.version, version, self.limits, first, last, self.bounds)
            self._keep(found)
            first += self._advance(found, last - first)

    def _grow(self, batch: Batch, index: PhraseIndex, version: int) -> None:
        """Grow a batch from where it was left; what a search leaves over becomes a batch of its own."""
        sides, cells, since, waiting = batch.sides, batch.cells, batch.searched, batch.consulted
        while True:
            found = grow(index, sides, cells, since, version, self.limits, self.bounds)
            self._keep(found)
            done = self._advance(found, cells.shape[1])
            batch.cells, batch.searched = cells[:, :done], version
            batch.consulted = np.union1d(waiting, found.consulted)
            cells = cells[:, done:]
            if not cells.shape[1]:
                return
            batch = Batch(sides, cells, since, waiting)
            self.batches.append(batch)

    def _keep(self, found: Found) -> None:
        self.batches += [Batch(sides, cells) for sides, cells in found.batches]

    def _advance(self, found: Found, length: int) -> int:
        if not 0 < found.done <= length:
            raise ValueError(f"a search of {length} says that it did {found.done}")
        self.leftovers += found.done < length
        return found.done


def indexed(texts: Iterable[str], max_side: int) -> PhraseIndex:
    """The index of a corpus whose versions are `texts`."""
    return index_of(map(sentences, texts), max_side)


def indexes(texts: Sequence[str], max_side: int) -> list[PhraseIndex]:
    """The index of a corpus at every version from 0 on."""
    every = [PhraseIndex()]
    for text in texts:
        every.append(every[-1].extended(every[-1].additions(sentences(text), max_side)).closed())
    return every


def closed(
    texts: Sequence[str],
    limits: Limits,
    bounds: Bounds = Bounds(),
    *,
    versions: Sequence[int] | None = None,
    remediate: bool = True,
) -> Closure:
    """The closure of a corpus, played at `versions` (default: every one), each on the index of that version."""
    closure = Closure(limits, bounds, remediate=remediate)
    every = indexes(texts, limits.max_side)
    for version in range(1, len(texts) + 1) if versions is None else versions:
        closure.play(every[version], version)
    return closure
