"""The best orthos, for people: what they are in words, where their lines were read, and how far the proof is."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import TypeAdapter

from crochet_tasks.db import Connection, texts
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine import geometry, runs
from crochet_tasks.engine.best import certificate
from crochet_tasks.engine.best.certificate import Certificate
from crochet_tasks.engine.best.faces import Faces
from crochet_tasks.engine.best.plan import begun
from crochet_tasks.engine.best.shapes import Scope, key
from crochet_tasks.engine.best.solve import Solver
from crochet_tasks.engine.best.state import Aim, Ortho, State
from crochet_tasks.engine.geometry import Limits, Sides, best_first, shape_name, volume
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.engine.text import sentences
from crochet_tasks.engine.tree import Tree
from crochet_tasks.query.provenance import Line, Sources
from crochet_tasks.query.store import Reader
from crochet_tasks.query.vocabulary import born
from crochet_tasks.schemas.answers import LineSeen
from crochet_tasks.schemas.best import BestOrtho, BestReport, Bound

CERTIFICATES = TypeAdapter(Certificate)
SHOWN_WITH_SOURCES = 10
"""orthos whose lines are looked up in the texts"""
FEW_CELLS = 8_000_000
"""of faces, where the search has little time: 100 MB"""


def tree_of(bodies: Iterable[str], max_side: int, index: PhraseIndex | None = None) -> Tree:
    """The phrases of texts, beside those of an index."""
    index = PhraseIndex() if index is None else index
    for body in bodies:
        index = index.extended(index.additions(sentences(body), max_side))
    index = index.closed()
    return Tree.of(index, index.version)


def tree_with_waiting(process: Process, connection: Connection, corpus: Corpus) -> Tree:
    """The phrases of a corpus with those of the texts that it has accepted and that are no version yet."""
    index = process.index(connection, corpus.id, corpus.version)
    waiting = [row.id for row in texts.all_of(connection, corpus.id) if row.state in ("accepted", "ingested")]
    return tree_of([texts.body(connection, text) for text in waiting], corpus.limits.max_side, index)


def threads() -> int:
    """On how many threads a search runs: one per core that the process may use."""
    return len(os.sched_getaffinity(0))


def within(tree: Tree, limits: Limits, seconds: float, stopped: Callable[[], bool]) -> BestReport:
    """As far as the search for the best gets in about so many seconds."""
    began = time.monotonic()
    state = begun(tree, Scope(*limits))

    def enough() -> bool:
        return stopped() or time.monotonic() - began > seconds

    with contextlib.suppress(MemoryError):  # then it is not proven
        Solver(Faces(tree, FEW_CELLS), state, threads()).run(stopped=enough)
    if state.done:
        certified(state, tree)
    return report(state, tree, time.monotonic() - began)


def certified(state: State, tree: Tree) -> Certificate:
    """The certificate of a search that is done, checked, so that nothing is claimed that it does not bear out.

    Raises certificate.Refused, which is a bug.
    """
    made = certificate.of(state, tree)
    certificate.check(made, tree)
    return made


def report(state: State, tree: Tree, seconds: float) -> BestReport:
    """How far a search is."""
    listed = [Ortho(one.record.sides, words) for one in state.listed for words in one.orthos]
    # Ids of words are in alphabetical order.
    listed.sort(key=lambda one: (*(-each for each in key(one.sides)), one.sides, one.words))
    found = {one.record.sides: one.record.found for one in state.listed}
    aim, shapes = state.next()
    upper = None if state.done else state.upper()
    return BestReport(
        complete=state.done,
        proven=state.done or bool(state.listed) or (aim is Aim.LIST and bool(shapes)),
        best=[_in_words(one, tree) for one in listed[: state.keep]],
        found={shape_name(sides): found[sides] for sides in best_first(found)},
        incumbent=None if state.done or state.incumbent is None else _in_words(state.incumbent, tree),
        upper=None if upper is None else Bound(volume=upper[0], cells=upper[1]),
        empty=[shape_name(sides) for sides in best_first(record.sides for record in state.empty)],
        too_large=[shape_name(sides) for sides in best_first(state.too_many)],
        limits=state.scope._asdict(),
        top=state.top,
        seconds=round(seconds, 3),
    )


def known_in(tree: Tree, scope: Scope, reports: Iterable[dict[str, Any]]) -> list[Ortho]:
    """The orthos of reports about the same corpus, at this version or an older one, that a scope allows.

    A corpus only grows, so what was an ortho is one; whether it is, is checked by the definition all the same.
    """
    numbers = {word: number for number, word in enumerate(tree.words)}
    found: dict[Ortho, None] = {}
    for every in reports:
        for one in [*every["best"], *([every["incumbent"]] if every["incumbent"] else [])]:
            sides, words = (*one["shape"],), (*one["words"],)
            known = scope.allow(sides) and all(word in numbers for word in words)
            if known and certificate.wrong(sides, words, tree) is None:
                found[Ortho(sides, tuple(numbers[word] for word in words))] = None
    return list(found)


def _in_words(ortho: Ortho, tree: Tree) -> BestOrtho:
    sides = ortho.sides
    words = [tree.words[word] for word in ortho.words]
    number = "{:016x}{:016x}".format(*runs.ortho_id(sides, words))
    return BestOrtho(id=number, shape=list(sides), words=words, volume=volume(sides), cells=math.prod(sides))


def with_sources(report: BestReport, reader: Reader) -> BestReport:
    """The report with where the lines of the first orthos were read."""
    sources = Sources(reader.store)
    best = [
        ortho.model_copy(update={"lines": _lines(ortho, reader, sources)}) if place < SHOWN_WITH_SOURCES else ortho
        for place, ortho in enumerate(report.best)
    ]
    return report.model_copy(update={"best": best})


def _lines(ortho: BestOrtho, reader: Reader, sources: Sources) -> list[LineSeen]:
    sides: Sides = tuple(ortho.shape)
    every = [tuple(ortho.words[cell] for cell in cells) for cells in geometry.lines(sides)]
    axes = [axis for axis, side in enumerate(sides) for _ in range(ortho.cells // side)]
    lines = [
        Line(axis, words, born(reader.tree, reader.tree.find(words))) for axis, words in zip(axes, every, strict=True)
    ]
    return sources.of(reader.connection, reader.corpus, reader.phrases.index, lines)
