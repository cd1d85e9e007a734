"""The first part of `verify`: texts, versions, words and phrases, on which all other checks depend."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from crochet_tasks.db import Connection, corpora, outbox, texts, verification
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.texts import TextRow
from crochet_tasks.db.verification import PhraseChunk, WordRow
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.phrases import Additions, Ints, PhraseIndex
from crochet_tasks.engine.text import sentences
from crochet_tasks.engine.tree import Tree
from crochet_tasks.errors import StoreCorrupt

Problem = Callable[[str], None]


@dataclass(frozen=True)
class Context:
    """The sound context of a corpus with these `bounds`. `born`: per phrase of `index`; `words_born`: per word."""

    bounds: Limits
    version: int
    index: PhraseIndex
    born: Ints
    words_born: Ints

    @functools.cached_property
    def tree(self) -> Tree:
        """The phrases as batches refer to them."""
        return Tree.of(self.index, self.version)

    def drawn(self, row: Ids) -> str:
        """One ortho on one line, its rows parted by slashes."""
        return "[" + " / ".join(" ".join(self.tree.phrase(int(line))) for line in row) + "]"

    def versions(self) -> Iterator[tuple[int, PhraseIndex, PhraseIndex]]:
        """Every version, with an index of all that was before it and one that holds it too and nothing younger."""
        before = PhraseIndex()
        limits = self.index.limits
        for version in range(1, self.version + 1):
            words = slice(*np.searchsorted(self.words_born, [version, version + 1]))
            nodes = slice(limits[version - 1], limits[version])
            added = Additions(self.index.vocabulary[words], self.index.parent[nodes], self.index.word[nodes])
            index = before.extended(added, limits[: version + 1])
            yield version, before, index
            before = index

    def compare_text(
        self, problem: Problem, name: str, body: str, version: int, before: PhraseIndex, index: PhraseIndex
    ) -> None:
        """Whether a version brought the words and phrases of its text, all of them and no others."""
        parsed = sentences(body)
        brings = before.additions(parsed, self.bounds.max_side)
        lacks = index.additions(parsed, self.bounds.max_side)
        there = index.nodes - before.nodes
        if len(lacks.parent) or len(brings.parent) != there:
            problem(
                f"{name} brings {len(brings.parent)} phrases; "
                f"version {version} has {there} and lacks {len(lacks.parent)} of them"
            )


class _Chunks(NamedTuple):
    """All phrases of a corpus from number 1 on."""

    parent: Ints
    word: Ints
    born: Ints


def read_context(connection: Connection, corpus: Corpus, rows: list[TextRow], problem: Problem) -> Context | None:
    """The context of a corpus with these texts, or None where it is too damaged to go on."""
    version = corpora.version(connection, corpus.id)
    limits = version_limits(version, verification.limits(connection, corpus.id), problem)
    _texts(connection, corpus, rows, problem)
    words = verification.vocabulary(connection, corpus.id)
    if limits is None:
        return None
    chunks = verification.phrases(connection, corpus.id)
    context = context_of(corpus.limits, limits, words, chunks, problem)
    if context is not None:
        youngest = max(int(part.max(initial=0)) for part in (context.born, context.words_born))
        _half_made(rows, version, youngest, problem)
    return context


def context_of(
    bounds: Limits, limits: tuple[int, ...], words: list[WordRow], rows: Sequence[PhraseChunk], problem: Problem
) -> Context | None:
    """The context that words and phrases make; `limits`: the number of phrases per version. None where none is made."""
    if [word.id for word in words] != list(range(len(words))):
        problem("the ids of the words have a gap")
        return None
    words_born = np.array([word.born for word in words], np.int32)
    chunks = _chunks(rows, limits, problem)
    if chunks is None or not _tree(chunks, words_born, problem):
        return None
    index = PhraseIndex().extended(Additions([each.word for each in words], chunks.parent, chunks.word), limits)
    born = np.concatenate([np.zeros(1, np.int32), chunks.born])
    _suffixes(index, born, bounds, problem)
    return Context(bounds, len(limits) - 1, index, born, words_born)


def version_limits(version: int, made: list[tuple[int, int]], problem: Problem) -> tuple[int, ...] | None:
    """The number of phrases per version, `made` by texts: (version, number); None if they are not 1, 2, 3, ..."""
    if [number for number, _ in made] != list(range(1, version + 1)):
        problem(f"the corpus is at version {version}, but its texts made versions {[number for number, _ in made]}")
        return None
    limits = (1, *(limit for _, limit in made))
    if any(one > other for one, other in itertools.pairwise(limits)):
        problem("the numbers of phrases of the versions do not ascend")
        return None
    return limits


def _texts(connection: Connection, corpus: Corpus, rows: list[TextRow], problem: Problem) -> None:
    # A failed text that is accepted again moves to the end of the line and leaves a gap.
    versions = [row.version for row in rows if row.version is not None]
    if versions != sorted(versions):
        problem("the texts did not become versions in the order of their acceptance")
    for number in verification.altered_texts(connection, corpus.id):
        problem(f"text {number} is not the one that was accepted: its checksum differs")
    for row in rows:
        if row.state in ("accepted", "ingested"):
            # What failed to make a version can be tried again; a text that failed is no longer in line.
            item = outbox.ingest(corpus.id, row.id) if row.state == "accepted" else outbox.context(corpus.id, row.id)
            states = ["open"] if row.state == "accepted" else ["open", "failed"]
            if not verification.is_in(connection, item.id, states):
                problem(f"text {row.id} is {row.state} and has no open work")


def _chunks(rows: Sequence[PhraseChunk], limits: tuple[int, ...], problem: Problem) -> _Chunks | None:
    """The phrases, if they are consecutive and each version has its own."""
    upto, sound = 1, True
    for first, count, born, _, _ in rows:
        if first != upto:
            problem(f"the phrases have a gap: {upto} to {first - 1}")
            return None
        upto = first + count
        low = limits[min(born, len(limits)) - 1]
        high = limits[born] if born < len(limits) else upto
        if not low <= first <= upto <= high:
            problem(f"phrases {first} to {upto - 1} are born in version {born}, which has {low} to {high - 1}")
            sound = False
    if upto < limits[-1]:
        problem(f"version {len(limits) - 1} has {limits[-1] - 1} phrases, but {upto - 1} are stored")
        return None
    if not sound:
        return None
    sizes = np.array([chunk.size for chunk in rows], np.int64)
    versions = np.repeat(np.array([chunk.born for chunk in rows], np.int32), sizes)
    try:
        parent, word = texts.unpacked((chunk.first, chunk.size, chunk.parent, chunk.word) for chunk in rows)
    except StoreCorrupt as error:
        problem(str(error.context["problem"]))
        return None
    return _Chunks(parent, word, versions)


def _tree(chunks: _Chunks, words_born: Ints, problem: Problem) -> bool:
    """Whether the phrases form a tree over the words, each phrase once."""
    parent, word, born = chunks
    ids = np.arange(1, len(parent) + 1)
    for bad, what in (
        ((parent < 0) | (parent >= ids), "does not come after its prefix"),
        ((word < 0) | (word >= len(words_born)), "ends in a word that does not exist"),
    ):
        if bad.any():
            problem(f"phrase {int(ids[np.argmax(bad)])} {what} (and {int(bad.sum()) - 1} more)")
            return False
    order = np.lexsort((word, parent))
    twice = (np.diff(parent[order]) == 0) & (np.diff(word[order]) == 0)
    if twice.any():
        place = int(np.argmax(twice))
        problem(f"phrases {int(ids[order[place]])} and {int(ids[order[place + 1]])} are the same")
        return False
    if (np.diff(words_born) < 0).any():
        problem("the words are not numbered in the order of their birth")
        return False
    single = np.zeros(len(words_born), np.int32)
    single[word[parent == 0]] = born[parent == 0]
    bad = single != words_born
    if bad.any():
        number = int(np.argmax(bad))
        problem(
            f"word {number} is born in version {words_born[number]}, the phrase of that one word "
            + (f"in {single[number]}" if single[number] else "does not exist")
        )
        return False
    return True


def _half_made(rows: list[TextRow], version: int, youngest: int, problem: Problem) -> None:
    if youngest <= version:
        return
    waiting = [row for row in rows if row.state in ("accepted", "ingested")]
    begun = bool(waiting) and (waiting[0].state == "ingested" or waiting[0].sentences > 0)
    if not begun or youngest > version + 1:
        problem(f"there are half-made phrases or words of version {youngest}, and no text is being ingested as that")


def _suffixes(index: PhraseIndex, born: Ints, bounds: Limits, problem: Problem) -> None:
    """Whether every phrase's own suffix (all but its first word) is a phrase, and not a younger one."""
    length = index.length
    if int(length.max()) > bounds.max_side:
        problem(f"phrase {int(np.argmax(length))} has {int(length.max())} words, more than max_side")
    suffix = np.zeros(index.nodes, np.int32)
    for words in range(2, int(length.max()) + 1):
        nodes = np.flatnonzero(length == words)
        suffix[nodes] = index.find(suffix[index.parent[nodes]], index.word[nodes])
        bad = suffix[nodes] < 0
        bad |= born[nodes] < np.where(bad, 0, born[suffix[nodes]])
        if bad.any():
            first = int(nodes[np.argmax(bad)])
            problem(f"phrase {first} ({' '.join(index.phrase(first))}) exists, but not all of its parts do")
            return
