"""Work: what is open, what failed, what an owner does about it; and how far a corpus is."""

from __future__ import annotations

from flask import Response
from flask_openapi import APIBlueprint, Tag

from api import answers, context, held, refusals, security, tagged
from api.answers import Answered
from api.documented import NOT_MODIFIED, problems
from api.models import OfCorpus, OfWork, WorkWanted
from crochet_tasks import looking, posting, reports, statistics, tenant_work
from crochet_tasks.answers import StatusNow, WorkChangedList, WorkSeen, WorkSeenList
from crochet_tasks.db import corpora
from crochet_tasks.errors import TextStarted, WorkNotCancellable, WorkNotFailed
from crochet_tasks.request_errors import NotFound
from crochet_tasks.schemas import WorkLine

api = APIBlueprint(
    "work",
    __name__,
    url_prefix="/v1/corpora/<corpus>",
    abp_tags=[Tag(name="work")],
    abp_security=security.NEEDS_KEY,
)


@api.get("/work", responses={200: WorkSeenList, **NOT_MODIFIED, **problems()}, operation_id="listWork")
@security.requires("read")
def every(path: OfCorpus, query: WorkWanted) -> Answered:
    """Work: first what has failed, then what is open in the order in which it is done, then what ended last."""
    with held.shown(path.corpus) as (connection, corpus):
        found, uncounted = looking.of_corpus(
            connection, corpus.id, query.state, query.kind, query.limit, statistics.COUNTED
        )
    work = [_line(line) for line in found.work]
    seen = WorkSeenList(version=corpus.version, work=work, more=found.more, at_least=uncounted)
    return tagged.answer(seen, corpus.version)


@api.post(
    "/work/<work>/retry",
    responses={200: WorkChangedList, **problems(NotFound, WorkNotFailed)},
    operation_id="retryWork",
)
@security.requires("admin")
def retry(path: OfWork) -> Answered:
    """Open failed work again, as new; a text is accepted again, at the end of the line."""
    return _changed(path, tenant_work.retry, "work.retried")


@api.post(
    "/work/<work>/cancel",
    responses={200: WorkChangedList, **problems(NotFound, TextStarted, WorkNotCancellable)},
    operation_id="cancelWork",
)
@security.requires("admin")
def cancel(path: OfWork) -> Answered:
    """Cancel the text that this is or is about. Searches cannot be: without them orthos would be missing."""
    return _changed(path, tenant_work.cancel, "work.cancelled")


def _changed(path: OfWork, change: tenant_work.Change, what: str) -> Response:
    deed = refusals.entry(what, {"corpus": path.corpus, "work": path.work})
    changed = change(context.process(), security.caller().tenant, path.corpus, path.work, deed)
    return answers.json(WorkChangedList(changed=[_line(line) for line in changed.changed]))


@api.get("/status", responses={200: StatusNow, **NOT_MODIFIED, **problems()}, operation_id="getStatus")
@security.requires("read")
def status(path: OfCorpus) -> Answered:
    """How far a corpus is: texts, orthos, work, and how fast it grows. `closed`: every ortho is there."""
    now = held.statuses().ask((security.caller().tenant, path.corpus), lambda: _status(path.corpus))
    return tagged.answer(now, now.version)


def _status(name: str) -> StatusNow:
    with held.shown(name) as (connection, corpus):
        seen = reports.corpus_status(connection, corpus, statistics.COUNTED, message=statistics.for_tenants)
        spent = corpora.spent(connection, corpus.id)
    uncounted = max(seen.work["open"] + seen.work["failed"], seen.work["done"], seen.dropped) >= statistics.COUNTED
    return StatusNow(**seen.model_dump(), budget=corpus.budget, spent=spent, at_least=uncounted)


def _line(line: WorkLine) -> WorkSeen:
    values = line.model_dump(exclude={"corpus", "error"})
    return WorkSeen(**values, error=None if line.error is None else posting.told(line.error))
