"""What the templates are given: grids, plots, words."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from crochet_tasks.engine import geometry
from web import grids, plots, words
from web.pages import local
from web.sentences import marked
from web.text import SHOWN, STEPS, beginnings, shade

SIDES = [(2, 2), (2, 3), (2, 2, 2), (2, 2, 3), (2, 3, 4), (2, 2, 2, 2)]


@pytest.mark.parametrize(("sides", "across"), [(s, a) for s in SIDES for a in (None, *range(1, len(s) + 1))])
def test_layers_show_each_cell_once_along_the_chosen_axis(sides: tuple[int, ...], across: int | None) -> None:
    cells = [f"w{number}" for number in range(math.prod(sides))]
    found = grids.layers(sides, cells, across)
    shown = [cell for layer in found for row in layer.rows for cell in row]
    assert sorted(cell.number for cell in shown) == list(range(len(cells)))
    assert all(cell.word == cells[cell.number] for cell in shown)
    axis = len(sides) - 1 if across is None else across - 1
    assert {layer.columns for layer in found} == {sides[axis]}
    at = geometry.coordinates(sides)
    for row in (row for layer in found for row in layer.rows):
        steps = np.array([at[cell.number] for cell in row])
        assert steps[:, axis].tolist() == list(range(sides[axis]))
        assert (np.delete(steps, axis, axis=1) == np.delete(steps[0], axis)).all()
    labels = [layer.label for layer in found]
    assert len(set(labels)) == len(labels) == math.prod(sides) // (sides[axis] * _rows(sides, axis))
    assert (labels == [""]) == (len(sides) == 2)


def _rows(sides: tuple[int, ...], axis: int) -> int:
    return [side for place, side in enumerate(sides) if place != axis][-1]


def test_a_grid_as_text_has_its_words_in_columns() -> None:
    text = grids.text(grids.layers((2, 3), ["a", "海海", "c", "dd", "e", "f"]))
    assert text == "a   海海  c\ndd  e     f\n"


def test_a_picture_has_a_word_in_the_middle_of_each_cell() -> None:
    found = grids.picture(grids.layers((2, 2, 2), list("abcdefgh")))
    assert [word for *_, word in found.words] == list("abcdefgh")
    verticals = sorted({x for x, _, also, _ in found.lines if x == also})
    assert len(found.lines) == 2 * (3 + 3)
    for x, y, _ in found.words:
        left = max(each for each in verticals if each < x)
        right = min(each for each in verticals if each > x)
        assert abs((left + right) / 2 - x) <= 1
        assert 0 < y < found.height


@pytest.mark.parametrize(
    ("word", "rtl"), [("بحر", True), ("שלום", True), ("sea", False), ("समुद्र", False), ("海", False)]
)
def test_the_first_letter_decides_the_direction(word: str, rtl: bool) -> None:
    assert grids.right_to_left([word]) is rtl
    assert not grids.right_to_left([])


@pytest.mark.parametrize(("word", "expected"), [("sea", 3), ("海", 2), ("é", 1), ("e\u0301", 1), ("\uff21", 2)])
def test_columns_of_a_word(word: str, expected: int) -> None:
    assert grids.columns(word) == expected


@given(some.lists(some.integers(0, 10**9), min_size=1, max_size=2000))
def test_a_curve_goes_from_the_first_value_to_the_last(values: list[int]) -> None:
    points = [tuple(map(float, each.split(","))) for each in plots.curve(values).points.split()]
    assert len(points) <= plots.POINTS
    assert all(0 <= x <= plots.WIDTH and 0 <= y <= plots.HEIGHT for x, y in points)
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    for point, value in ((points[0], values[0]), (points[-1], values[-1])):
        assert point[1] == pytest.approx(plots.HEIGHT * (1 - value / (max(values) or 1)), abs=0.06)


def test_bars_are_longer_for_more() -> None:
    widths = [plots.share(value, 10**6) for value in (0, 1, 2, 10, 1000, 10**6)]
    assert widths == sorted(widths)
    assert (widths[0], widths[1] > 0, widths[-1]) == (0.0, True, 100.0)
    assert plots.share(1, 1) == 100.0


@given(some.integers(0, 5000), some.integers(2, 50))
def test_a_sample_is_spread_evenly_and_ends_with_the_last(number: int, most: int) -> None:
    found = plots.sampled([None] * number, most)
    assert len(found) <= most
    assert found == sorted(set(found))
    assert (not found and number == 0) or (found[0], found[-1]) == (0, number - 1)
    gaps = [b - a for a, b in itertools.pairwise(found)]
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


def test_a_sentence_is_marked_wherever_the_phrase_stands() -> None:
    assert marked(["a", "b", "a", "b", "a", "c"], ["a", "b", "a"]) == [("a b a b a", True), ("c", False)]
    assert marked(["x"], ["y"]) == [("x", False)]
    assert marked(["the", "sea"], ["the", "sea"]) == [("the sea", True)]


@given(some.lists(some.sampled_from("abc"), max_size=12), some.lists(some.sampled_from("abc"), min_size=1, max_size=3))
def test_a_marked_sentence_is_the_sentence(sentence: list[str], phrase: list[str]) -> None:
    parts = marked(sentence, phrase)
    assert " ".join(each.words for each in parts) == " ".join(sentence)
    assert any(each.marked for each in parts) == (f" {' '.join(phrase)} " in f" {' '.join(sentence)} ")


def test_numbers_for_people() -> None:
    thin = words.THIN
    assert [words.number(each) for each in (0, 999, 12345, 1e6)] == ["0", "999", f"12{thin}345", f"1{thin}000{thin}000"]
    assert [words.size(each) for each in (0, 999, 1529, 52_000, 16_000_000)] == [
        f"{each.replace(' ', thin)}" for each in ("0 B", "999 B", "1.5 kB", "52 kB", "16 MB")
    ]
    assert [words.seconds(each) for each in (4, 130, 3 * 3600, 3 * 86_400)] == [
        each.replace(" ", thin) if "day" not in each else each for each in ("4 s", "2 min", "3 h", "3 days")
    ]
    now = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    assert words.ago(now - dt.timedelta(seconds=30), now) == f"30{thin}s ago"
    assert words.ago(now, now) == "just now"
    assert (words.plural(1, "text"), words.plural(2, "text"), words.plural(2, "search", "searches")) == (
        "1 text",
        "2 texts",
        "2 searches",
    )
    assert words.shape([2, 3]) == "2×3"


def test_shades_grow_with_the_number_of_orthos() -> None:
    steps = [shade(each, 100_000) for each in (0, 1, 9, 10, 99, 1000, 10_000, 99_999, 100_000)]
    assert steps == sorted(steps)
    assert (steps[0], steps[1], steps[-1]) == (0, 1, STEPS)
    assert shade(1, 1) == STEPS


@given(some.text(max_size=30).map(lambda tail: "/" + tail) | some.text(max_size=30))
def test_an_address_of_another_site_is_none_of_ours(address: str) -> None:
    """As browsers read it: a backslash is a slash, and characters of control vanish."""
    found = local(address)
    assert found.startswith("/")
    assert not re.match(r"/[/\\]", re.sub(r"[\x00-\x20]", "", found))


# ── the console ─────────────────────────────────────────────────────────────────────────────────


@given(some.lists(some.none() | some.integers(0, 10**12), max_size=60))
def test_bars_stand_on_the_axis_and_are_as_high_as_their_values(values: list[int | None]) -> None:
    found = plots.bars(values)
    assert [bar.value for bar in found.bars] == values
    power = 10 ** (len(str(int(found.most))) - 1)
    assert found.most / power in (1, 2, 5)
    largest = max((value for value in values if value), default=0)
    assert found.most >= largest
    smaller = {1: 5 * power / 10, 2: power, 5: 2 * power}[int(found.most // power)]
    assert found.most == 1 or smaller < largest
    for bar in found.bars:
        exact = plots.HEIGHT * (bar.value or 0) / found.most
        assert bar.height == pytest.approx(max(1, exact) if bar.value else 0, abs=0.06)
        assert bar.y + bar.height == pytest.approx(plots.HEIGHT, abs=0.11)
    ends = [bar.x + bar.width for bar in found.bars]
    assert all(end < bar.x for end, bar in zip(ends, found.bars[1:], strict=False))
    assert not ends or ends[-1] <= plots.WIDTH


@pytest.mark.parametrize(
    ("value", "said"), [(0, "0"), (0.033, "0.033"), (12.345, "12.3"), (3.0, "3"), (1234.5, "1\u202f234")]
)
def test_rates_have_three_digits(value: float, said: str) -> None:
    assert words.rate(value) == said


def test_moments_are_in_utc() -> None:
    there = dt.timezone(dt.timedelta(hours=2))
    assert words.moment(dt.datetime(2026, 1, 1, 0, 30, 7, tzinfo=there)) == "2025-12-31 22:30:07 UTC"


def test_the_pages_of_a_text_begin_at_words_and_hold_all_of_it() -> None:
    body = " ".join(f"word{number}\n" * 3 for number in range(7000))
    begins = beginnings(body)
    assert len(begins) > 3
    assert begins[0] == 0
    assert all(body[begin - 1].isspace() for begin in begins[1:])
    assert all(0 < next_ - begin <= SHOWN for begin, next_ in itertools.pairwise([*begins, len(body)]))
    assert beginnings("") == [0]
    assert beginnings("x" * SHOWN) == [0]
    assert beginnings("x" * (SHOWN + 1)) == [0, SHOWN]
