"""A closure in memory: windows searched and remediations played by hand, as the pipeline does.

What the tasks spread over queues and tables is here one loop over a list of runs, to be read beside 1-domain.md and to
be compared with the oracle.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crochet_tasks.engine import runs
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.engine.phrases import PhraseIndex, index_of
from crochet_tasks.engine.runs import Run
from crochet_tasks.engine.search import Bounds, Part, Window, due_phrases, parts, search, window
from crochet_tasks.engine.text import sentences
from crochet_tasks.engine.tree import Tree
from tests.support.oracle import Ortho

WAYS = ("chosen", "enumerating", "outward", "outward from every new phrase")


@dataclass(frozen=True)
class Found:
    """A run, and the version whose numbering it has."""

    version: int
    run: Run


class Closure:
    """All orthos of a corpus, brought forward a version or several at a time.

    `found`: every run so far; `windows`: per version played, its window; `left_over`: how many parts searches left.
    """

    def __init__(self, limits: Limits, bounds: Bounds = Bounds(), *, way: str = "chosen") -> None:
        self.limits, self.bounds, self.way = limits, bounds, way
        self.version, self.tree = 0, Tree.of(index_of([], 1), 0)
        self.found: list[Found] = []
        self.windows: dict[int, Window] = {}
        self.left_over = 0

    def play(self, index: PhraseIndex, version: int) -> None:
        """Search the window from the last version played up to this one."""
        tree = self.tree = Tree.of(index, version, self.tree)
        now = self.windows[version] = self._window(index, tree)
        todo: list[Part] = parts(now)
        while todo:
            outcome = search(now, self.limits, todo.pop(0), self.bounds)
            self.found += [Found(version, run) for run in outcome.found]
            self.left_over += len(outcome.left_over)
            todo += outcome.left_over
        self.version = version

    def _window(self, index: PhraseIndex, tree: Tree) -> Window:
        if self.way == "chosen":
            return window(tree, self.version, self.waited(index))
        if self.way == "enumerating":
            return Window(tree, self.version, None)
        waited = self.waited(index) if self.way == "outward" else None
        return Window(tree, self.version, due_phrases(tree, self.version, waited))

    def waited(self, index: PhraseIndex) -> npt.NDArray[np.bool_]:
        """Per node whether a stored ortho waits on it: the union of the remediations."""
        trees = {version: Tree.of(index, version) for version in self.windows}
        sets = [(trees[found.version], found.run) for found in self.found]
        waited = np.zeros(index.nodes, np.bool_)
        for tree, run in sets:
            waited[tree.node[runs.line_set(tree, *run)]] = True
        return waited

    def orthos(self, index: PhraseIndex) -> Counter[Ortho]:
        """How often each ortho was found."""
        trees = {version: Tree.of(index, version) for version in self.windows}
        return Counter(ortho for found in self.found for ortho in orthos(trees[found.version], found.run))


def orthos(tree: Tree, run: Run) -> list[Ortho]:
    """The orthos of a run, in its order."""
    return [(run.sides, tuple(tree.words[word] for word in box)) for box in runs.words(tree, *run).tolist()]


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
    way: str = "chosen",
) -> Closure:
    """The closure of a corpus, played at `versions` (default: every one), each on the index of that version."""
    closure = Closure(limits, bounds, way=way)
    every = indexes(texts, limits.max_side)
    for version in range(1, len(texts) + 1) if versions is None else versions:
        closure.play(every[version], version)
    return closure
