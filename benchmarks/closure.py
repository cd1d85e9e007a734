"""How fast, how large, how flat: `make bench`. Prints a table and writes it to benchmarks/results/.

Every figure is measured in a process of its own (so that peak memory is its own), one after the other on the same
machine in one run; what is compared is compared within the run. Nothing is asserted here.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from benchmarks import texts

RESULTS = Path(__file__).parent / "results"
FLAT = {"max_axes": 2, "max_side": 12, "max_cells": 64}
Figures = dict[str, Any]


# ── what is measured, each in its own process ───────────────────────────────────────────────────


def engine(paragraphs: list[str], limits: dict[str, int]) -> Figures:
    """The search alone, in memory, one core: every ortho is found, in order; nothing is kept."""
    from crochet_tasks.engine.geometry import Limits
    from crochet_tasks.engine.phrases import index_of
    from crochet_tasks.engine.search import closure
    from crochet_tasks.engine.text import sentences
    from crochet_tasks.engine.tree import Tree

    index = index_of([sentences("\n\n".join(paragraphs))], limits["max_side"])
    started = time.perf_counter()
    found = sum(len(rows) for _, rows in closure(Tree.of(index, index.version), Limits(**limits)))
    return {"orthos": found, "seconds": time.perf_counter() - started}


def yardstick(paragraphs: list[str], limits: dict[str, int]) -> Figures:
    """A plain compiled depth-first search over pairs of phrases, two-row boxes only, one core: texts.YARDSTICK."""
    from crochet_tasks.engine.text import sentences

    read = sentences("\n\n".join(paragraphs))
    number = {word: str(at) for at, word in enumerate(sorted({word for words in read for word in words}))}
    with tempfile.TemporaryDirectory() as folder:
        program, words = Path(folder, "two_rows"), Path(folder, "words")
        subprocess.run(["g++", "-O3", "-march=native", "-o", program, texts.YARDSTICK], check=True)
        words.write_text("".join(f"{' '.join(map(number.__getitem__, sentence))}\n" for sentence in read))
        done = subprocess.run([program, words, str(limits["max_side"])], check=True, capture_output=True, text=True)
    _, orthos, _, seconds, *_ = done.stdout.splitlines()[-1].split()
    return {"orthos": int(orthos), "seconds": float(seconds)}


def embedded(parts: list[list[str]], limits: dict[str, int]) -> Figures:
    """The whole pipeline in one process on its private Postgres, text by text; the start of the server not counted.

    `seconds` has also what merging runs takes, which comes after the corpus is `closed`.
    """
    from sqlalchemy import text

    from crochet_tasks import merging
    from crochet_tasks.db import corpora, tally
    from crochet_tasks.embedded.pipeline import close
    from crochet_tasks.embedded.store import opened
    from crochet_tasks.intake import admission
    from crochet_tasks.settings import Settings

    with tempfile.TemporaryDirectory() as state, opened(Settings(state_dir=Path(state))) as process:
        with process.database.transaction() as connection:
            corpus = corpora.get_or_create(connection, "bench", limits)
        seconds, merged = list[float](), list[float]()
        merge_all = merging.merge_all

        def merge(*args: Any) -> None:
            began = time.perf_counter()
            merge_all(*args)
            merged.append(time.perf_counter() - began)

        with mock.patch.object(merging, "merge_all", merge):
            for paragraphs in parts:
                started = time.perf_counter()
                admission.accept(corpus, "bench", "\n\n".join(paragraphs))
                close(process, corpus)
                seconds.append(time.perf_counter() - started)
        with process.database.transaction() as connection:
            total = tally.total(connection, corpus.id)
            size = connection.execute(text(SIZE)).scalar_one()
    closed = [all_of_it - after for all_of_it, after in zip(seconds, merged, strict=True)]
    return {"orthos": total, "seconds": seconds, "closed": closed, "bytes": int(size) / total}


SIZE = """
SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""


def _measure(kind: str, corpus: str, share: float, last: float, limits: dict[str, int], copies: int) -> Figures:
    paragraphs = _paragraphs(corpus)
    paragraphs = paragraphs[: round(len(paragraphs) * share)]
    if kind == "engine":
        figures = engine(paragraphs, limits)
    elif kind == "yardstick":
        figures = yardstick(paragraphs, limits)
    else:
        cut = len(paragraphs) - max(round(len(paragraphs) * last), bool(last))
        first = [texts.renamed(paragraphs[:cut], copy) for copy in range(copies)]
        figures = embedded([part for part in (*first, paragraphs[cut:]) if part], limits)
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


def _paragraphs(corpus: str) -> list[str]:
    if corpus == "zipf":
        return texts.zipf()
    verses = texts.genesis()
    assert verses is not None
    return verses[:514] if corpus == "genesis 1-20" else verses


# ── the run ─────────────────────────────────────────────────────────────────────────────────────


def in_own_process(
    kind: str,
    corpus: str,
    share: float = 1.0,
    *,
    last: float = 0.0,
    limits: dict[str, int] = FLAT,
    copies: int = 1,
    repeat: int = 3,
) -> Figures:
    """The best of a few measurements: what disturbs one only ever makes it slower."""
    call = json.dumps([kind, corpus, share, last, limits, copies])
    runs = [
        json.loads(
            subprocess.run(
                [sys.executable, "-m", "benchmarks.closure", "--one", call], check=True, capture_output=True
            ).stdout
        )
        for _ in range(repeat)
    ]
    return min(runs, key=lambda run: run["seconds"] if isinstance(run["seconds"], float) else run["seconds"][-1])


def report() -> Iterator[str]:
    yield from machine()
    for corpus in ["genesis", "zipf"] if texts.genesis() else ["zipf"]:
        yield from _of(corpus)
    if texts.genesis():
        yield "## Three axes: genesis 1-20, otherwise default limits"
        yield ""
        limits = {"max_axes": 3, "max_side": 8, "max_cells": 64}
        alone, whole = (
            in_own_process(kind, "genesis 1-20", limits=limits, repeat=2) for kind in ("engine", "embedded")
        )
        yield from _row("engine alone", alone)
        yield from _row("embedded run", whole)
        yield f"- storage, all tables and indexes: **{whole['bytes']:.2f} bytes per ortho** (goal: at most 2)"
        yield ""
        yield from _after_others()


def _of(corpus: str) -> Iterator[str]:
    yield f"## {corpus}: 2 axes, max_side 12"
    yield ""
    alone = in_own_process("engine", corpus)
    whole = in_own_process("embedded", corpus)
    yield from _row("engine alone, one core", alone)
    yield from _row("embedded run, both cores", whole)
    if texts.YARDSTICK.exists():
        plain = in_own_process("yardstick", corpus)
        yield from _row("yardstick, two-row boxes, one core", plain)
        rate = plain["orthos"] / plain["seconds"]
        yield f"- engine / yardstick: **{alone['orthos'] / alone['seconds'] / rate:.2f}** (goal: at least 0.4)"
        yield f"- embedded run / yardstick: **{whole['orthos'] / whole['seconds'][0] / rate:.3f}** (goal: at least 0.2)"
    extra = whole["seconds"][0] - 1.5 * alone["seconds"]
    yield f"- embedded run: 1.5 times the engine alone **{extra:+.2f} s** (goal: at most +0.5 s)"
    for last, goal in ((0.02, 25), (0.002, 4)):
        later = in_own_process("embedded", corpus, last=last)["closed"][1]
        yield (
            f"- the last {last:.1%} after the rest: {later:.2f} s, **{later / whole['closed'][0]:.1%}** of everything "
            f"afresh (goal: at most {goal} %)"
        )
    yield f"- peak memory of the process: **{whole['peak_mb']:.0f} MB**"
    yield f"- storage, all tables and indexes: **{whole['bytes']:.2f} bytes per ortho** (goal: at most 2)"
    yield ""
    yield "| share of the text | orthos | engine µs/ortho | embedded µs/ortho | peak MB | bytes/ortho |"
    yield "|---|---|---|---|---|---|"
    for share in (0.25, 0.5, 1.0):
        a = in_own_process("engine", corpus, share) if share < 1 else alone
        b = in_own_process("embedded", corpus, share) if share < 1 else whole
        per = 1e6 / a["orthos"]
        yield (
            f"| {share:g} | {a['orthos']:,} | {a['seconds'] * per:.2f} | {b['seconds'][0] * per:.2f} | "
            f"{b['peak_mb']:.0f} | {b['bytes']:.2f} |"
        )
    yield ""


def _after_others() -> Iterator[str]:
    yield "## The same small text after more and more stored orthos"
    yield ""
    yield "The last 0.2 % of Genesis 1-20 after the rest of it, and after copies of that rest in other words."
    yield ""
    yield "| copies | orthos stored | seconds until the small text is closed | merging runs after it |"
    yield "|---|---|---|---|"
    for copies in (1, 4, 16):
        figures = in_own_process("embedded", "genesis 1-20", last=0.002, copies=copies)
        closed = figures["closed"][-1]
        yield f"| {copies} | {figures['orthos']:,} | {closed:.3f} | {figures['seconds'][-1] - closed:.3f} |"
    yield ""


def _row(name: str, figures: Figures) -> Iterator[str]:
    seconds = figures["seconds"] if isinstance(figures["seconds"], float) else sum(figures["seconds"])
    yield (
        f"- {name}: {figures['orthos']:,} orthos in {seconds:.2f} s, {figures['orthos'] / seconds:,.0f} orthos/s, "
        f"peak {figures['peak_mb']:.0f} MB"
    )


def machine(title: str = "Closure") -> Iterator[str]:
    """What was measured on."""
    import numpy as np

    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    commit = _git("rev-parse", "--short", "HEAD") or "unknown"
    # The results themselves are being written by now.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)benchmarks/results")
    yield f"# {title}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit}{'-dirty' if changed else ''}"
    yield ""
    yield (
        f"{psutil.cpu_count()} cores of {model}, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"load before {psutil.getloadavg()[0]:.1f}. Best of 3 unless stated otherwise."
    )
    yield ""


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()


def written(name: str, lines: Callable[[], Iterator[str]]) -> None:
    """Print the lines as they come, and keep them."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.md").open("w", encoding="utf-8") as file:
        for line in lines():
            print(line, flush=True)
            print(line, file=file, flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--one", help=argparse.SUPPRESS)
    one = options.parse_args().one
    if one:
        print(json.dumps(_measure(*json.loads(one))))
    else:
        written("closure", report)


if __name__ == "__main__":
    main()
