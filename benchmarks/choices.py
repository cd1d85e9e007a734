"""The measurements behind the decisions in docs/adr/: what was chosen beside what it was chosen over, in one run.

`python -m benchmarks.choices`. Take the ratios, not the absolutes. Nothing is asserted here.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import texts
from benchmarks.closure import FLAT, machine, written
from crochet_tasks.db import corpora
from crochet_tasks.db.process import Process
from crochet_tasks.embedded import pipeline, store
from crochet_tasks.engine.phrases import PhraseIndex, index_of
from crochet_tasks.engine.text import sentences
from crochet_tasks.intake import admission
from crochet_tasks.settings import Settings


def seconds(do: Callable[[], object], repeat: int = 5) -> float:
    """The best of a few runs."""
    best = float("inf")
    for _ in range(repeat):
        started = time.perf_counter()
        do()
        best = min(best, time.perf_counter() - started)
    return best


def report() -> Iterator[str]:
    yield from machine("Choices")
    paragraphs = texts.genesis() or texts.zipf()
    index = index_of([sentences("\n\n".join(paragraphs))], FLAT["max_side"])
    with tempfile.TemporaryDirectory() as state, store.opened(Settings(state_dir=Path(state))) as process:
        yield from threads(process, paragraphs)
        yield from phrases(process, index)


def threads(process: Process, paragraphs: list[str]) -> Iterator[str]:
    """The embedded run with one and with two threads."""
    body = "\n\n".join(paragraphs)
    yield "## Threads of the embedded run"
    yield ""
    yield "| threads | seconds |"
    yield "|---|---|"
    for number in (1, 2):
        with process.database.transaction() as connection:
            corpus = corpora.get_or_create(connection, f"threads-{number}", FLAT)
        pipeline.WORKERS = number
        started = time.perf_counter()
        admission.accept(corpus, "text", body)
        pipeline.close(process, corpus)
        yield f"| {number} | {time.perf_counter() - started:.2f} |"
    yield ""


def phrases(process: Process, index: PhraseIndex) -> Iterator[str]:
    """A row per phrase, with the keys and the foreign key that make up the tree, beside a row per chunk."""
    rows = [(i, int(index.parent[i]), int(index.word[i])) for i in range(1, index.nodes)]
    table = """
        CREATE TABLE bench_rows (
            corpus integer, id integer, parent integer, word integer, born integer, PRIMARY KEY (corpus, id),
            UNIQUE (corpus, parent, word), FOREIGN KEY (corpus, parent) REFERENCES bench_rows (corpus, id))
    """
    chunk = "CREATE TABLE bench_chunk (corpus integer, first integer PRIMARY KEY, parent bytea, word bytea)"

    def write_rows(cursor: Any) -> None:
        cursor.execute("INSERT INTO bench_rows VALUES (1, 0, NULL, NULL, 1)")
        with cursor.copy("COPY bench_rows (corpus, id, parent, word, born) FROM STDIN") as copy:
            for row in rows:
                copy.write_row((1, *row, 1))

    def write_chunk(cursor: Any) -> None:
        values = (index.parent.astype("<i4").tobytes(), index.word.astype("<i4").tobytes())
        cursor.execute("INSERT INTO bench_chunk VALUES (1, 1, %b, %b)", values)

    yield f"## Storing {len(rows):,} phrases"
    yield ""
    yield from _compared(
        process,
        [
            ("a row each, COPY", table, "bench_rows", write_rows, "SELECT parent, word FROM bench_rows ORDER BY id"),
            ("chunks (chosen)", chunk, "bench_chunk", write_chunk, "SELECT parent, word FROM bench_chunk"),
        ],
    )


def _compared(process: Process, ways: list[tuple[str, str, str, Callable[[Any], None], str]]) -> Iterator[str]:
    yield "| | write s | read s | MB with indexes |"
    yield "|---|---|---|---|"
    for name, create, table, write, read in ways:
        with process.database.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute(create)
            driver.commit()
            with driver.cursor(binary=True) as cursor:
                started = time.perf_counter()
                write(cursor)
                driver.commit()
                wrote = time.perf_counter() - started
                took = seconds(functools.partial(_read, cursor, read), 3)
                size = cursor.execute("SELECT pg_total_relation_size(%s::regclass)", (table,)).fetchone()[0]
        yield f"| {name} | {wrote:.2f} | {took:.3f} | {size / 1e6:.1f} |"
    yield ""


def _read(cursor: Any, query: str) -> object:
    return cursor.execute(query).fetchall()


if __name__ == "__main__":
    written("choices", report)
