"""The orthos of texts as batches, from the oracle: sorted runs that overlap in any way, numbered by any version."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from crochet_tasks.db.batches import Span, Stored
from crochet_tasks.engine import runs
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.phrases import PhraseIndex, index_of
from crochet_tasks.engine.tree import Tree
from tests.support import oracle
from tests.support.oracle import Ortho


def in_order(orthos: Mapping[Ortho, int]) -> list[Ortho]:
    """By the definition: larger volume, more cells, sides, and then the words."""

    def rank(ortho: Ortho) -> tuple[int, int, Sides, tuple[str, ...]]:
        sides, words = ortho
        volume = 1
        for side in sides:
            volume *= side - 1
        return -volume, -len(words), sides, words

    return sorted(orthos, key=rank)


def index(texts: Sequence[str], max_side: int = 8) -> PhraseIndex:
    return index_of([oracle.sentences(text) for text in texts], max_side)


def rows_of(tree: Tree, orthos: Sequence[Ortho]) -> Ids:
    """Orthos of one shape as the engine has them."""
    side = orthos[0][0][-1]
    lines = [[tree.find(words[at : at + side]) for at in range(0, len(words), side)] for _, words in orthos]
    return np.array(lines, np.uint32)


@dataclasses.dataclass
class Batches:
    """A source of ranges.py in memory. `read`: the ids of the batches whose rows were asked for."""

    tree: Tree
    stored: list[Stored]
    packed: dict[int, Ids]
    read: list[int] = dataclasses.field(default_factory=list)
    waits: dict[int, Ids] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls, phrases: PhraseIndex, orthos: Mapping[Ortho, int], assigned: Mapping[Ortho, tuple[int, int]]
    ) -> Batches:
        """`orthos`: with the version that brought each; `assigned`: with its run, and how much later it is numbered."""
        newest = len(phrases.limits) - 1
        groups: dict[tuple[Sides, int, int], list[Ortho]] = defaultdict(list)
        for ortho, born in orthos.items():
            run, later = assigned[ortho]
            groups[ortho[0], run, min(newest, born + later)].append(ortho)
        made = cls(Tree.of(phrases, newest), [], {})
        for number, ((sides, _, version), members) in enumerate(groups.items()):
            members.sort()
            rows = rows_of(Tree.of(phrases, version), members)
            first, last = (" ".join(members[end][1]) for end in (0, -1))
            made.stored.append(Stored(number, sides, len(members), version, first, last, version))
            made.packed[number] = rows
        return made

    def list_ahead(self, spans: Sequence[Span]) -> None:
        pass

    def batches(self, span: Span, *, back: bool = False) -> Iterator[Stored]:
        sides, low, high = span
        found = [b for b in self.stored if b.sides == sides and b.last >= low and (high is None or b.first <= high)]
        yield from sorted(found, key=lambda batch: (batch.last if back else batch.first, batch.id), reverse=back)

    def rows(self, batches: Sequence[Stored]) -> list[Ids]:
        self.read += [batch.id for batch in batches]
        return [self.numbering(batch.numbering).take(self.packed[batch.id]) for batch in batches]

    def lines(self, batch: Stored) -> Ids:
        if batch.id not in self.waits:
            numbering = self.numbering(batch.numbering)
            orthos = words_of(self.tree, batch.sides, numbering[self.packed[batch.id]])
            found = {self.tree.find(line) for ortho in orthos for line in oracle.lines(*ortho)}
            self.waits[batch.id] = np.array(sorted(found), np.uint32)
        return self.waits[batch.id]

    def numbering(self, version: int) -> Ids:
        return self.tree.numbering(version)

    def shapes(self) -> list[Sides]:
        return list({batch.sides for batch in self.stored})


def words_of(tree: Tree, sides: Sides, rows: Ids) -> list[Ortho]:
    return [(sides, runs.text(tree, sides, row)) for row in rows]
