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

import numpy as np

from benchmarks import texts
from benchmarks.closure import FLAT, machine, written
from crochet_tasks.db import batches, corpora
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.embedded import pipeline
from crochet_tasks.engine.geometry import pack_cells
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
    yield from look_ups(index)
    with tempfile.TemporaryDirectory() as state, pipeline.opened(Settings(state_dir=Path(state))) as process:
        yield from threads(process, paragraphs)
        with process.database.transaction() as connection:
            corpus = corpora.named(connection, "threads-2")
        yield from phrases(process, index)
        yield from remediations(process, corpus)
        yield from cells(process, corpus)


def look_ups(index: PhraseIndex) -> Iterator[str]:
    """Is this line and this word a phrase? 65,536 questions at once, one in five answered yes."""
    random = np.random.default_rng(1)
    hit = random.integers(1, index.nodes, 65_536)
    node = index.parent[hit]
    word = np.where(random.random(len(hit)) < 0.2, index.word[hit], random.integers(0, len(index.vocabulary), len(hit)))
    keys = np.sort((index.parent[1:].astype(np.int64) << 32) | index.word[1:])
    queries = (node.astype(np.int64) << 32) | word

    def binary_search() -> object:
        at = np.minimum(np.searchsorted(keys, queries), len(keys) - 1)
        return keys[at] == queries

    yield f"## Lookups in an index of {index.nodes:,} phrases (ns each)"
    yield ""
    yield "| binary search | hash table: find | hash table: hits only |"
    yield "|---|---|---|"
    timed = [binary_search, lambda: index.find(node, word), lambda: index.hits(node, word.astype(np.int32))]
    yield "| " + " | ".join(f"{seconds(do, 20) / len(queries) * 1e9:.0f}" for do in timed) + " |"
    yield ""


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


def remediations(process: Process, corpus: Corpus) -> Iterator[str]:
    """int4[] under a GIN index beside packed arrays that are read through; due = who waits on one of 2,000 phrases."""
    with process.database.transaction() as connection:
        waits = [batch.phrases for batch in batches.every(connection, corpus.id) if batch.phrases is not None]
    expected = np.unique(np.random.default_rng(2).integers(0, max(int(w.max()) for w in waits if len(w)), 2_000))
    gin = """
        CREATE TABLE bench_gin (batch bigint PRIMARY KEY, phrases integer[]);
        CREATE INDEX ON bench_gin USING gin (phrases)
    """
    packed = "CREATE TABLE bench_packed (batch bigint PRIMARY KEY, phrases bytea)"

    def write_gin(cursor: Any) -> None:
        values = [(i, wait.tolist()) for i, wait in enumerate(waits)]
        cursor.executemany("INSERT INTO bench_gin VALUES (%s, %b)", values)

    def write_packed(cursor: Any) -> None:
        values = [(i, wait.astype("<i4").tobytes()) for i, wait in enumerate(waits)]
        cursor.executemany("INSERT INTO bench_packed VALUES (%s, %b)", values)

    query = f"SELECT batch FROM bench_gin WHERE phrases && '{{{','.join(map(str, expected))}}}'"
    yield f"## Remediations: {len(waits):,} batches that wait on {sum(map(len, waits)):,} phrases"
    yield ""
    yield from _compared(
        process,
        [
            ("int4[] with GIN", gin, "bench_gin", write_gin, query),
            ("packed, read through (chosen)", packed, "bench_packed", write_packed, "SELECT phrases FROM bench_packed"),
        ],
    )


def cells(process: Process, corpus: Corpus) -> Iterator[str]:
    """Packed cells as they are beside cells that the server compresses (pglz, what every build has)."""
    with process.database.transaction() as connection:
        values = [(batch.id, pack_cells(batch.cells)) for batch in batches.every(connection, corpus.id)]

    def table(name: str, storage: str) -> str:
        return (
            f"CREATE TABLE {name} (batch bigint PRIMARY KEY, cells bytea);"
            f"ALTER TABLE {name} ALTER cells SET STORAGE {storage}"
        )

    def write(name: str) -> Callable[[Any], None]:
        return lambda cursor: cursor.executemany(f"INSERT INTO {name} VALUES (%s, %b)", values)

    yield f"## Cells: {sum(len(value) for _, value in values) / 1e6:.0f} MB in {len(values)} batches"
    yield ""
    yield from _compared(
        process,
        [
            (
                f"{name} ({storage})",
                table(f"bench_{name}", storage),
                f"bench_{name}",
                write(f"bench_{name}"),
                f"SELECT cells FROM bench_{name}",
            )
            for name, storage in (("compressed", "EXTENDED"), ("plain", "EXTERNAL"))
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
