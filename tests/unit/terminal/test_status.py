"""`crochet status --watch`: one line per corpus, which fits a small terminal."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from crochet_tasks.schemas.reports import CorpusStatus, Status
from crochet_tasks.schemas.statistics import Statistics, TimeLeft
from crochet_tasks.terminal import status

COLUMNS, LINES = 80, 24


def corpus(name: str, *, done: int = 0, undone: int = 0, **changes: Any) -> CorpusStatus:
    left = changes.pop("left", TimeLeft(seconds=0.0, unknown=None))
    statistics = Statistics(
        corpora=1, versions=1, waiting_texts=0, orthos=0, work={}, paces=[], errors=[], left=left, at_least=False
    )
    failed = changes.pop("failed", 0)
    values: dict[str, Any] = {
        "corpus": name, "limits": {}, "version": 1, "texts": {}, "words": 0, "phrases": 0, "orthos": {}, "total": 0,
        "batches": 0, "work": {"open": undone, "done": done, "failed": failed}, "by_kind": {}, "oldest_open": None,
        "dropped": 0, "closed": not undone and not failed, "paused": False, "rate": 0.0, "bytes": 0,
        "statistics": statistics,
    }  # fmt: skip
    return CorpusStatus(**{**values, **changes})


def page(*corpora: CorpusStatus, height: int = LINES, **changes: Any) -> list[str]:
    values: dict[str, Any] = {
        "database": "db", "schema_version": "1", "bytes": 1, "dead_letters": 0, "broker": "none", "queues": {},
        "corpora": list(corpora), "statistics": None,
    }  # fmt: skip
    console = Console(file=io.StringIO(), width=COLUMNS, height=height, markup=False, highlight=False)
    console.print(status.overview(Status(**{**values, **changes}), height))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_each_corpus_has_a_line_with_bar_rate_and_time_left() -> None:
    busy = corpus(
        "genesis", done=75, undone=25, total=1_234_567, rate=47_442.2, left=TimeLeft(seconds=600, unknown=None)
    )
    lines = page(corpus("done", done=3, total=570), busy)
    shown = [line.split() for line in lines if line.startswith(("genesis", "done"))]
    assert shown == [
        ["genesis", "█" * 7 + "░" * 3, "75", "%", "1,234,567", "47,442", "about", "10", "min"],
        ["done", "█" * 10, "100", "%", "570", "0", "closed"],
    ]


def test_it_says_why_something_is_unknown() -> None:
    lines = page(corpus("x", undone=5, rate=None, left=TimeLeft(seconds=None, unknown="texts_waiting")))
    assert "left unknown: texts are not versions yet" in lines
    assert "orthos/s unknown: more was found in the last minute than is counted" in lines


def test_what_needs_somebody_is_named() -> None:
    lines = page(corpus("x", done=1, failed=2), dead_letters=3, broker="unknown", broker_problem="it is away")
    assert lines[0] == "3 dead letters: see 'crochet work list --state dead'"
    assert lines[1] == "queues: unknown, it is away"
    assert next(line for line in lines if line.startswith("x ")).endswith("2 failed")


def test_it_fits_80_by_24_whatever_there_is() -> None:
    """Corpora with open work come first; names and numbers as long as they get."""
    slow = TimeLeft(seconds=None, unknown="held_up")
    many = [corpus("z" * 100 + str(number), done=3, total=10**12, rate=0.0) for number in range(50)]
    open_ones = [corpus(f"open-{number}", undone=10**7, total=10**12, rate=None, left=slow) for number in range(4)]
    lines = page(*many, *open_ones, dead_letters=10**6, broker="unknown", broker_problem="it is away")
    assert len(lines) <= LINES - 1  # the cursor's line
    assert max(map(len, lines)) <= COLUMNS
    assert [line.split()[0] for line in lines if line.startswith("open-")] == [f"open-{number}" for number in range(4)]
    assert any(line.endswith("more: --corpus NAME shows one") for line in lines)


def test_names_do_nothing_to_the_terminal() -> None:
    assert "\x1b" not in "".join(page(corpus("\x1b[2Jx"), broker="unknown", broker_problem="\x1b]0;title\x07"))
