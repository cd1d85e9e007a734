"""How many orthos texts hold, before they are searched, and what they would take.

The number comes from engine/estimate.py. The bytes and the time are products of it with what was measured
(docs/adr/0037): good for an order of magnitude, and said with "about".
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator

from cachetools import LRUCache

from crochet_tasks.db import Connection, texts
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine import estimate
from crochet_tasks.engine.geometry import Limits, best_first, shape_name
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.engine.text import sentences
from crochet_tasks.engine.tree import Tree
from crochet_tasks.errors import TooBusy
from crochet_tasks.schemas.reports import Amount, Estimate

BYTES_OF_TWO_AXES, BYTES_OF_MORE = 1.3, 1.5
"""of a stored ortho, everything included (more axes: 0.9 to 1.8)"""
STORING = 1.5
"""storing what is found makes a run so many times as long as the search alone, at the most"""
KEPT = 32
"""corpora whose estimates a process keeps"""
BUSY_SECONDS = 3
"""about as long as an estimate takes"""


def of_texts(bodies: Iterable[str], limits: Limits) -> Estimate:
    """The estimate of texts that are in no corpus."""
    return _of_index(PhraseIndex(), bodies, limits)


def of_corpus(process: Process, connection: Connection, corpus: Corpus, more: Iterable[str] = ()) -> Estimate:
    """The estimate of a corpus with all texts that it has accepted, also those that are no version yet, and `more`."""
    index = process.index(connection, corpus.id, corpus.version)
    waiting = [row.id for row in texts.all_of(connection, corpus.id) if row.state in ("accepted", "ingested")]
    return _of_index(index, [*(texts.body(connection, text) for text in waiting), *more], corpus.limits)


def _of_index(index: PhraseIndex, bodies: Iterable[str], limits: Limits) -> Estimate:
    for body in bodies:
        index = index.extended(index.additions(sentences(body), limits.max_side))
    index = index.closed()
    return _of_tree(Tree.of(index, index.version), limits)


def _of_tree(tree: Tree, limits: Limits) -> Estimate:
    return priced(estimate.estimate(tree, limits), len(os.sched_getaffinity(0)))


def priced(guess: estimate.Estimate, cores: int) -> Estimate:
    """An estimate with what it takes to find and store all of it on so many cores."""
    return Estimate(
        **_amount(guess.total).model_dump(),
        exact=guess.complete,
        shapes={shape_name(sides): _amount(guess.shapes[sides]) for sides in best_first(guess.shapes)},
        bytes=round(
            sum(
                one.orthos * (BYTES_OF_TWO_AXES if len(sides) == 2 else BYTES_OF_MORE)
                for sides, one in guess.shapes.items()
            )
        ),
        seconds=round(STORING * guess.total.orthos / (max(guess.rate, 1.0) * cores), 1),
        cores=cores,
    )


def _amount(guess: estimate.Guess) -> Amount:
    return Amount(orthos=round(guess.orthos), low=round(guess.low), high=round(guess.high))


# ── for the API ─────────────────────────────────────────────────────────────────────────────────


class Estimates:
    """The estimates of corpora at their versions, made one at a time and kept in the process."""

    def __init__(self) -> None:
        self._kept: LRUCache[tuple[int, int], Estimate] = LRUCache(KEPT)
        self._making = threading.Lock()

    def of(self, corpus: Corpus, tree: Tree) -> Estimate:
        """The estimate of a corpus at its version; raises TooBusy while another one is made."""
        with self._alone():
            found = self._kept.get((corpus.id, corpus.version))
            if found is None:
                found = self._kept[corpus.id, corpus.version] = _of_tree(tree, corpus.limits)
            return found

    def with_texts(self, process: Process, connection: Connection, corpus: Corpus, bodies: Iterable[str]) -> Estimate:
        """The estimate of a corpus if these texts were accepted, too; raises TooBusy while another one is made."""
        with self._alone():
            return of_corpus(process, connection, corpus, bodies)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._making.acquire(blocking=False):
            raise TooBusy(what="another estimate is being made", seconds=BUSY_SECONDS)
        try:
            yield
        finally:
            self._making.release()
