"""How long it takes to prove the best orthos: `make bench-best`. Prints a table and writes benchmarks/results/best.md.

Genesis where it is at hand; the King James Bible with ARGS=--bible, of Debian's packages bible-kjv and bible-kjv-text:
each of its rows takes up to half an hour. Each row is a process of its own on all cores; what is not proven in its time
says how far it came. ARGS='--agree 4x6' searches one shape of the Bible whole, along its shortest and along its longest
side, and prints what each finds. Nothing is asserted here.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks import texts
from benchmarks.closure import machine, written
from benchmarks.scale import bible
from crochet_tasks.engine.best.faces import Faces, Way, other_way, way
from crochet_tasks.engine.best.plan import begun
from crochet_tasks.engine.best.shapes import Scope
from crochet_tasks.engine.best.solve import Solver
from crochet_tasks.engine.geometry import Sides, shape_name, volume
from crochet_tasks.engine.tree import Tree
from crochet_tasks.query.best import threads, tree_of

GENESIS: list[tuple[str, Scope, int | None, float]] = [
    ("3 axes", Scope(3, 8, 64), None, 10),
    ("any axes, cells", Scope(None, 8, None), None, 30),
    ("3 axes, top 20", Scope(3, 8, 64), 20, 300),
    ("2 axes, side 12", Scope(2, 12, 64), None, 10),
    ("3 axes, side 12", Scope(3, 12, 64), None, 10),
    ("any axes, cells, side 12", Scope(None, 12, None), None, 30),
    ("3 axes, side 12, top 20", Scope(3, 12, 64), 20, 300),
]
BIBLE: list[tuple[str, Scope, int | None, float]] = [
    ("2 axes, side 40", Scope(2, 40, None), None, 1200),
    ("2 axes, side 12", Scope(2, 12, 64), None, 1200),
    ("3 axes", Scope(3, 8, 64), None, 1800),
]


def _measure(book: str, scope: Scope, top: int | None, most: float) -> dict[str, Any]:
    body = bible() if book == "bible" else "\n\n".join(texts.genesis() or [])
    assert body
    began = time.perf_counter()
    tree = tree_of([body], scope.max_side)
    read = time.perf_counter() - began
    state = begun(tree, scope, top)
    Solver(Faces(tree), state, threads()).run(stopped=lambda: time.perf_counter() - began > most)
    seconds = time.perf_counter() - began
    best = state.incumbent.sides if state.incumbent is not None else None
    return {
        "best": ", ".join(f"{shape_name(one.record.sides)} ({one.record.found:,})" for one in state.listed)
        or (f"{shape_name(best)}, volume {volume(best)}, so far" if best else "none"),
        "bound": "proven" if state.done else f"at most {state.upper()}",
        "empty": ", ".join(shape_name(record.sides) for record in state.empty),
        "left": ", ".join(shape_name(sides) for sides in state.next()[1]),
        "read": read,
        "seconds": seconds,
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _rows(book: str, rows: list[tuple[str, Scope, int | None, float]]) -> Iterator[str]:
    yield f"## {book}"
    yield ""
    yield "| within | best (how many) | | empty shapes | left | seconds, of them reading | goal | peak MB |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, scope, top, goal in rows:
        call = json.dumps([book, scope, top, 4 * goal if book == "genesis" else goal])
        command = [sys.executable, "-m", "benchmarks.best", "--one", call]
        row = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        yield (
            f"| {name} | {row['best']} | {row['bound']} | {row['empty']} | {row['left']} | **{row['seconds']:.1f}**, "
            f"{row['read']:.1f} | {goal:g} | {row['mb']:.0f} |"
        )
    yield ""


def _report(*, with_bible: bool) -> Iterator[str]:
    yield from machine("The best, proven")
    yield "Each row once, in a process of its own."
    yield ""
    if texts.genesis():
        yield from _rows("genesis", GENESIS)
    if with_bible:
        yield from _rows("bible", BIBLE)


def _whole(tree: Tree, chosen: Way) -> str:
    """Search a shape one way, to its end."""
    search, stop = Faces(tree).search(chosen), np.zeros(1, np.uint8)
    began, found, visits = time.process_time(), 0, 0
    parts = search.parts(256, keep=0)
    with ThreadPoolExecutor(threads()) as pool:
        for done, outcome in enumerate(pool.map(lambda part: search.run(part, stop), parts), 1):
            found, visits = found + outcome.layers[-1], visits + outcome.visits
            seconds = time.process_time() - began
            print(f"{done} of {len(parts)} parts, {found} found, {visits:,} visits, {seconds:.0f} s", file=sys.stderr)
    return (
        f"{shape_name(chosen.sides)} as {chosen.layers} layers of {shape_name(chosen.face)} words: {found} found, "
        f"{visits:,} visits, {time.process_time() - began:.0f} s of CPU"
    )


def _agree(sides: Sides) -> None:
    """Search a shape of two axes along either axis."""
    tree = tree_of([bible() or ""], max(sides))
    for chosen in (way(sides), other_way(sides)):
        print(_whole(tree, chosen), flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--one", help=argparse.SUPPRESS)
    options.add_argument("--bible", action="store_true", help="the King James Bible, too; up to an hour")
    options.add_argument("--agree", metavar="SHAPE", help="search a shape of the Bible along two axes, such as 4x6")
    given = options.parse_args()
    if given.agree:
        _agree(tuple(map(int, given.agree.split("x"))))
    elif given.one:
        book, scope, top, most = json.loads(given.one)
        print(json.dumps(_measure(book, Scope(*scope), top, most)))
    else:
        written("best", lambda: _report(with_bible=given.bible))


if __name__ == "__main__":
    main()
