"""Searches for the best orthos as tests ask for them, and what the oracle says they must find."""

from __future__ import annotations

import math
from collections.abc import Iterable

from crochet_tasks.db import corpora
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine.best.shapes import Scope
from crochet_tasks.operate import best_jobs
from crochet_tasks.operate.best_jobs import JobSpec
from crochet_tasks.schemas.best import BestJob
from tests.support import oracle, steps
from tests.support.oracle import Ortho

ANY = JobSpec({}, None)
BUSY = 24
"""the number of a corpus of tests/support/dense.py whose search lists faces and, with 1 visit a part, has 100 parts"""
BUSY_SCOPE = Scope(3, 3, 64)


def ask(process: Process, corpus: Corpus, asked: JobSpec = ANY) -> BestJob:
    answer, _ = best_jobs.ask(process, corpora.DEFAULT_TENANT, corpus.name, asked, None)
    return BestJob.model_validate(answer.answer)


def read(process: Process, corpus: Corpus, job: str | None = None) -> BestJob:
    with process.database.snapshot() as connection:
        return best_jobs.read(connection, corpora.numbered(connection, corpus.id), job)


def stop(process: Process, corpus: Corpus, job: str) -> BestJob:
    return best_jobs.stop(process, corpora.DEFAULT_TENANT, corpus.name, job)


def rank(ortho: Ortho) -> tuple[object, ...]:
    sides, words = ortho
    return -math.prod(side - 1 for side in sides), -math.prod(sides), sides, words


def expected(texts: list[str], scope: Scope, top: int | None = None) -> list[Ortho]:
    """The oracle's best, in order; "any" is more axes than these corpora can have."""
    return best_of(oracle.closure(texts, scope.max_axes or 6, scope.max_side, scope.max_cells or 10**9), top)


def best_of(found: Iterable[Ortho], top: int | None) -> list[Ortho]:
    """The best of all orthos, in order: those that share the largest volume and cells, or the `top` so many."""
    every = sorted(found, key=rank)
    return [one for one in every if rank(one)[:2] == rank(every[0])[:2]] if top is None else every[:top]


def orthos(job: BestJob) -> list[Ortho]:
    return [(tuple(one.shape), tuple(one.words)) for one in job.best]


def done_parts(process: Process, corpus: Corpus) -> int:
    count = "SELECT count(*) FROM work WHERE corpus = :c AND kind = 'best' AND state = 'done' AND part IS NOT NULL"
    return int(str(steps.sql(process, count, c=corpus.id)[0][0]))
