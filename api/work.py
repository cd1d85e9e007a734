"""Work: open and failed items, retry and cancel; the status of a corpus and of all corpora."""

from __future__ import annotations

from flask import Response

from api import process, resources, responses, security, security_log
from api.openapi import NOT_MODIFIED, errors
from api.parameters import CorpusPath, WorkPath, WorkQuery
from api.responses import Answered
from api.routes import Routes
from crochet_tasks.db import tally
from crochet_tasks.errors import (
    NotFound,
    TextIsVersion,
    TextStarted,
    TooBusy,
    WorkNotCancellable,
    WorkNotFailed,
    public_message,
)
from crochet_tasks.operate import actions, cancelling, inspection, tenant_work
from crochet_tasks.reporting import reports, statistics
from crochet_tasks.schemas.answers import CorpusEstimate, StatusNow, WorkPage
from crochet_tasks.schemas.reports import AllCancelled, WorkChanged, WorkError, WorkLine, WorkRetried
from crochet_tasks.schemas.statistics import StatisticsNow

api = Routes("work", "/v1/corpora/<corpus>")


@api.get("/work", responses={200: WorkPage, **NOT_MODIFIED, **errors()}, operation_id="listWork")
@security.requires("read")
def every(path: CorpusPath, query: WorkQuery) -> Answered:
    """Work: first what has failed, then what is open in the order in which it is done, then what ended last."""
    with resources.open_corpus(path.corpus) as (connection, corpus):
        found, uncounted = inspection.of_corpus(
            connection, corpus.id, query.state, query.kind, query.limit, statistics.COUNTED
        )
    work = [public(line) for line in found.work]
    page = WorkPage(version=corpus.version, work=work, more=found.more, at_least=uncounted)
    return responses.tagged(page, corpus.version)


@api.post(
    "/work/<work>/retry",
    responses={200: WorkChanged, **errors(NotFound, WorkNotFailed)},
    operation_id="retryWork",
)
@security.requires("operate")
def retry(path: WorkPath) -> Answered:
    """Open failed work again, as new; a text is accepted again, at the end of the line."""
    return _changed(path, tenant_work.retry, "work.retried")


@api.post(
    "/work/<work>/cancel",
    responses={200: WorkChanged, **errors(NotFound, TextIsVersion, TextStarted, WorkNotCancellable)},
    operation_id="cancelWork",
)
@security.requires("operate")
def cancel(path: WorkPath) -> Answered:
    """Cancel a text that is no version yet, by its id or its work, or a search.

    Until a search is retried the corpus is incomplete. A search that runs is not stopped; what it finds is dropped.
    """
    return _changed(path, tenant_work.cancel, "work.cancelled")


@api.post("/work/cancel", responses={200: AllCancelled, **errors(TextStarted)}, operation_id="cancelAllWork")
@security.requires("operate")
def cancel_all(path: CorpusPath) -> Answered:
    """Cancel all open work of a corpus: texts that are no version yet, searches, searches for the best.

    Its version, its orthos and what has failed stay. `work/retry` opens the searches again.
    """
    entry = security_log.entry("work.cancelled", {"corpus": path.corpus, "work": "all"})
    tenant = security.caller().tenant
    return responses.json(cancelling.cancel_all(process.current(), path.corpus, tenant, entry))


@api.post("/work/retry", responses={200: WorkRetried, **errors()}, operation_id="retryAllWork")
@security.requires("operate")
def retry_all(path: CorpusPath) -> Answered:
    """Open all failed, dropped and cancelled searches of a corpus again; failed texts are accepted again."""
    entry = security_log.entry("work.retried", {"corpus": path.corpus, "work": "all"})
    tenant = security.caller().tenant
    changed = actions.retry_all(process.current(), path.corpus, tenant, dropped=True, entry=entry)
    return responses.json(WorkRetried(corpus=path.corpus, retried=len(changed.changed)))


def _changed(path: WorkPath, change: tenant_work.Change, what: str) -> Response:
    entry = security_log.entry(what, {"corpus": path.corpus, "work": path.work})
    changed = change(process.current(), security.caller().tenant, path.corpus, path.work, entry)
    return responses.json(WorkChanged(changed=[public(line) for line in changed.changed]))


@api.get("/status", responses={200: StatusNow, **NOT_MODIFIED, **errors()}, operation_id="getStatus")
@security.requires("read")
def status(path: CorpusPath) -> Answered:
    """How far a corpus is: texts, orthos, work, and how fast it grows. `closed`: every ortho is there."""
    with resources.open_corpus(path.corpus) as (connection, corpus):
        report = reports.corpus_status(connection, corpus, statistics.COUNTED, message=statistics.for_tenants)
        spent = tally.spent(connection, corpus.id)
    uncounted = (
        max(report.work["open"] + report.work["failed"], report.work["done"], report.dropped) >= statistics.COUNTED
    )
    now = StatusNow(**report.model_dump(), budget=corpus.budget, spent=spent, at_least=uncounted)
    return responses.tagged(now, now.version)


@api.get("/estimate", responses={200: CorpusEstimate, **NOT_MODIFIED, **errors(TooBusy)}, operation_id="getEstimate")
@security.requires("read")
def estimate(path: CorpusPath) -> Answered:
    """How many orthos a corpus holds at its version, stored or not; about what finding and storing them takes.

    It takes seconds for each new version of a large corpus, so one is made at a time.
    """
    with resources.open_corpus(path.corpus) as (connection, corpus):
        stored, spent = tally.total(connection, corpus.id), tally.spent(connection, corpus.id)
        tag = f"{corpus.id}-{corpus.version}-{corpus.revision}-{stored}"
        if known := responses.unchanged(tag, corpus.version):
            return known
        tree = resources.catalog().store.phrases(connection, corpus).tree
    found = resources.estimates().of(corpus, tree)
    body = CorpusEstimate(**dict(found), version=corpus.version, stored=stored, budget=corpus.budget, spent=spent)
    return responses.tagged(body, corpus.version, tag)


def public(line: WorkLine) -> WorkLine:
    """The item as a tenant may read it."""
    error = line.error and WorkError(code=line.error.code, message=public_message(line.error.code, line.error.message))
    return line.model_copy(update={"error": error})


# ── all corpora ─────────────────────────────────────────────────────────────────────────────────

of_tenant = Routes("statistics", "/v1/status", tag="work")


@of_tenant.get("", responses={200: StatisticsNow, **errors(of_corpus=False)}, operation_id="getStatistics")
@security.requires("read", filters=True)
def everything() -> Answered:
    """Statistics of all corpora: open work, throughput, errors and time left.

    They are read from the database, so every server answers the same. What is unknown is null.
    """
    found = statistics.everything(process.current(), statistics.for_tenants, *security.reach())
    return responses.json(found, headers={"Cache-Control": "no-store"})
