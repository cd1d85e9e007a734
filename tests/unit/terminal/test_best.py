"""What is said of a search for the best: never more than is proven."""

from __future__ import annotations

import pytest

from crochet_tasks.engine.best.plan import Left
from crochet_tasks.engine.best.solve import Progress
from crochet_tasks.engine.best.state import Aim, Ortho
from crochet_tasks.schemas.best import BestOrtho, BestReport, Bound
from crochet_tasks.terminal import best

ORTHO = BestOrtho(id="0" * 32, shape=[2, 3], words=["the", "seas", "and", "land", "and", "the"], volume=2, cells=6)
BOUNDED = "best so far 2x3, volume 2 · at most volume 4 with 12 cells"
INCUMBENT = Ortho((2, 3), (1, 2, 3, 4, 3, 1))


def report(**changes: object) -> BestReport:
    whole = BestReport(
        complete=True,
        proven=True,
        best=[ORTHO],
        found={"2x3": 1},
        incumbent=None,
        upper=None,
        empty=["3x3"],
        too_large=[],
        limits={"max_axes": None, "max_side": 8, "max_cells": 64},
        top=None,
        seconds=0.2,
    )
    return whole.model_copy(update=changes)


@pytest.mark.parametrize(
    ("now", "line"),
    [
        (Progress(None, None, None, None, 0.0, None), "nothing found yet · no bound yet"),
        (
            Progress(INCUMBENT, (4, 12), (3, 3), Aim.ONE, 0.4, Left(2.0, 4.0, all=True)),
            f"{BOUNDED} · looking for a 3x3, 40 % · 2.0 s to 4.0 s left, if nothing better is found",
        ),
        (
            Progress(INCUMBENT, (2, 6), (2, 3), Aim.LIST, 0.5, Left(2.0, 4.0, all=False)),
            "best so far 2x3, volume 2 · nothing is larger · listing all 2x3, 50 % · at least 2.0 s left",
        ),
    ],
    ids=["nothing", "a bound above it", "listing"],
)
def test_progress(now: Progress, line: str) -> None:
    assert best.progress(now) == line


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (report(), "proven: no ortho is larger; it alone has volume 2 with 6 cells"),
        (report(found={"2x3": 2}, best=[ORTHO] * 2), "proven: no ortho is larger; these 2 share volume 2 with 6 cells"),
        (report(best=[], found={}), "proven: these texts have no ortho"),
        (report(top=1, found={"2x3": 5}), "proven: no ortho is better than this one"),
        (report(top=9), "proven: these are all orthos"),
        (
            report(complete=False, proven=False, best=[], found={}, incumbent=ORTHO),
            "not proven yet: 2x3, volume 2, is the best known",
        ),
        (report(complete=False, proven=False, best=[], found={}), "not proven yet: no ortho is known"),
        (
            report(complete=False, best=[], found={}, incumbent=ORTHO),
            "proven: no ortho is larger; not all that are asked for are listed yet",
        ),
    ],
    ids=["one", "two", "none", "top", "all", "not yet", "nothing yet", "not all listed"],
)
def test_conclusion(found: BestReport, line: str) -> None:
    assert best.conclusion(found)[0] == line
    assert best.conclusion(found)[-1] == "(any number of axes, sides up to 8, at most 64 cells; 0.2 s)"


def test_the_conclusion_of_an_unfinished_search_has_its_bound_and_what_is_empty() -> None:
    unfinished = report(
        complete=False, proven=False, best=[], found={}, incumbent=ORTHO, upper=Bound(volume=9, cells=16)
    )
    lines = best.conclusion(unfinished.model_copy(update={"too_large": ["2x2x2"]}))
    assert "an ortho has at most volume 9 with 16 cells" in lines
    assert "proven to have no ortho, and none that contains them: 3x3" in lines
    assert "too many for the memory, so not stacked: 2x2x2" in lines


def test_headlines() -> None:
    assert best.headlines(report(), "main") == [
        "proven: no ortho is larger than volume 2 with 6 cells; this one has that",
        "2x3: the seas and / land and the",
    ]
    (line,) = best.headlines(report(complete=False, proven=False, best=[], found={}, incumbent=ORTHO), "sea")
    assert "takes longer to prove: 2x3, volume 2, is the best so far" in line
    assert "'crochet best --corpus sea'" in line
