"""The search of windows: every closure against the oracle, whatever the history and the way."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from crochet_tasks.engine import frontier, runs
from crochet_tasks.engine import search as engine
from crochet_tasks.engine.geometry import Limits, Sides, shape_name, shells
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.engine.search import Bounds, Part, Window, due_phrases, parts, search
from crochet_tasks.engine.text import sentences
from crochet_tasks.engine.tree import Tree
from tests.support import oracle
from tests.support.closures import WAYS, Closure, closed, indexed, indexes, orthos
from tests.support.strategies import brute_force, corpora, examples, limits

SHAPES = [(2, 2), (2, 3), (3, 3), (2, 2, 2), (2, 2, 3), (2, 3, 3), (3, 3, 3), (2, 2, 2, 2), (2, 2, 2, 3)]
EITHER_WAY = pytest.mark.parametrize("way", WAYS)


# ── corpora ──────────────────────────────────────────────────────────────────────────────────────


@st.composite
def dense(draw: st.DrawFn) -> list[str]:
    """2 to 4 texts of 24 to 40 words in all over 4 to 6 different ones, so that much is born late out of old parts."""
    words = st.sampled_from("abcdef"[: draw(st.integers(4, 6))])
    spoken = draw(st.lists(st.lists(words, min_size=4, max_size=5), min_size=6, max_size=8))
    texts = draw(st.integers(2, 4))
    return rendered([spoken[first::texts] for first in range(texts)])


def small() -> st.SearchStrategy[list[str]]:
    return corpora(max_words=64) | dense()


def within() -> st.SearchStrategy[Limits]:
    return limits().map(lambda found: Limits(*found))


def planted(sides: Sides, texts: int, words: Sequence[str] = "abcdefghijklmnopqrstuvwxyz") -> list[str]:
    """The lines of one box, every cell another word, dealt out to so many texts."""
    names = [words[i] if i < len(words) else f"{words[i // len(words)]}{words[i % len(words)]}" for i in range(64)]
    lines = [" ".join(line) for line in oracle.lines(sides, tuple(names[: math.prod(sides)]))]
    random.Random(1).shuffle(lines)
    return [". ".join(lines[first::texts]) for first in range(texts)]


def babble(words: int, length: int, texts: int) -> list[str]:
    """Random text over so few words that nearly every pair is a phrase."""
    dice = random.Random(words)
    vocabulary = "abcdefghijklmnopqrst"[:words]
    return [" ".join(dice.choice(vocabulary) for _ in range(length)) + "." for _ in range(texts)]


def rendered(corpus: Sequence[Sequence[Sequence[str]]]) -> list[str]:
    """Texts, given as their sentences, written out."""
    return [". ".join(map(" ".join, text)) for text in corpus]


@contextmanager
def constants(**values: float) -> Iterator[None]:
    """The engine with other constants; none of them may change what is found."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(engine if hasattr(engine, name) else frontier, name, value)
        yield


TINY = {"FRONTIER": 3, "SLICE": 2, "CHUNK_ORTHOS": 1, "PART_SQUARES": 1, "PART_PHRASES": 1}


def assert_closed(
    texts: Sequence[str],
    within: Limits,
    bounds: Bounds = Bounds(),
    *,
    versions: Sequence[int] | None = None,
    index: PhraseIndex | None = None,
    way: str = "chosen",
) -> Closure:
    """Play a corpus; after every version played the store holds the oracle's orthos born till then, each once.

    `index`: the one index to search throughout, instead of that of each version.
    """
    expected = brute_force(texts, within)
    closure, every = Closure(within, bounds, way=way), indexes(texts, within.max_side)
    for version in versions or range(1, len(texts) + 1):
        view = index or every[version]
        closure.play(view, version)
        assert closure.orthos(view) == Counter(ortho for ortho, born in expected.items() if born <= version)
    return closure


# ── the closure ──────────────────────────────────────────────────────────────────────────────────


@EITHER_WAY
@examples(60)
@given(texts=small(), within=within())
@example(texts=planted((2, 2, 2), 3), within=Limits(3, 2, 8))
@example(texts=planted((3, 3), 3), within=Limits(2, 3, 9))
@example(texts=planted((2, 2, 3), 3), within=Limits(3, 3, 12))
@example(texts=planted((2, 2, 2, 2), 2), within=Limits(4, 2, 16))
@example(texts=babble(6, 16, 4), within=Limits(3, 4, 12))
@example(texts=["", "the seas and", "", "the land and", ""], within=Limits())
def test_each_version_holds_the_orthos_of_the_oracle_once(way: str, texts: list[str], within: Limits) -> None:
    """Played version by version, any corpus holds exactly the oracle's orthos after each, every one once, canonical."""
    closure = assert_closed(texts, within, way=way)
    event(f"up to {max((shape_name(found.run.sides) for found in closure.found), key=len, default='nothing')}")
    event("some enumerated" if any(window.due is None for window in closure.windows.values()) else "all outward")


@EITHER_WAY
@pytest.mark.parametrize("texts", [1, 4])
@pytest.mark.parametrize("sides", SHAPES, ids=shape_name)
def test_a_planted_box_of_any_shape_is_found(sides: Sides, texts: int, way: str) -> None:
    """A planted box of any shape, also of four axes, is found, whole and in parts, whichever text brings its lines."""
    corpus = planted(sides, texts)
    closure = assert_closed(corpus, Limits(len(sides), max(sides), math.prod(sides)), way=way)
    assert Counter(shape for shape, _ in closure.orthos(indexed(corpus, max(sides))))[sides] == 1


@examples(40)
@given(small(), within(), st.data())
def test_any_order_of_texts(texts: list[str], within: Limits, data: st.DataObject) -> None:
    """The same texts in another order make the same orthos, with the same ids."""
    found = []
    for order in (texts, data.draw(st.permutations(texts))):
        closure, index = assert_closed(order, within), indexed(order, within.max_side)
        trees = {version: Tree.of(index, version) for version in closure.windows}
        every = [runs.id_texts(runs.ids(trees[one.version], *one.run)) for one in closure.found]
        found.append(Counter(itertools.chain.from_iterable(every)))
        assert len(found[-1]) == len(closure.orthos(index))
    assert found[0] == found[1]


@examples(40)
@given(small(), within(), st.data())
def test_any_cut_of_a_text(texts: list[str], within: Limits, data: st.DataObject) -> None:
    """A text cut between sentences into several makes the orthos of the whole."""
    whole = [sentence for text in texts for sentence in sentences(text)]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    pieces = [whole[one:other] for one, other in itertools.pairwise([0, *cuts, len(whole)])]
    cut, uncut = (assert_closed(rendered(corpus), within) for corpus in (pieces, [whole]))
    assert cut.orthos(indexed(rendered(pieces), within.max_side)) == uncut.orthos(
        indexed(rendered([whole]), within.max_side)
    )


@examples(60)
@given(small(), within(), st.sampled_from(WAYS), st.data())
def test_several_versions_at_once(texts: list[str], within: Limits, way: str, data: st.DataObject) -> None:
    """Versions may be played one at a time, all at once or in any groups."""
    played = data.draw(st.sets(st.integers(1, len(texts))))
    assert_closed(texts, within, versions=[*sorted(played - {len(texts)}), len(texts)], way=way)


@EITHER_WAY
@examples(25)
@given(texts=small(), within=within(), size=st.sampled_from([1, 2, 7, 10**6]), tiny=st.booleans())
@example(texts=babble(10, 30, 3), within=Limits(2, 4, 12), size=1, tiny=True)
@example(texts=babble(10, 30, 3), within=Limits(2, 4, 12), size=7, tiny=False)
@example(texts=planted((2, 2, 3), 3), within=Limits(3, 3, 12), size=1, tiny=True)
@example(texts=planted((2, 2, 2, 2), 3), within=Limits(4, 2, 16), size=3, tiny=True)
def test_small_bounds_lose_nothing_and_repeat_nothing(
    way: str, texts: list[str], within: Limits, size: int, tiny: bool
) -> None:
    """However small results, slices and parts are kept, nothing is lost and nothing comes twice."""
    with constants(**TINY if tiny else {}):
        closure = assert_closed(texts, within, Bounds(32_768, size), way=way)
    event("left-overs" if closure.left_over else "no left-overs")


@EITHER_WAY
def test_what_searches_leave_over_is_searched_in_the_end(way: str) -> None:
    """What searches leave over, boxes as well as starts, is searched in the end."""
    with constants(**TINY):
        closure = assert_closed(babble(10, 30, 3), Limits(2, 4, 12), Bounds(32_768, 5), way=way)
    assert closure.left_over > 10


def test_a_search_run_twice_finds_the_same() -> None:
    """Runs and left-overs, byte for byte: their work items and batches get the same names."""
    index = indexed(babble(10, 40, 2), 4)
    tree = Tree.of(index, 2)
    with constants(**TINY):
        for window in (Window(tree, 1, None), Window(tree, 1, due_phrases(tree, 1, None))):
            whole = Part(0, window.starts)
            one, other = (search(window, Limits(), whole, Bounds(32_768, 50)) for _ in range(2))
            assert one.left_over == other.left_over
            assert any(part.boxes for part in one.left_over)
            assert [run.sides for run in one.found] == [run.sides for run in other.found]
            for run, same in zip(one.found, other.found, strict=True):
                np.testing.assert_array_equal(run.rows, same.rows)


# ── windows ──────────────────────────────────────────────────────────────────────────────────────


@examples(60)
@given(small(), within(), st.lists(st.sampled_from("abcez"), max_size=30))
def test_older_version_of_a_newer_index(texts: list[str], within: Limits, unfinished: list[str]) -> None:
    """On an index that holds later versions, and part of a text that is none yet, every version is as it was."""
    index = indexed(texts, within.max_side)
    index = index.extended(index.additions([unfinished], within.max_side))
    assert_closed(texts, within, index=index)


@EITHER_WAY
@examples(40)
@given(texts=small(), within=within(), data=st.data())
def test_windows_are_disjoint(way: str, texts: list[str], within: Limits, data: st.DataObject) -> None:
    """The window (since, upto] holds what is born in it, on its own, whatever was searched before; in any parts."""
    expected = brute_force(texts, within)
    since, upto = data.draw(st.sampled_from(list(itertools.combinations(range(len(texts) + 1), 2))))
    closure, index = Closure(within, way=way), indexed(texts, within.max_side)
    if since:
        closure.play(index, since)
        before = len(closure.found)
    else:
        before = 0
    with constants(**data.draw(st.sampled_from([{}, {"PART_SQUARES": 1, "PART_PHRASES": 1}]))):
        closure.play(index, upto)
        cut = parts(closure.windows[upto])
    assert [part.first for part in cut] == [0, *(part.last for part in cut)][:-1] or not cut
    assert (cut[-1].last if cut else 0) == closure.windows[upto].starts
    tree = Tree.of(index, upto)
    found = Counter(ortho for one in closure.found[before:] for ortho in orthos(tree, one.run))
    assert found == Counter(ortho for ortho, born in expected.items() if since < born <= upto)
    event("several parts" if len(cut) > 1 else "one part")


def test_limits_of_sides_that_phrases_exceed() -> None:
    """Phrases longer than a side may be are no lines, whichever way is gone."""
    texts = ["a b c d. e f g h", "a e. b f. c g. d h"]
    for way in WAYS:
        closure = closed(texts, Limits(2, 4, 6), way=way)
        assert {found.run.sides for found in closure.found} == {(2, 2), (2, 3)}
        assert closure.orthos(indexed(texts, 4)) == Counter(oracle.closure(texts, 2, 4, 6).keys())


def test_four_axes_of_a_text() -> None:
    """A text (not a planted box) that has 2x2x2x2 orthos, in two versions, each way."""
    texts = babble(20, 72, 2)
    expected = Counter(
        shape for shape, _ in closed(texts, Limits(4, 2, 16), way="enumerating").orthos(indexed(texts, 2))
    )
    assert expected[2, 2, 2, 2] > 0
    for way in WAYS:
        closure = closed(texts, Limits(4, 2, 16), way=way)
        assert max(closure.orthos(indexed(texts, 2)).values()) == 1
        assert Counter(shape for shape, _ in closure.orthos(indexed(texts, 2))) == expected


@pytest.mark.parametrize(
    ("words", "within"),
    [("abcde", Limits(2, 3, 9)), ("abcd", Limits(3, 3, 12))],
    ids=["all 3x3 of five words", "all 2x2x3 of four words"],
)
def test_where_everything_is_a_phrase(words: str, within: Limits) -> None:
    """Boxes with many brothers and many ways to go on: then only the shells count, and combinatorics knows how many."""
    index = indexed([". ".join(map(" ".join, itertools.product(words, repeat=3)))], within.max_side)
    found = Counter({sides: len(rows) for sides, rows in engine.closure(Tree.of(index, 1), within)})
    shapes = [sides for axes in (2, 3) for sides in itertools.combinations_with_replacement((2, 3), axes)]
    for sides in filter(within.allow, shapes):
        boxes = math.prod(math.perm(len(words), len(shell)) for shell in shells(sides))
        turned = math.prod(math.factorial(sides.count(side)) for side in {*sides})
        assert found.pop(sides) == boxes // turned
    assert not found


def test_more_words_than_bits() -> None:
    """Where there are too many words for every one to have a row of bits, lists are searched, with the same result."""
    many = " ".join(f"{''.join(letters)}." for letters in itertools.product("ghijklmnopqrstuvw", repeat=4))
    texts = ["a b. d e. a d. b e", many, "a b c. d e f. c f"]
    for way in WAYS:
        closure, index = closed(texts, Limits(), way=way), indexed(texts, 8)
        assert len(index.vocabulary) > 1 << 16
        assert closure.orthos(index) == Counter(oracle.closure([texts[0], texts[2]]).keys())
        assert ((2, 3), ("a", "b", "c", "d", "e", "f")) in closure.orthos(index)


# ── remediations ─────────────────────────────────────────────────────────────────────────────────


@examples(60)
@given(small(), within())
@example(planted((2, 2, 3), 4), Limits(3, 3, 12))
@example(planted((3, 3), 4), Limits(2, 3, 9))
@example(planted((2, 3, 3), 4), Limits(3, 3, 18))
@example(babble(9, 20, 4), Limits(2, 4, 12))
def test_due_phrases_are_complete(texts: list[str], within: Limits) -> None:
    """Every box born in a window has a due line, by definition of the oracle's lines."""
    expected = brute_force(texts, within)
    closure, index = Closure(within, way="outward"), indexed(texts, within.max_side)
    skipped = 0
    for version in range(1, len(texts) + 1):
        closure.play(index, version)
        window = closure.windows[version]
        due = {window.tree.phrase(int(phrase)) for phrase in window.due} if window.due is not None else set()
        skipped += len(due_phrases(window.tree, version - 1, None)) - len(due)
        for (sides, words), born in expected.items():
            if born == version:
                assert due & {*map(tuple, oracle.lines(sides, words))}
    event("phrases that nothing waits on" if skipped else "every new phrase is due")


FIRST, LATER = "a b. d e. a d. b e", "a b c. d e f. c f"
WHOLE = ((2, 3), ("a", "b", "c", "d", "e", "f"))


def test_what_a_later_text_makes_due() -> None:
    """A new pair; a phrase that continues a line of a stored ortho; one that continues a due one; and nothing else."""
    closure, index = Closure(Limits(2)), indexed([FIRST, f"{LATER}. x y z. q a b c", "a b c d"], 8)
    closure.play(index, 1)
    tree = Tree.of(index, 2)
    due = {tree.phrase(int(phrase)) for phrase in due_phrases(tree, 1, closure.waited(index))}
    pairs = {("b", "c"), ("e", "f"), ("c", "f"), ("x", "y"), ("y", "z"), ("q", "a")}
    assert due == pairs | {("a", "b", "c"), ("d", "e", "f"), ("x", "y", "z"), ("q", "a", "b"), ("q", "a", "b", "c")}
    closure.play(index, 2)
    assert WHOLE in closure.orthos(index)


def test_a_phrase_that_continues_no_line_is_not_due() -> None:
    """`m n o` is new, but no stored ortho has the line `m n`."""
    texts = [f"{FIRST}. m n. n o", "m n o"]
    closure, index = Closure(Limits(2)), indexed(texts, 8)
    closure.play(index, 1)
    tree = Tree.of(index, 2)
    assert not len(due_phrases(tree, 1, closure.waited(index)))
    assert [tree.phrase(int(phrase)) for phrase in due_phrases(tree, 1, None)] == [("m", "n", "o")]
