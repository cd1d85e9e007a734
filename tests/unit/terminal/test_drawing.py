"""What people see: grids, tables and progress, as it stands in the terminal."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType

from crochet_tasks.engine import geometry
from crochet_tasks.schemas.progress import Goal, RunProgress, States
from crochet_tasks.terminal import drawing
from crochet_tasks.terminal.drawing import Meter

SEAS = ["the", "seas", "land", "and"]
CUBE = ["in", "the", "day", "and", "all", "night", "long", "came"]


def shown(drawing: RenderableType, width: int = 60) -> list[str]:
    """The lines as printed, without the white space at their ends."""
    console = Console(file=io.StringIO(), width=width)
    console.print(drawing)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_two_axes_are_a_grid() -> None:
    assert shown(drawing.drawn((2, 2), SEAS)) == [
        "2x2  volume 1",
        "┌──────┬──────┐",
        "│ the  │ seas │",
        "├──────┼──────┤",
        "│ land │ and  │",
        "└──────┴──────┘",
    ]


def test_more_axes_are_labelled_tiles_side_by_side() -> None:
    assert shown(drawing.drawn((2, 2, 2), CUBE)) == [
        "2x2x2  volume 1",
        "layer 1         layer 2",
        "┌─────┬─────┐   ┌──────┬───────┐",
        "│ in  │ the │   │ all  │ night │",
        "├─────┼─────┤   ├──────┼───────┤",
        "│ day │ and │   │ long │ came  │",
        "└─────┴─────┘   └──────┴───────┘",
    ]


def test_tiles_go_below_each_other_and_words_are_folded_where_there_is_no_room() -> None:
    """Nothing is cut off."""
    narrow = shown(drawing.drawn((2, 2, 2), CUBE), width=20)
    assert [line for line in narrow if line.startswith("layer")] == ["layer 1", "layer 2"]
    folded = shown(drawing.drawn((2, 2), ["abcdefghijkl", "b", "c", "d"]), width=12)
    assert "".join("".join(line.split("│")[1:2]).strip() for line in folded).startswith("abcdefghijkl")


def test_tiles_number_the_cells_row_major() -> None:
    """Two outer axes: the last of them counts fastest."""
    tiles = list(geometry.tiles((2, 2, 2, 3)))
    assert [label for label, _ in tiles] == ["layer 1.1", "layer 1.2", "layer 2.1", "layer 2.2"]
    assert [cell for _, rows in tiles for row in rows for cell in row] == list(range(24))


def test_words_are_shown_as_they_are() -> None:
    """Words cannot hold markup, but file names and messages can."""
    assert shown(drawing.text("[red]:smile: 12")) == ["[red]:smile: 12"]


def test_counts_per_shape_are_added_up() -> None:
    lines = shown(drawing.shapes_table({"2x3": 1234, "2x2": 7}))
    assert [line.split() for line in lines if line.strip(" ─")] == [
        ["shape", "orthos"],
        ["2x3", "1,234"],
        ["2x2", "7"],
        ["total", "1,241"],
    ]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def progress(found: int, work_open: int = 3) -> RunProgress:
    return RunProgress(version=2, work=States(work_open, 40, 0), orthos={(2, 3): found} if found else {})


def test_without_a_terminal_progress_is_a_line_every_three_seconds() -> None:
    """The first and the last are always there; the rate counts what was found since the first."""
    clock, file = Clock(), io.StringIO()
    with Meter(Console(file=file, width=120), clock) as meter:
        for second, found in enumerate([0, 1000, 2000, 3000, 4000, 5000]):
            clock.now = 101.0 + second
            meter.show(progress(found))
    assert file.getvalue().splitlines() == [
        "version 2 · work 3 open, 40 done · 0 orthos · 0 orthos/s · best - · 1.0 s",
        "version 2 · work 3 open, 40 done · 3,000 orthos · 1,000 orthos/s · best 2x3 · 4.0 s",
        "version 2 · work 3 open, 40 done · 5,000 orthos · 1,000 orthos/s · best 2x3 · 6.0 s",
    ]


def test_a_run_that_fails_before_it_began_shows_no_progress() -> None:
    file = io.StringIO()
    with Meter(Console(file=file)):
        pass
    assert file.getvalue() == ""


def test_in_a_terminal_progress_is_a_table_that_says_when_it_is_about_to_stop() -> None:
    clock = Clock()
    meter = Meter(Console(file=io.StringIO()), clock)
    assert shown(meter) == ["opening the store"]
    meter.show(progress(0))
    clock.now = 102.0
    meter.show(progress(5000, work_open=1234))
    assert shown(meter, width=100) == [
        "version   work                  found          rate             best   elapsed",
        "2         1,234 open, 40 done   5,000 orthos   2,500 orthos/s   2x3    2.0 s",
    ]
    meter.stopping = True
    assert shown(meter, width=100)[-1] == drawing.STOPPING


def test_progress_to_a_goal_has_a_share_and_the_time_left() -> None:
    """At first as estimated, then by the pace; never all before it is."""
    clock, file = Clock(), io.StringIO()
    with Meter(Console(file=file, width=120), clock) as meter:
        meter.goal = Goal(10_000, "about 10,000", 100.0)
        for second, found, left in [(1, 0, 3), (7, 3000, 3), (11, 12_000, 3), (15, 12_000, 0)]:
            clock.now = 100.0 + second
            meter.show(progress(found, left))
    assert [line.partition("best ")[2] for line in file.getvalue().splitlines()] == [
        "- · 0 % of about 10,000 · left about 100 s · 1.0 s",
        "2x3 · 30 % of about 10,000 · left about 14 s · 7.0 s",
        "2x3 · >99 % of about 10,000 · 11 s",
        "2x3 · 100 % of about 10,000 · 15 s",
        "2x3 · 100 % of about 10,000 · 15 s",
    ]
