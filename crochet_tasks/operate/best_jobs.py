"""Searches for the best orthos, for the owner of a corpus: ask, read, stop. crochet_tasks/best.py does the work."""

from __future__ import annotations

import hashlib
import json
from typing import Literal, NamedTuple
from urllib.parse import quote

from crochet_tasks.db import Connection, best, corpora, idempotency
from crochet_tasks.db.best import JobRow, Question
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.idempotency import StoredAnswer
from crochet_tasks.db.process import Process
from crochet_tasks.engine.best.plan import Visits, seconds_left
from crochet_tasks.engine.best.shapes import Scope
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.errors import LimitOutOfRange, NotFound, TooBusy
from crochet_tasks.intake.posted import public_error
from crochet_tasks.schemas.best import BestJob, Bound, Parts, SecondsLeft
from crochet_tasks.schemas.names import BEST, best_name, number_in

ASKED, PROVEN = 202, 200
MOST_RUNNING = 8
"""jobs of a corpus that are worked on"""
BUSY_SECONDS = 30
WHAT = "search for the best orthos"


class JobSpec(NamedTuple):
    """Limits that differ from those of the corpus, None for any number; how many orthos, None: all of the best."""

    limits: dict[str, int | None]
    top: int | None


def ask(process: Process, tenant: int, name: str, spec: JobSpec, key: str | None) -> tuple[StoredAnswer, bool]:
    """Have the best of a corpus' version searched for; (the job, whether it is the answer to an earlier request).

    The same question is one job: 200 where it is proven, else 202, and a job that was stopped or has failed goes on.
    Raises CorpusUnknown, LimitOutOfRange, TooBusy, IdempotencyKeyReused.
    """
    with process.database.transaction() as connection:
        corpus = corpora.named(connection, name, tenant)
        if key is None:
            return _ask(connection, corpus, spec), False
        digest = hashlib.sha256(b"best " + json.dumps(spec, sort_keys=True).encode()).digest()
        hours = process.settings.idempotency_hours
        kept, new = idempotency.once(connection, corpus.id, key, digest, hours, lambda: _ask(connection, corpus, spec))
        return kept, not new


def _ask(connection: Connection, corpus: Corpus, spec: JobSpec) -> StoredAnswer:
    now = corpora.lock_for_acceptance(connection, corpus.id)
    if now is None:  # deleted while this waited for the lock
        raise corpora.unknown(connection, corpus.name, corpus.tenant)
    question = Question(now.version, scope(now.limits, spec.limits), spec.top)
    job = best.read(connection, best.ask(connection, corpus.id, question), lock=True)
    assert job is not None  # the corpus is locked
    found = read(connection, now, best_name(job.id))
    if found.state != "proven":
        best.start(connection, job)
        if best.running(connection, corpus.id) > MOST_RUNNING:
            raise TooBusy(
                what=f"{MOST_RUNNING} searches for the best of this corpus are under way", seconds=BUSY_SECONDS
            )
        found = read(connection, now, best_name(job.id))
    return StoredAnswer(PROVEN if found.state == "proven" else ASKED, found.model_dump(mode="json"))


def scope(limits: Limits, spec: dict[str, int | None]) -> Scope:
    """The limits of a corpus with the given ones in their place. It has no phrases longer than its max_side.

    Raises LimitOutOfRange.
    """
    chosen = Scope(*limits)._replace(**spec)  # type: ignore[arg-type]
    for limit, value in chosen._asdict().items():
        low, high = corpora.RANGES[limit]
        high = limits.max_side if limit == "max_side" else high
        if value is not None and not low <= value <= high:
            raise LimitOutOfRange(limit=limit, low=low, high=high, value=value)
    return chosen


def stop(process: Process, tenant: int, name: str, job: str) -> BestJob:
    """Stop a job that is not proven; what it has found stays. Raises CorpusUnknown, NotFound."""
    with process.database.transaction() as connection:
        corpus = corpora.named(connection, name, tenant)
        read(connection, corpus, job)  # it is this corpus'
        if (row := best.read(connection, _number_of(job), lock=True)) is not None:
            best.stop(connection, row)
        return read(connection, corpus, job)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────


def read(connection: Connection, corpus: Corpus, job: str | None = None) -> BestJob:
    """A job of a corpus, by default the newest; raises NotFound."""
    found = best.row(connection, corpus.id, None if job is None else _number_of(job))
    if found is None:
        raise NotFound(what=WHAT, name=job or corpus.name)
    return _as_job(corpus, found)


def certificate(connection: Connection, corpus: Corpus, job: str) -> str:
    """The proof of a job, as JSON; raises NotFound."""
    found = best.certificate(connection, corpus.id, _number_of(job))
    if found is None:
        raise NotFound(what="certificate", name=job)
    return found


def _number_of(job: str) -> int:
    number = number_in(job, BEST)
    if number is None:
        raise NotFound(what=WHAT, name=job[:100])
    return number


def _as_job(corpus: Corpus, row: JobRow) -> BestJob:
    report, state, name = row.report or {}, _state(row), best_name(row.id)
    upper, known = report.get("upper"), report.get("incumbent")
    gap = None if upper is None else upper["volume"] - (known["volume"] if known else 0)
    searching = None if state == "queued" else report.get("searching")
    done = report.get("parts_done", 0)
    return BestJob(
        id=name,
        corpus=corpus.name,
        version=row.version,
        state=state,
        limits={"max_axes": row.max_axes, "max_side": row.max_side, "max_cells": row.max_cells},
        top=row.top,
        best=report.get("best", []),
        found=report.get("found", {}),
        incumbent=known,
        upper=None if upper is None else Bound(**upper),
        gap=0 if state == "proven" else gap,
        searching=searching,
        parts=Parts(done=done, total=done + row.parts) if searching else None,
        estimated_seconds_left=_left(row) if state == "running" else None,
        empty=report.get("empty", []),
        too_large=report.get("too_large", []),
        certificate=f"/v1/corpora/{quote(corpus.name)}/best/{name}/certificate" if state == "proven" else None,
        error=public_error(row.error or {}) if state == "failed" else None,
        created_at=row.created_at,
        began_at=row.began_at,
        changed_at=row.changed_at,
        finished_at=row.finished_at,
    )


def _state(row: JobRow) -> Literal["queued", "running", "proven", "stopped", "failed"]:
    if row.finished_at is not None:
        return "proven"
    if row.parts:
        return "queued" if row.began_at is None else "running"
    return "stopped" if row.error is None else "failed"


def _left(row: JobRow) -> SecondsLeft | None:
    if row.expected is None or not row.visits or not row.seconds:
        return None
    left = seconds_left(Visits(*row.expected), row.visits / row.seconds)
    return left and SecondsLeft(low=round(left.low, 1), high=round(left.high, 1) if left.all else None)
