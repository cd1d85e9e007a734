"""How fast the API's reads are, without the API: `make bench-finding`. Writes benchmarks/results/finding.md.

A store of a few million orthos, one process. Cold: the first read of its kind in a process that has read nothing.
Warm: the same again and again, with other arguments each time where it has any. The snapshot and the reading of the
corpus are part of every figure, as they are of every request.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
from sqlalchemy import Connection

from benchmarks import texts
from benchmarks.closure import FLAT, machine, written
from crochet_tasks.db import corpora, tally
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.embedded.pipeline import close
from crochet_tasks.embedded.store import opened
from crochet_tasks.intake import admission
from crochet_tasks.query.catalog import Catalog
from crochet_tasks.query.pages import OrthoQuery
from crochet_tasks.settings import Settings

PARTS = 5
TIMES = 25
Read = Callable[[Catalog, Connection, Corpus, int], object]


def reads(process: Process, corpus: Corpus) -> dict[str, Read]:
    """The reads to measure; the number is how often each ran before."""
    with process.database.snapshot() as connection:
        catalog = Catalog(process, b"bench")
        now = corpora.numbered(connection, corpus.id)
        largest = tuple(max(catalog.shapes(connection, now), key=lambda count: count.orthos).shape)
        some = catalog.page(connection, now, OrthoQuery(largest), limit=1000).orthos
        words = sorted({word for ortho in some for word in ortho.words})
        everyday = catalog.by_id(connection, now, some[0].id)
        assert everyday is not None
        grids = [np.array(ortho.words, object).reshape(ortho.sides).tolist() for ortho in some]
        rare = catalog.vocabulary(connection, now, limit=1000).words[-1].word
    random = np.random.default_rng(1).integers(0, 1 << 62, 1000)
    absent = [f"{number:032x}" for number in random.tolist()]
    present = [ortho.id for ortho in some]
    cursors: list[str | None] = [None]

    def deep(catalog: Catalog, connection: Connection, now: Corpus, _: int) -> object:
        page = catalog.page(connection, now, OrthoQuery(largest), limit=1000, cursor=cursors[-1])
        cursors.append(page.next_cursor)
        return page

    return {
        "page, 100 best": lambda c, s, n, i: c.page(s, n, limit=100),
        "page, 1000 of the commonest shape, one after the other": deep,
        "page, 100 that begin with a word": lambda c, s, n, i: c.page(
            s, n, OrthoQuery(starts_with=(words[i % len(words)],)), limit=100
        ),
        "page, 100 that hold a word": lambda c, s, n, i: c.page(
            s, n, OrthoQuery.of(contains=words[i % len(words)]), limit=100
        ),
        "page, 100 that hold a rare word, of the commonest shape": lambda c, s, n, i: c.page(
            s, n, OrthoQuery.of(largest, contains=rare), limit=100
        ),
        "one by its id": lambda c, s, n, i: c.by_id(s, n, present[i]),
        "provenance of one": lambda c, s, n, i: c.provenance(s, n, everyday.lines),
        "shapes": lambda c, s, n, i: c.shapes(s, n),
        "check 1 id, exact": lambda c, s, n, i: c.check(s, n, [absent[i]]),
        "check 1000 ids, exact": lambda c, s, n, i: c.check(s, n, absent[:500] + present[:500]),
        "check 1000 boxes, exact": lambda c, s, n, i: c.check(s, n, grids),
        "check 1 id, probable": lambda c, s, n, i: c.check(s, n, [absent[i]], exact=False),
        "check 1000 ids, probable": lambda c, s, n, i: c.check(s, n, absent[:500] + present[:500], exact=False),
        "what waits on a phrase": lambda c, s, n, i: c.waiting_on(s, n, some[i].words[: largest[-1]]),
        "vocabulary, 100": lambda c, s, n, i: c.vocabulary(s, n, words[i % len(words)][:1]),
        "phrases, 100": lambda c, s, n, i: c.phrases(s, n, [words[i % len(words)]]),
    }


def measured(process: Process, corpus: Corpus, catalog: Catalog, read: Read, times: int) -> list[float]:
    """Milliseconds of each time."""
    taken = []
    for number in range(times):
        began = time.perf_counter()
        with process.database.snapshot() as connection:
            read(catalog, connection, corpora.numbered(connection, corpus.id), number)
        taken.append(1000 * (time.perf_counter() - began))
    return taken


def report() -> Iterator[str]:
    yield from machine("Reads")
    paragraphs = texts.genesis()
    name = "genesis" if paragraphs else "zipf"
    paragraphs = paragraphs or texts.zipf()
    with tempfile.TemporaryDirectory() as folder, opened(Settings(state_dir=Path(folder) / "state")) as process:
        with process.database.transaction() as connection:
            corpus = corpora.get_or_create(connection, "bench", FLAT)
        for part in np.array_split(np.arange(len(paragraphs)), PARTS):
            admission.accept(corpus, "bench", "\n\n".join(paragraphs[number] for number in part.tolist()))
            close(process, corpus)
        process.indexes.clear()
        process.pending.clear()
        process.trees.clear()
        yield from _of(name, process, corpus)


def _of(name: str, process: Process, corpus: Corpus) -> Iterator[str]:
    every = reads(process, corpus)
    memory = psutil.Process().memory_info().rss
    warm = Catalog(process, b"bench")
    with process.database.snapshot() as connection:
        total = tally.total(connection, corpus.id)
        number = sum(change.batches for change in tally.counted(connection, corpus.id).values())
        began = time.perf_counter()
        size = sum(map(len, warm.export(connection, corpora.numbered(connection, corpus.id))))
        seconds = time.perf_counter() - began
    yield f"## {name} in {PARTS} texts, 2 axes: {total:,} orthos in {number} batches"
    yield ""
    yield (
        f"- all of them exported as JSON lines: {size / 1e6:.0f} MB in {seconds:.1f} s, "
        f"{total / seconds / 1e6:.2f} million/s; "
        f"the process grew by {(psutil.Process().memory_info().rss - memory) / 1e6:.0f} MB, its peak is "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
    )
    yield ""
    yield "| read | cold ms | warm ms, median | warm ms, worst |"
    yield "|---|---|---|---|"
    for what, read in every.items():
        cold = measured(process, corpus, Catalog(process, b"bench"), read, 1)[0]
        taken = measured(process, corpus, warm, read, TIMES)
        yield f"| {what} | {cold:.0f} | {statistics.median(taken):.1f} | {max(taken):.1f} |"
    yield ""


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    written("finding", report)
