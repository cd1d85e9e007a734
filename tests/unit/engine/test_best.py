"""The search for the best orthos: against the oracle, and its certificate against falsifications."""

import dataclasses
import itertools
import math
import random

import numpy as np
import pytest
from pydantic import TypeAdapter

from crochet_tasks.engine.best import certificate as certificates
from crochet_tasks.engine.best import shapes, solve
from crochet_tasks.engine.best.certificate import Certificate, Refused
from crochet_tasks.engine.best.faces import Faces, way
from crochet_tasks.engine.best.plan import Left, Visits, begun, seconds_left
from crochet_tasks.engine.best.shapes import Scope
from crochet_tasks.engine.best.solve import Progress, Solver
from crochet_tasks.engine.best.state import Aim, State
from crochet_tasks.engine.geometry import Sides
from crochet_tasks.engine.tree import Tree
from tests.support import oracle
from tests.support.dense import corpus, solved, tree_of
from tests.support.longer import by_run
from tests.support.oracle import Ortho
from tests.support.paths import GENESIS

STATES, CERTIFICATES = TypeAdapter(State), TypeAdapter(Certificate)
CORPORA, AT_ONCE = 300, 30
NO_TEXT = pytest.mark.skipif(not GENESIS.exists(), reason="the text is not at hand")


def scope_of(number: int) -> Scope:
    dice = random.Random(number)
    return Scope(dice.choice([2, 3, 4, 5, None]), dice.choice([2, 3, 3, 4, 5]), dice.choice([8, 12, 27, 64, None]))


def expected(texts: list[str], scope: Scope) -> list[Ortho]:
    """All orthos, best first; "any" is more than these corpora can have."""
    every = oracle.closure(texts, scope.max_axes or 6, scope.max_side, scope.max_cells or 10**9)
    return sorted(every, key=rank)


def rank(ortho: Ortho) -> tuple[object, ...]:
    sides, words = ortho
    return -math.prod(side - 1 for side in sides), -math.prod(sides), sides, words


def best_of(every: list[Ortho]) -> list[Ortho]:
    return [one for one in every if rank(one)[:2] == rank(every[0])[:2]]


def orthos(state: State, tree: Tree) -> list[Ortho]:
    listed = [
        (one.record.sides, tuple(tree.words[word] for word in words)) for one in state.listed for words in one.orthos
    ]
    return sorted(listed, key=rank)


# ── shapes ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "scope", [Scope(), Scope(2, 12, 64), Scope(5, 4, 64), Scope(4, 5, 40), Scope(3, 2, 100)], ids=str
)
def test_shapes_that_are_better_and_alike(scope: Scope) -> None:
    """From all shapes, by definition: the minimal ones of those with a larger key; those with the same key."""
    assert scope.max_axes is not None
    sides = range(2, scope.max_side + 1)
    axes = range(2, scope.max_axes + 1)
    every = [one for k in axes for one in itertools.combinations_with_replacement(sides, k) if scope.allow(one)]
    for key in [(0, 0), (3, 1000), *sorted({shapes.key(one) for one in every})]:
        better = [one for one in every if shapes.key(one) > key]
        minimal = [one for one in better if not any(part != one and _has_part(one, part) for part in better)]
        assert shapes.better(key, scope) == sorted(minimal)
        assert shapes.equal(key, scope) == sorted(one for one in every if shapes.key(one) == key)


def _has_part(sides: Sides, part: Sides) -> bool:
    """By definition: some axes of the one are at least as long as all of the other."""
    chosen = itertools.permutations(sides, len(part))
    return any(all(mine >= its for mine, its in zip(axes, part, strict=True)) for axes in chosen)


def test_parts_of_shapes() -> None:
    sides = [(n,) for n in range(1, 5)] + [
        one for k in (2, 3, 4) for one in itertools.combinations_with_replacement(range(2, 5), k)
    ]
    for one, part in itertools.product(sides, sides):
        assert shapes.contains(one, part) == _has_part(one, part)


# ── against the oracle ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "first",
    by_run(range(0, CORPORA // 2, AT_ONCE), longer=range(CORPORA // 2, CORPORA, AT_ONCE)),
)
def test_best_and_top_20_are_the_oracles(first: int) -> None:
    """Of corpora with 3x3x3, 2x2x2x2x2 and the like, within all kinds of limits; each certificate holds."""
    for number in range(first, first + AT_ONCE):
        texts, scope = corpus(number), scope_of(number)
        every, tree = expected(texts, scope), tree_of(texts, scope.max_side)
        best = solved(tree, scope)
        assert orthos(best, tree) == best_of(every), (number, scope)
        top = solved(tree, scope, top=20)
        assert orthos(top, tree)[:20] == every[:20], (number, scope)
        for state in (best, top):
            assert_holds(certificates.of(state, tree), tree)


def test_the_corpora_have_large_orthos() -> None:
    """What the test above is about: stacks of three layers of side 3, also 3x3x3, and many axes."""
    best = {best[0][0] for n in range(40) if (best := best_of(expected(corpus(n), scope_of(n))))}
    assert {(3, 3, 3), (2, 3, 3), (2, 2, 2, 2)} <= best


def assert_holds(certificate: Certificate, tree: Tree) -> None:
    read = CERTIFICATES.validate_json(CERTIFICATES.dump_json(certificate))
    assert read == certificate
    certificates.check(read, tree)
    certificates.repeat(read, tree, 1)
    certificates.repeat(read, tree, 2, other=True)


@pytest.mark.parametrize(
    "texts", [[""], ["alone"], ["the sea"], ["a b. c d", "e f"]], ids=["no word", "a word", "a pair", "pairs"]
)
@pytest.mark.parametrize("top", [None, 3])
def test_texts_without_an_ortho(texts: list[str], top: int | None) -> None:
    tree = tree_of(texts, 8)
    state = solved(tree, Scope(), top)
    assert (state.listed, state.incumbent, state.upper()) == ([], None, (0, 0))
    assert_holds(certificates.of(state, tree), tree)


def test_more_of_the_best_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are counted, the first in alphabetical order are kept."""
    monkeypatch.setattr("crochet_tasks.engine.best.state.MOST_LISTED", 3)
    monkeypatch.setattr("crochet_tasks.engine.best.certificate.MOST_LISTED", 3)
    texts, scope = corpus(3), Scope(2, 2, 4)
    every, tree = expected(texts, scope), tree_of(texts, 2)
    assert len(every) > 3
    state = solved(tree, scope)
    assert orthos(state, tree) == every[:3]
    assert state.listed[0].record.found == len(every)
    assert_holds(certificates.of(state, tree), tree)


# ── parts, in any order, by anyone, ended and begun again ────────────────────────────────────────


@pytest.fixture
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches are cut into many parts, and hand back little at once."""
    monkeypatch.setattr(solve, "PART_VISITS", 20)
    monkeypatch.setattr("crochet_tasks.engine.best.faces.ROOM", 60)


@pytest.mark.usefixtures("fine")
@pytest.mark.parametrize("number", range(8))
def test_threads_find_the_same(number: int) -> None:
    texts, scope = corpus(number), scope_of(number)
    tree = tree_of(texts, scope.max_side)
    for top in (None, 20):
        found = [orthos(solved(tree, scope, top, threads), tree) for threads in (1, 2, 4)]
        assert found[0] == found[1] == found[2]


@pytest.mark.usefixtures("fine")
@pytest.mark.parametrize("number", range(12))
def test_ended_anywhere_it_goes_on(number: int) -> None:
    """Ended again and again, each time written as JSON, read, and gone on with in a new process' memory."""
    texts, scope, dice = corpus(number), scope_of(number), random.Random(number)
    tree = tree_of(texts, scope.max_side)
    whole = solved(tree, scope, top=20)
    state, ended = begun(tree, scope, top=20), 0
    while not state.done:
        calls = itertools.count()
        last = dice.randint(2, 4) + 2 * ended  # a search's faces are listed again each time
        Solver(Faces(tree), state, dice.randint(1, 2)).run(stopped=lambda calls=calls, last=last: next(calls) >= last)  # type: ignore[misc]
        state = STATES.validate_json(STATES.dump_json(state))
        ended += 1
    assert ended > 1
    assert orthos(state, tree) == orthos(whole, tree)
    assert_holds(certificates.of(state, tree), tree)


@pytest.mark.parametrize("seed", range(5))
def test_outcomes_are_merged_in_any_order_and_once(seed: int) -> None:
    texts, dice = corpus(3), random.Random(seed)
    tree = tree_of(texts, 4)
    search = Faces(tree).search(way((2, 2)))
    stop = np.zeros(1, np.uint8)
    states = []
    for shuffled in (False, True):
        state = State("", Scope(), 4)
        state.begin(Aim.LIST, search, 1)
        parts = search.parts(9, keep=state.keep)
        if shuffled:
            dice.shuffle(parts)
        for part in parts:
            outcome = search.run(part, stop)
            assert list(state.open([part])) == [part]
            assert state.merge(outcome)
            assert not state.merge(outcome)
            assert not state.merge(search.run(part._replace(enough=True), stop))
            assert state.current is None or not list(state.open([part]))
        states.append(state)
    assert states[0] == states[1]
    assert states[0].listed[0].record.found == len(states[0].listed[0].orthos) > 9


def test_what_is_open_of_a_part() -> None:
    tree = tree_of(corpus(3), 4)
    search = Faces(tree).search(way((2, 2)))
    (whole,) = search.parts(1, keep=1_000)
    state = State("", Scope(), 4)
    state.begin(Aim.LIST, search, 1)
    state.merge(search.run(whole._replace(first=2, last=5), np.zeros(1, np.uint8)))
    state.merge(search.run(whole._replace(first=7, last=8), np.zeros(1, np.uint8)))
    assert not state.merge(search.run(whole._replace(first=4, last=6), np.zeros(1, np.uint8)))
    assert [(part.first, part.last) for part in state.open([whole])] == [(0, 2), (5, 7), (8, whole.last)]
    inner = whole._replace(first=3, last=6)
    assert [(part.first, part.last) for part in state.open([inner])] == [(5, 6)]


def test_progress_never_claims_too_much() -> None:
    """At every moment the incumbent is an ortho, the bound holds, and both end at the best."""
    texts, scope = corpus(1), Scope(4, 4, 64)
    every, tree = expected(texts, scope), tree_of(texts, 4)
    best = shapes.key(every[0][0])
    seen: list[Progress] = []
    state = begun(tree, scope)
    Solver(Faces(tree), state, 1).run(seen.append)
    for moment in seen:
        if moment.incumbent is not None:
            words = tuple(tree.words[word] for word in moment.incumbent.words)
            assert (moment.incumbent.sides, words) in every
            assert shapes.key(moment.incumbent.sides) <= best
        assert moment.upper is None or moment.upper >= best
        assert 0 <= moment.share <= 1
        assert moment.left is None or 0 <= moment.left.low <= moment.left.high
    assert state.upper() == best


def test_a_time_left_that_says_nothing_is_not_given() -> None:
    assert seconds_left(Visits(50, 900, all=False), pace=100.0) is None
    assert seconds_left(Visits(500, 900, all=False), pace=100.0) == Left(5.0, 9.0, all=False)
    assert seconds_left(Visits(0, 90, all=True), pace=100.0) == Left(0.0, 0.9, all=True)


def test_faces_that_are_too_many_are_no_proof() -> None:
    """With no room for faces it ends without one: an incumbent, a bound above it, and a gap."""
    texts, scope = corpus(1), Scope(4, 4, 64)
    tree = tree_of(texts, 4)
    state = begun(tree, scope)
    Solver(Faces(tree, most_cells=8), state, 1).run()
    assert not state.done
    upper = state.upper()
    assert state.incumbent is not None
    assert upper is not None
    assert shapes.key(state.incumbent.sides) < upper


# ── books ────────────────────────────────────────────────────────────────────────────────────────


@NO_TEXT
@pytest.mark.slow
def test_genesis_1_to_3_with_8_axes() -> None:
    """The best, and the top 20, are those of the whole closure."""
    verses = GENESIS.read_text(encoding="utf-8").split("\n\n")[:80]
    text, scope = "\n\n".join(verses), Scope(8, 8, 256)
    every = sorted(oracle.closure([text], 8, 8, 256), key=rank)
    tree = tree_of([text], 8)
    assert orthos(solved(tree, scope, threads=2), tree) == best_of(every)
    assert orthos(solved(tree, scope, top=20, threads=2), tree)[:20] == every[:20]


@NO_TEXT
@pytest.mark.slow
@pytest.mark.parametrize(
    ("scope", "best"),
    [
        *(pytest.param(Scope(axes, 12, 64), {(2, 11): 1}, id=f"side 12, axes {axes}") for axes in (2, 3, 4, None)),
        pytest.param(Scope(None, 12, None), {(2, 11): 1}, id="side 12, any axes and cells"),
        pytest.param(Scope(), {(3, 5): 4}, id="default limits"),
    ],
)
def test_the_best_of_genesis_are_those_another_program_has_proven(scope: Scope, best: dict[Sides, int]) -> None:
    """What another program has proven, and that the certificate holds."""
    tree = tree_of([GENESIS.read_text(encoding="utf-8")], scope.max_side)
    state = solved(tree, scope, threads=2)
    assert {one.record.sides: one.record.found for one in state.listed} == best
    if best == {(2, 11): 1}:
        rows = (
            "so that the land of egypt and all the land of",
            "jacob sent messengers before him to esau his brother unto the",
        )
        assert " ".join(orthos(state, tree)[0][1]) == " ".join(rows)
    certificate = certificates.of(state, tree)
    certificates.check(certificate, tree)
    certificates.repeat(certificate, tree, 2)
    with pytest.raises(Refused):
        certificates.check(dataclasses.replace(certificate, longest=11), tree)
