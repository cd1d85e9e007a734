"""Seeds, growth and remediations: every closure against the oracle, every search against its promise."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

import crochet_tasks.engine.window as windows
from crochet_tasks.engine import growth, seeds
from crochet_tasks.engine.geometry import Limits, Sides, id_text, ids, shape_name, volume
from crochet_tasks.engine.growth import Bounds, Found, Harvest, grow, grow_into
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.engine.seeds import seed, seed_parts
from crochet_tasks.engine.text import sentences
from tests.support import oracle
from tests.support.closures import Batch, Closure, closed, indexed, indexes
from tests.support.oracle import Ortho
from tests.support.paths import GENESIS
from tests.support.strategies import brute_force, corpora, examples, limits

SHAPES = [(2, 2), (2, 3), (3, 3), (2, 2, 2), (2, 2, 3), (2, 3, 3), (3, 3, 3), (2, 2, 2, 2), (2, 2, 2, 3)]
MOSTLY_NEW = pytest.mark.parametrize("mostly_new", [0, 2], ids=["from everything", "from new pairs"])


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
    lines = [" ".join(line) for line in oracle._lines(sides, tuple(names[: math.prod(sides)]))]
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


def boxes(index: PhraseIndex, found: Found) -> Counter[Ortho]:
    return Counter(box for sides, cells in found.batches for box in Batch(sides, cells).orthos(index))


def batch_of(index: PhraseIndex, sides: Sides, orthos: Sequence[Ortho]) -> Batch:
    number = {word: i for i, word in enumerate(index.vocabulary)}
    rows = [[number[word] for word in words] for _, words in orthos]
    return Batch(sides, np.array(rows, np.uint16).reshape(-1, math.prod(sides)).T)


def parent(ortho: Ortho) -> Ortho | None:
    """The canonical parent, straight from its definition: without the last slab of the leading axis."""
    sides, words = ortho
    if max(sides) == 2:
        return None
    at = dict(zip(itertools.product(*map(range, sides)), words, strict=True))
    shorter = (*sides[:-1], sides[-1] - 1)
    keys = [(shorter[a], at[tuple(int(a == b) for b in range(len(sides)))], a) for a in range(len(sides))]
    axes = [axis for *_, axis in sorted(keys)]
    new = tuple(shorter[axis] for axis in axes)
    cells = itertools.product(*map(range, new))
    return new, tuple(at[tuple(cell[axes.index(a)] for a in range(len(axes)))] for cell in cells)


@contextmanager
def constants(
    *,
    at_once: int | None = None,
    signatures: int | None = None,
    sketch_bits: int | None = None,
    first_rows: int | None = None,
    part: int | None = None,
    mostly: float | None = None,
) -> Iterator[None]:
    """The engine with other constants; none of them may change what is found."""
    values: list[tuple[ModuleType, str, float | None]] = [
        (growth, "CANDIDATES_AT_ONCE", at_once),
        (seeds, "CANDIDATES_AT_ONCE", at_once),
        (windows, "SIGNATURES", signatures),
        (windows, "SKETCH_BITS", sketch_bits),
        (growth, "FIRST_ROWS", first_rows),
        (seeds, "FIRST_PAIRS", first_rows),
        (seeds, "COST_OF_A_PART", part),
        (seeds, "MOSTLY_NEW", mostly),
    ]
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in values:
            if value is not None:
                patch.setattr(module, name, value)
        windows.window.cache_clear()
        yield
    windows.window.cache_clear()


def assert_closed(
    texts: Sequence[str],
    within: Limits,
    bounds: Bounds = Bounds(),
    *,
    versions: Sequence[int] | None = None,
    index: PhraseIndex | None = None,
) -> Closure:
    """Play a corpus; after every version played the store holds the oracle's orthos born till then, each once.

    `index`: the one index to search throughout, instead of that of each version.
    """
    expected = brute_force(texts, within)
    closure, every = Closure(within, bounds), indexes(texts, within.max_side)
    for version in versions or range(1, len(texts) + 1):
        view = index or every[version]
        closure.play(view, version)
        assert closure.orthos(view) == Counter(ortho for ortho, born in expected.items() if born <= version)
        for batch in closure.batches:
            assert batch.cells.shape[1] <= bounds.batch_orthos
            assert (batch.consulted[:-1] < batch.consulted[1:]).all()
            assert not len(batch.consulted) or 0 < batch.consulted[0] <= batch.consulted[-1] < view.limits[version]
    return closure


# ── the closure ──────────────────────────────────────────────────────────────────────────────────


@examples(100)
@given(small(), within())
@example(planted((2, 2, 2), 3), Limits(3, 2, 8))
@example(planted((3, 3), 3), Limits(2, 3, 9))
@example(planted((2, 2, 3), 3), Limits(3, 3, 12))
@example(planted((2, 2, 2, 2), 2), Limits(4, 2, 16))
@example(babble(6, 16, 4), Limits(3, 4, 12))
@example(["", "the seas and", "", "the land and", ""], Limits())
def test_closure(texts: list[str], within: Limits) -> None:
    """Played version by version, any corpus holds exactly the oracle's orthos after each, every one once, canonical."""
    closure = assert_closed(texts, within)
    event(f"up to {max((shape_name(batch.sides) for batch in closure.batches), key=len, default='nothing')}")
    event("replays" if any(closure.replayed.values()) else "no replays")


@pytest.mark.parametrize("texts", [1, 4])
@pytest.mark.parametrize("sides", SHAPES, ids=shape_name)
def test_planted(sides: Sides, texts: int) -> None:
    """A planted box of any shape, also of four axes, is found, whole and in parts, whichever text brings its lines."""
    corpus = planted(sides, texts)
    closure = assert_closed(corpus, Limits(len(sides), max(sides), math.prod(sides)))
    assert Counter(shape for shape, _ in closure.orthos(indexed(corpus, max(sides))))[sides] == 1


@examples(40)
@given(small(), within(), st.data())
def test_any_order_of_texts(texts: list[str], within: Limits, data: st.DataObject) -> None:
    """The same texts in another order make the same orthos, with the same ids."""
    found = []
    for order in (texts, data.draw(st.permutations(texts))):
        closure, index = assert_closed(order, within), indexed(order, within.max_side)
        every = [ids(batch.sides, batch.cells, index.hashes) for batch in closure.batches]
        found.append(Counter(id_text(halves) for batch in every for halves in batch))
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
@given(small(), within(), st.data())
def test_several_versions_at_once(texts: list[str], within: Limits, data: st.DataObject) -> None:
    """Versions may be played one at a time, all at once or in any groups."""
    played = data.draw(st.sets(st.integers(1, len(texts))))
    assert_closed(texts, within, versions=[*sorted(played - {len(texts)}), len(texts)])


@examples(40)
@given(small(), within(), st.sampled_from([1, 2, 7]), st.sampled_from([1, 200, 10**6]), st.sampled_from([1, 50, 10**6]))
def test_any_bounds(texts: list[str], within: Limits, size: int, result_bytes: int, candidates: int) -> None:
    """However small batches and results are kept, nothing is lost and nothing comes twice."""
    with constants(first_rows=1):
        closure = assert_closed(texts, within, Bounds(size, result_bytes, candidates))
    event("left-overs" if closure.leftovers else "no left-overs")


@pytest.mark.parametrize("bounds", [Bounds(result_bytes=1), Bounds(result_bytes=500), Bounds(7, candidates=1)])
@MOSTLY_NEW
def test_leftovers(bounds: Bounds, mostly_new: float) -> None:
    """What searches leave over, of seeds, of new batches and of replayed ones, is searched in the end."""
    with constants(mostly=mostly_new, first_rows=1):
        closure = assert_closed(babble(10, 30, 3), Limits(2, 4, 12), bounds)
    assert closure.leftovers > 10
    assert len(closure.replayed[3]) > 10


@examples(40)
@given(small(), within(), st.sampled_from([1, 3]), st.sampled_from([0, 2]))
@example(planted((2, 2, 3), 3), Limits(3, 3, 12), 1, 2)
@example(planted((2, 2, 2, 2), 3), Limits(4, 2, 16), 1, 2)
def test_any_size_of_step(texts: list[str], within: Limits, at_once: int, mostly_new: float) -> None:
    """However few candidates are looked at in one step, the same is found."""
    with constants(at_once=at_once, mostly=mostly_new):
        assert_closed(texts, within)


@pytest.mark.parametrize("sketch_bits", [1, 5, 17])
def test_blurred_filters(sketch_bits: int) -> None:
    """Nothing is missed where many new phrases share a bit of a signature and many lines a slot of a sketch."""
    with constants(signatures=1, sketch_bits=sketch_bits):
        closure = assert_closed(babble(11, 45, 3), Limits(2, 4, 12))
    assert all(closure.replayed[version] for version in (2, 3))


# ── versions ─────────────────────────────────────────────────────────────────────────────────────


@examples(60)
@given(small(), within(), st.lists(st.sampled_from("abcez"), max_size=30))
def test_older_version_of_a_newer_index(texts: list[str], within: Limits, unfinished: list[str]) -> None:
    """On an index that holds later versions, and part of a text that is none yet, every version is as it was."""
    index = indexed(texts, within.max_side)
    index = index.extended(index.additions([unfinished], within.max_side))
    assert_closed(texts, within, index=index)


@MOSTLY_NEW
@examples(60)
@given(small(), within(), st.sampled_from([1, 7, 1_000_000]), st.data())
@example(planted((2, 2, 2, 2), 4), Limits(4, 2, 16), 7, None)
@example(babble(6, 16, 4), Limits(3, 2, 12), 7, None)
def test_seed_keeps_its_promise(
    mostly_new: float, texts: list[str], within: Limits, part: int, data: st.DataObject | None
) -> None:
    """A seed since one version up to another finds the boxes of sides 2 born in between, in any parts, either way."""
    expected = brute_force(texts, within)
    index = indexed(texts, within.max_side)
    windows = list(itertools.combinations(range(len(texts) + 1), 2))
    since, upto = data.draw(st.sampled_from(windows)) if data else (max(0, len(texts) - 3), len(texts))
    born = Counter(ortho for ortho, at in expected.items() if since < at <= upto and max(ortho[0]) == 2)
    with constants(mostly=mostly_new, part=part):
        parts = seed_parts(index, since, upto)
        founds = [seed(index, since, upto, within, first, last) for first, last in parts]
        whole = seed(index, since, upto, within)
    assert [first for first, _ in parts] == [0, *(last for _, last in parts)][:-1]
    assert [found.done for found in founds] == [last - first for first, last in parts]
    assert sum((boxes(index, found) for found in founds), Counter()) == boxes(index, whole) == born
    assert all(not len(found.consulted) for found in founds)
    event("several parts" if len(parts) > 1 else "one part")


@examples(100)
@given(small(), within(), st.data())
@example(planted((2, 2, 3), 4), Limits(3, 3, 12), None)
@example(planted((3, 3), 4), Limits(2, 3, 9), None)
@example(babble(6, 16, 4), Limits(3, 4, 12), None)
def test_grow_keeps_its_promise(texts: list[str], within: Limits, data: st.DataObject | None) -> None:
    """A search of a batch since one version up to another finds the children born in between; run twice, the same."""
    expected = brute_force(texts, within)
    every = indexes(texts, within.max_side)
    windows = list(itertools.combinations(range(len(texts) + 1), 2))
    since, upto = data.draw(st.sampled_from(windows)) if data else (max(1, len(texts) - 3), len(texts))
    event(f"a window of {upto - since}, {'new' if since == 0 else 'replayed'}")
    for sides in {sides for sides, _ in expected}:
        there = [ortho for ortho, born in expected.items() if ortho[0] == sides and born <= (since or upto)]
        children = Counter(o for o, born in expected.items() if since < born <= upto and parent(o) in there)
        for index in (every[upto], every[-1]):
            batch = batch_of(index, sides, there)
            found, again = (grow(index, sides, batch.cells, since, upto, within) for _ in range(2))
            assert boxes(index, found) == children
            assert found.done == len(there)
            np.testing.assert_array_equal(found.consulted, again.consulted)
            for (shape, cells), (same, twin) in zip(found.batches, again.batches, strict=True):
                assert shape == same
                np.testing.assert_array_equal(cells, twin)


@examples(40)
@given(small(), within(), st.sampled_from([1, 100, 10**6]))
def test_shared_harvest(texts: list[str], within: Limits, result_bytes: int) -> None:
    """Batches that share a harvest find what each does alone, as far as there is room; small volumes come out first."""
    index = indexed(texts, within.max_side)
    harvest = Harvest(Bounds(result_bytes=result_bytes))
    expected: Counter[Ortho] = Counter()
    for batch in closed(texts, within).batches:
        was_full = harvest.full
        consulted, done = grow_into(harvest, index, batch.sides, batch.cells, 0, index.version, within)
        assert done == 0 if was_full else done > 0
        alone = grow(index, batch.sides, batch.cells[:, :done], 0, index.version, within)
        expected += boxes(index, alone)
        np.testing.assert_array_equal(consulted, alone.consulted)
    taken = list(iter(harvest.take, None))
    assert Counter(box for sides, cells in taken for box in Batch(sides, cells).orthos(index)) == expected
    assert [volume(sides) for sides, _ in taken] == sorted(volume(sides) for sides, _ in taken)


def test_more_than_65536_words() -> None:
    """A batch stored while word ids had 16 bits is grown right when they have outgrown them."""
    many = " ".join(f"{''.join(letters)}." for letters in itertools.product("ghijklmnopqrstuvw", repeat=4))
    texts = ["a b. d e. a d. b e", many, "a b c. d e f. c f"]
    closure, index = closed(texts, Limits()), indexed(texts, 8)
    assert len(index.vocabulary) > 1 << 16
    assert closure.orthos(index) == Counter(oracle.closure([texts[0], texts[2]]).keys())
    assert ((2, 3), ("a", "b", "c", "d", "e", "f")) in closure.orthos(index)


# ── remediations ─────────────────────────────────────────────────────────────────────────────────


@examples(100)
@given(small(), within(), st.sampled_from([1, 3, 32_768]))
@example(planted((2, 2, 3), 4), Limits(3, 3, 12), 1)
@example(planted((3, 3), 4), Limits(2, 3, 9), 1)
@example(planted((2, 3, 3), 4), Limits(3, 3, 18), 1)
@example(babble(9, 20, 4), Limits(2, 4, 12), 1)
def test_remediations_are_complete(texts: list[str], within: Limits, size: int) -> None:
    """If a batch has a child that is born later, a phrase it consulted got a continuation since; so for every batch."""
    later: dict[Ortho, list[int]] = {}  # per ortho, when its children are born
    for child, born in brute_force(texts, within).items():
        if (older := parent(child)) is not None:
            later.setdefault(older, []).append(born)
    index = indexed(texts, within.max_side)
    due = 0
    for played in [range(1, len(texts) + 1), *([version] for version in range(1, len(texts)))]:
        closure = Closure(within, Bounds(batch_orthos=size))
        for version in played:
            closure.play(index, version)
            for batch in closure.batches:
                births = {born for ortho in batch.orthos(index) for born in later.get(ortho, ())}
                births = {born for born in births if born > batch.searched}
                assert all(batch.due(index, born) for born in births)
                due += len(births)
    event("due" if due else "nothing due")


FIRST, LATER = "a b. d e. a d. b e", "a b c. d e f. c f"
WHOLE: Ortho = ((2, 3), ("a", "b", "c", "d", "e", "f"))


def test_without_remediations_orthos_are_missed() -> None:
    """What a later text lets an older ortho grow into is found by remediation and by nothing else."""
    texts = [FIRST, LATER]
    index = indexed(texts, 8)
    every = Counter(oracle.closure(texts).keys())
    with_them, without = closed(texts, Limits()), closed(texts, Limits(), remediate=False)
    assert with_them.orthos(index) == every
    assert without.orthos(index) == every - Counter([WHOLE])
    assert [batch.orthos(index) for batch in with_them.replayed[2]] == [[((2, 2), ("a", "d", "b", "e"))]]


def test_a_text_that_matters_to_nobody() -> None:
    """A text that continues no consulted phrase replays nothing."""
    closure = assert_closed([FIRST, "x y z. u d e. z a b. c f", LATER], Limits(2))
    assert not closure.replayed[2]
    assert len(closure.replayed[3]) == 1


def test_one_dead_line_is_enough_to_wait_on() -> None:
    """Where no line goes on an ortho waits on one line for each axis; once that goes on, on the next."""
    closure = Closure(Limits(2))
    texts = [FIRST, "a b c. a d x", LATER]
    every = indexes(texts, 8)
    closure.play(every[1], 1)
    (batch,) = closure.batches
    assert len(batch.consulted) == 2
    assert {len(every[1].phrase(int(node))) for node in batch.consulted} == {2}
    closure.play(every[2], 2)
    assert closure.replayed[2] == [batch]
    assert {every[2].phrase(int(node)) for node in batch.consulted} == {("a", "b"), ("d", "e"), ("a", "d"), ("b", "e")}
    closure.play(every[3], 3)
    assert WHOLE in closure.orthos(every[3])


# ── published counts ─────────────────────────────────────────────────────────────────────────────

COUNTS = {
    "1": (31, 3, {"2x2": 219, "2x2x2": 7, "2x3": 95, "2x4": 3}, 324),
    "1-2": (56, 3, {"2x2": 1090, "2x2x2": 138, "2x3": 408, "2x4": 29, "3x3": 2}, 1667),
    "1-3": (80, 3, {"2x2": 2156, "2x2x2": 467, "2x3": 851, "2x4": 72, "3x3": 7}, 3553),
    "1-20": (
        514,
        2,
        {"2x2": 65913, "2x3": 62836, "2x4": 8483, "2x5": 863, "2x6": 62, "2x7": 2, "3x3": 1200, "3x4": 5},
        139364,
    ),
    "1-50": (
        1533,
        2,
        {"2x2": 649831, "2x3": 1572783, "2x4": 382767, "2x5": 60424, "2x6": 8061, "2x7": 1027, "2x8": 107}
        | {"2x9": 12, "2x10": 2, "2x11": 1, "3x3": 169077, "3x4": 2453, "3x5": 4},
        2846549,
    ),
}


def genesis(*cuts: int) -> list[str]:
    """The verses up to each cut that are not in the text before."""
    if not GENESIS.exists():
        pytest.skip(f"{GENESIS} is absent")
    verses = GENESIS.read_text(encoding="utf-8").split("\n\n")
    return ["\n\n".join(verses[one:other]) for one, other in itertools.pairwise([0, *cuts])]


def counts(closure: Closure) -> dict[str, int]:
    found: Counter[str] = Counter()
    for batch in closure.batches:
        found[shape_name(batch.sides)] += batch.cells.shape[1]
    return dict(found)


@pytest.mark.parametrize("chapters", COUNTS)
def test_genesis(chapters: str) -> None:
    """The published counts of the closures of Genesis."""
    verses, axes, shapes, total = COUNTS[chapters]
    found = counts(closed(genesis(verses), Limits(axes, 12, 10**9)))
    assert found == shapes
    assert sum(found.values()) == total


@pytest.mark.parametrize("cut", [31, 257, 509])
def test_genesis_in_two_versions(cut: int) -> None:
    """The published counts again where the text came as two, the second large or small; no ortho comes twice."""
    verses, axes, shapes, _ = COUNTS["1-20"]
    texts = genesis(cut, verses)
    closure, index = closed(texts, Limits(axes, 12, 10**9)), indexed(texts, 12)
    assert counts(closure) == shapes
    assert closure.replayed[2]
    halves = np.concatenate([ids(batch.sides, batch.cells, index.hashes) for batch in closure.batches])
    assert len(np.unique(halves, axis=0)) == len(halves)
