"""Ranges against the oracle: however the orthos are cut into runs, pages are the closure in order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crochet_tasks.engine import runs
from crochet_tasks.engine.tree import Tree
from crochet_tasks.query import ranges
from crochet_tasks.query.filters import Lines, phrases_with
from crochet_tasks.query.ranges import Range, Selection
from tests.support import oracle, packed
from tests.support.oracle import Ortho
from tests.support.packed import Batches, words_of
from tests.support.strategies import brute_force, corpora, examples

SEEDS = st.integers(0, 2**32)


def cut(texts: list[str], seed: int, most: int) -> tuple[Batches, list[Ortho]]:
    """The closure in up to `most` runs of a shape, at random, numbered by any version that has them; and in order."""
    orthos = brute_force(texts, ())
    random_ = random.Random(seed)
    assigned = {ortho: (random_.randrange(most), random_.randrange(len(texts))) for ortho in orthos}
    return Batches.of(packed.index(texts), orthos, assigned), packed.in_order(orthos)


def by_shape(orthos: list[Ortho]) -> Iterator[tuple[tuple[int, ...], list[Ortho]]]:
    for sides, members in groupby(orthos, key=lambda ortho: ortho[0]):
        yield sides, list(members)


def forwards(source: Batches, selection: Selection, size: int, budget: int | None = None) -> list[Ortho]:
    """All pages, each from where the one before it ended. None is short but the last, unless there is a budget."""
    found: list[Ortho] = []
    position: str | None = selection.low
    while position is not None:
        page = ranges.read(source, selection._replace(low=position), size, *([] if budget is None else [budget]))
        assert budget is not None or len(page.rows) == size or page.following is None
        assert page.following is None or page.following > position
        found += words_of(source.tree, selection.sides, page.rows)
        position = page.following
    return found


def backwards(source: Batches, selection: Selection, size: int, budget: int | None = None) -> list[Ortho]:
    """The same from the end to the beginning."""
    found: list[Ortho] = []
    while True:
        page = ranges.read_back(source, selection, size, *([] if budget is None else [budget]))
        assert budget is not None or len(page.rows) == size or page.following is None
        found = words_of(source.tree, selection.sides, page.rows) + found
        if page.following is None:
            return found
        high = ranges.behind(page.following)
        assert selection.high is None or high < selection.high
        selection = selection._replace(high=high)


@examples(40)
@given(corpora(), SEEDS, st.integers(1, 6), st.integers(0, 9), st.data())
def test_pages_of_a_shape_from_any_position_are_what_lies_behind_it(
    texts: list[str], seed: int, most: int, size: int, data: st.DataObject
) -> None:
    """Up to any end."""
    source, every = cut(texts, seed, most)
    for sides, of_shape in by_shape(every):
        low, high = "", None
        if data.draw(st.booleans()):
            begins = data.draw(st.sampled_from(of_shape))[1]
            low = " ".join(begins[: data.draw(st.integers(1, len(begins)))])
            high = ranges.behind(low) if data.draw(st.booleans()) else None
        prefix = tuple(low.split())
        expected = [
            ortho for ortho in of_shape if " ".join(ortho[1]) >= low and (not high or ortho[1][: len(prefix)] == prefix)
        ]
        assert forwards(source, Selection(sides, low, high), max(size, 1)) == expected
        none = ranges.read(source, Selection(sides, low, high), 0)
        assert (len(none.rows), none.following) == (0, " ".join(expected[0][1]) if expected else None)


@examples(40)
@given(corpora(), SEEDS, st.integers(1, 6), st.integers(1, 9), st.data())
def test_pages_backwards_from_any_position_are_what_lies_before_it(
    texts: list[str], seed: int, most: int, size: int, data: st.DataObject
) -> None:
    """Down to any beginning."""
    source, every = cut(texts, seed, most)
    for sides, of_shape in by_shape(every):
        low, high = "", None
        if data.draw(st.booleans()):
            low = " ".join(data.draw(st.sampled_from(of_shape))[1][: data.draw(st.integers(1, 3))])
        if data.draw(st.booleans()):
            high = " ".join(data.draw(st.sampled_from(of_shape))[1])
            high = ranges.behind(high) if data.draw(st.booleans()) else high
        expected = [one for one in of_shape if low <= " ".join(one[1]) and (high is None or " ".join(one[1]) < high)]
        assert backwards(source, Selection(sides, low, high), size) == expected


@examples(20)
@given(corpora(), SEEDS, st.integers(1, 6), st.integers(1, 9), st.sampled_from([1, 3, 1000]))
def test_pages_with_a_word_hold_all_that_have_it_in_either_direction(
    texts: list[str], seed: int, most: int, size: int, budget: int
) -> None:
    """Also where each page compares few orthos: it may be short then, and the next one goes on."""
    source, every = cut(texts, seed, most)
    for sides, of_shape in by_shape(every):
        for word in random.Random(seed).sample(source.tree.words, min(4, len(source.tree.words))):
            selection = Selection(sides, "", None, (Lines.with_phrase(source.tree, source.tree.number(word)),))
            expected = [ortho for ortho in of_shape if word in ortho[1]]
            assert forwards(source, selection, size, budget) == expected
            assert backwards(source, selection, size, budget) == expected


@examples(15)
@given(corpora(), SEEDS, st.integers(1, 4), st.integers(1, 9), st.sampled_from([1, 5, 1000]), st.data())
def test_pages_of_orthos_with_one_of_some_lines_hold_each_once(
    texts: list[str], seed: int, most: int, size: int, budget: int, data: st.DataObject
) -> None:
    """In either direction, along any axis, and without the ortho whose lines they are."""
    source, every = cut(texts, seed, most)
    if not every:
        return
    other = data.draw(st.sampled_from(every))
    lines = set(oracle.lines(*other))
    rows = packed.rows_of(source.tree, [other])
    phrases = np.array(sorted(source.tree.find(line) for line in lines), np.uint32)
    filters = (Lines.of(source.tree, phrases, besides=(other[0], rows[0])),)
    for sides, of_shape in by_shape(every):
        expected = [one for one in of_shape if one != other and lines & set(oracle.lines(*one))]
        assert not expected or filters[0].fits(sides)
        selection = Selection(sides, "", None, filters)
        assert forwards(source, selection, size, budget) == expected
        assert backwards(source, selection, size, budget) == expected


@examples(15)
@given(corpora(), st.data())
def test_phrases_with_the_words_of_one_after_another(texts: list[str], data: st.DataObject) -> None:
    tree = Tree.of(packed.index(texts), len(texts))
    if not tree.size:
        return
    phrase = data.draw(st.integers(0, tree.size - 1))
    wanted = f" {' '.join(tree.phrase(phrase))} "
    expected = [one for one in range(tree.size) if wanted in f" {' '.join(tree.phrase(one))} "]
    assert phrases_with(tree, phrase).tolist() == expected


def test_a_common_word_is_looked_for_without_remediations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Almost every batch has it, so to read them first would only take longer."""
    source, every = cut(["a b, c d, a c, b d, e f, g h, e g, f h, a x, b y, x y"], seed=1, most=3)
    rare = Lines.with_phrase(source.tree, source.tree.number("a"))
    expected = [ortho for ortho in every if "a" in ortho[1]]
    assert rare.rare
    assert 0 < len(expected) < len(every)
    monkeypatch.setattr(source, "lines", None)
    assert forwards(source, Selection((2, 2), "", None, (rare._replace(rare=False),)), 1) == expected


@examples(40)
@given(corpora(), SEEDS, st.integers(1, 6))
def test_every_ortho_is_found_by_its_first_line_or_all_of_its_lines(texts: list[str], seed: int, most: int) -> None:
    """And one that differs in either half of its id is not."""
    source, every = cut(texts, seed, most)
    tree = source.tree
    for whole in (False, True):
        wanted: dict[Range, set[tuple[int, int]]] = {}
        expected = {}
        for sides, words in every:
            lines = packed.rows_of(tree, [(sides, words)])[0].tolist()
            halves = runs.ortho_id(sides, words)
            expected[halves] = sides, words
            others = {(halves[0] ^ 1, halves[1]), (halves[0], halves[1] ^ 1)}
            if whole:
                wanted[Range(sides, tuple(lines))] = {halves}
            else:
                wanted.setdefault(Range(sides, (lines[0],)), set()).update({halves} | others)
        found = ranges.find(source, wanted)
        assert {halves: (sides, runs.text(tree, sides, row)) for halves, (sides, row) in found.items()} == expected


def test_a_page_reads_only_the_batches_that_it_needs() -> None:
    """Of many runs that do not overlap one or two are decoded, wherever the page is."""
    texts = ["a b, c d, a c, b d, e f, g h, e g, f h, i j, k l, i k, j l"]
    orthos = brute_force(texts, ())
    every = packed.in_order(orthos)
    assert len(every) == 3
    source = Batches.of(packed.index(texts), orthos, {ortho: (place, 0) for place, ortho in enumerate(every)})
    for place, (sides, words) in enumerate(every):
        source.read.clear()
        page = ranges.read(source, Selection(sides, " ".join(words), None), 1)
        assert words_of(source.tree, sides, page.rows) == [every[place]]
        assert len(source.read) <= 2
        source.read.clear()
        page = ranges.read_back(source, Selection(sides, "", ranges.behind(" ".join(words))), 1)
        assert words_of(source.tree, sides, page.rows) == [every[place]]
        assert len(source.read) <= 2
    source.read.clear()
    line = source.tree.find(every[1][1][:2])
    ranges.find(source, {Range(every[1][0], (line,)): {runs.ortho_id(*every[1])}})
    assert len(source.read) == 1


@examples(40)
@given(corpora())
def test_an_ortho_is_born_with_its_youngest_line(texts: list[str]) -> None:
    orthos = brute_force(texts, ())
    source = Batches.of(packed.index(texts), orthos, dict.fromkeys(orthos, (0, 0)))
    for batch in source.stored:
        rows = source.numbering(batch.numbering).take(source.packed[batch.id])
        born = ranges.born(source.tree, batch.sides, rows)
        assert born.tolist() == [orthos[ortho] for ortho in words_of(source.tree, batch.sides, rows)]
