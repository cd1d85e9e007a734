"""Searching a shape as stacks of faces: the same orthos as the oracle finds, whatever the way and the parts."""

import itertools
import math
import random
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from crochet_tasks.engine.best.estimate import estimate
from crochet_tasks.engine.best.faces import Faces, Outcome, Search, Way, ordered, other_way, tables, way
from crochet_tasks.engine.geometry import Sides, shape_name
from crochet_tasks.engine.stacks import Tables, Trie, stack, starts
from tests.support import oracle
from tests.support.dense import corpus, tree_of
from tests.support.paths import GENESIS

SHAPES = [
    (2, 2),
    (2, 3),
    (2, 4),
    (3, 3),
    (3, 4),
    (2, 2, 2),
    (2, 2, 3),
    (2, 3, 3),
    (3, 3, 3),
    (2, 2, 2, 2),
    (2, 2, 2, 3),
]
GO_ON = np.zeros(1, np.uint8)


def found(faces: Faces, sides: Sides, chosen: Way | None = None, number: int = 1) -> list[Outcome]:
    """The outcomes of all parts of a shape; the faces that it needs are listed before."""
    chosen = chosen or way(sides)
    if not faces.has(chosen.face):
        faces.put(chosen.face, boxes(found(faces, chosen.face)))
    search = faces.search(chosen)
    outcomes, todo = [], search.parts(number)
    while todo:
        part = todo.pop()
        outcomes.append(search.run(part, GO_ON))
        if outcomes[-1].reached < part.last:
            todo.append(part._replace(first=outcomes[-1].reached))
    return outcomes


def boxes(outcomes: list[Outcome]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
    return ordered(np.concatenate([one.boxes for one in outcomes])) if outcomes else np.empty((0, 1), np.uint32)


@pytest.mark.parametrize("number", range(12))
def test_each_shape_is_found_whole_whatever_the_way(number: int) -> None:
    """Canonical, each once, in alphabetical order; along the longest side as along the shortest."""
    texts = corpus(number)
    expected = oracle.closure(texts, 4, 4, 27)
    tree = tree_of(texts, 4)
    faces = Faces(tree)
    for sides in SHAPES:
        wanted = sorted(words for shape, words in expected if shape == sides)
        for chosen, parts in ((way(sides), 1), (other_way(sides), 3)):
            rows = boxes(found(faces, sides, chosen, parts)).tolist()
            assert [tuple(tree.words[word] for word in row) for row in rows] == wanted, (shape_name(sides), chosen)


def test_parts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut anywhere, and with hardly any room for results, the parts hold the whole, and their counts add up to its."""
    tree = tree_of(corpus(3), 4)
    for sides in [(2, 2), (3, 3), (2, 2, 3)]:
        (whole,) = found(Faces(tree), sides)
        with monkeypatch.context() as patch:
            patch.setattr("crochet_tasks.engine.best.faces.ROOM", 4 * math.prod(sides))
            parts = found(Faces(tree), sides, number=7)
        assert len(parts) > 1
        assert boxes(parts).tolist() == whole.boxes.tolist()
        assert [sum(counts) for counts in zip(*(one.layers for one in parts), strict=True)] == list(whole.layers)
        assert sum(one.visits for one in parts) == whole.visits


def test_enough_is_one_and_keep_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Faces(tree_of(corpus(3), 4)).search(way((2, 2)))
    (part,) = search.parts(1)
    every = search.run(part, GO_ON).boxes.tolist()
    assert len(every) > 3
    (one,) = search.run(part._replace(enough=True), GO_ON).boxes.tolist()
    assert one in every
    kept = search.run(part._replace(keep=3), GO_ON)
    assert kept.boxes.tolist() == every[:3]
    assert kept.layers[-1] == len(every)
    assert not len(search.run(part._replace(keep=0), GO_ON).boxes)


def test_a_part_that_is_stopped_has_done_nothing() -> None:
    search = Faces(tree_of(corpus(3), 4)).search(way((2, 3)))
    (part,) = search.parts(1)
    outcome = search.run(part, np.ones(1, np.uint8))
    assert (outcome.reached, outcome.visits, len(outcome.boxes)) == (part.first, 0, 0)


def test_more_than_there_is_room_for() -> None:
    """A start whose boxes do not fit is an error, not a short answer."""
    words = 12
    pairs = np.array([*itertools.product(range(words), repeat=2)], np.uint32)
    trie = Trie(words, pairs, pairs=True)
    with pytest.raises(MemoryError):
        stack(trie, trie, tables(Way(2, (2,))), starts(trie, trie), 0, 1, GO_ON, room=1)


@pytest.mark.parametrize("rows", [[[1, 0], [0, 1]], [[0, 1], [0, 1]], [[0, 9]]], ids=["falling", "twice", "no word"])
def test_rows_of_a_trie_are_checked(rows: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        Trie(3, np.array(rows, np.uint32))


def _wrong() -> Iterator[tuple[str, list[object]]]:
    rows = np.array([[0, 1], [1, 2]], np.uint32)
    trie, shape = Trie(3, rows, pairs=True), tables(Way(2, (2,)))
    good = [trie, trie, shape, starts(trie, trie), 0, 1, GO_ON]
    others: Iterable[tuple[str, int, object]] = [
        ("faces", 0, Trie(3, np.array([[0, 1, 2]], np.uint32))),
        ("columns", 1, Trie(4, rows, pairs=True)),
        ("no pairs", 1, Trie(3, rows)),
        ("tables", 2, tables(Way(3, (2,)))),
        ("range", 5, 9),
        ("starts", 3, np.array([[0, 7]], np.uint32)),
        ("stop", 6, np.zeros(0, np.uint8)),
    ]
    for name, place, value in others:
        yield name, [*good[:place], value, *good[place + 1 :]]


@pytest.mark.parametrize(("name", "arguments"), list(_wrong()), ids=lambda one: one if isinstance(one, str) else "")
def test_arguments_are_checked(name: str, arguments: list[object]) -> None:
    with pytest.raises(ValueError, match=r"do not fit together|no such starts|no pair"):
        stack(*arguments)  # type: ignore[arg-type]


def test_tables_are_checked() -> None:
    wrong: list[tuple[list[int], list[list[int]]]] = [
        ([-1], [[]] * 4),
        ([-1, 9], [[]] * 4),
        ([-1, -1], [[]] * 3),
        ([-1, -1], [[4]] * 4),
    ]
    for lower, clashes in wrong:
        with pytest.raises(ValueError, match="tables"):
            Tables(2, 2, lower, clashes)


# ── the estimate ─────────────────────────────────────────────────────────────────────────────────


def babble(words: int, length: int) -> list[str]:
    dice = random.Random(words)
    return [" ".join(f"w{dice.choice('abcdefghijklmnopqrst'[:words])}" for _ in range(length))]


def test_a_small_search_is_counted_not_estimated() -> None:
    search = Faces(tree_of(corpus(3), 4)).search(way((2, 3)))
    guess = estimate(search)
    (outcome,) = [search.run(part, GO_ON) for part in search.parts(1)]
    assert guess.exact
    assert (guess.visits, guess.low, guess.high) == (outcome.visits,) * 3
    assert guess.boxes == outcome.layers[-1]


def test_an_estimate_is_near_the_truth() -> None:
    """Dense text over 18 words: the mean of the estimate is within a fifth of the number, and so is its interval."""
    search: Search = Faces(tree_of(babble(18, 2500), 3)).search(way((2, 3)))
    guess = estimate(search)
    true = sum(search.run(part, GO_ON).visits for part in search.parts(1, keep=0))
    assert not guess.exact
    assert 0.8 * true < guess.visits < 1.2 * true
    assert guess.low <= guess.visits <= guess.high < 1.5 * true
    assert estimate(search) == guess


# ── a book ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not GENESIS.exists(), reason="the text is not at hand")
def test_genesis_has_what_two_other_programs_found() -> None:
    """Numbers of 1-domain.md, and those without the order of the axes that the design found with another program."""
    faces = Faces(tree_of([GENESIS.read_text(encoding="utf-8")], 12))
    expected = {(2, 12): 0, (2, 11): 1, (2, 10): 2, (2, 9): 12, (2, 8): 107, (2, 7): 1027, (3, 5): 4, (3, 6): 0}
    expected |= {(4, 4): 0, (3, 4): 2453}
    for sides, number in expected.items():
        assert sum(len(one.boxes) for one in found(faces, sides)) == number, shape_name(sides)
    lines = Trie(len(faces.tree.words), faces.phrases(4), pairs=True)
    whole = tables(Way(4, (4,)))
    free = Tables(4, 4, [-1] * 4, clashes(whole))
    _, counts, _, _ = stack(lines, lines, free, begin := starts(lines, lines), 0, len(begin), GO_ON)
    assert counts[3::4].tolist() == [247_419, 1_596, 0]


def clashes(of: Tables) -> list[list[int]]:
    """Per cell of a 4x4 those filled before it in its shell, of other layers, from the definition."""
    cells = [(layer, cell) for layer in range(of.layers) for cell in range(of.cells)]
    order = [*((layer, cell) for cell in range(4) for layer in (0, 1)), *cells[8:]]
    return [
        [4 * r + c for r, c in order[: order.index((layer, cell))] if r + c == layer + cell and r != layer]
        for layer, cell in cells
    ]
