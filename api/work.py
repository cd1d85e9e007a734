"""Work: what is open, what failed, what an owner does about it; and how far a corpus is."""

from __future__ import annotations

from flask_openapi import APIBlueprint, Tag

from api import answers, context, held, refusals, security, tagged
from api.answers import Answered
from api.documented import NOT_MODIFIED, problems
from api.models import Nothing, OfCorpus, OfWork, WorkWanted
from crochet_tasks import looking, posting, reports, statistics, tenant_work
from crochet_tasks.answers import StatusNow, WorkChangedList, WorkSeen, WorkSeenList
from crochet_tasks.db import corpora
from crochet_tasks.errors import TextStarted, WorkNotCancellable, WorkNotFailed
from crochet_tasks.request_errors import NotFound
from crochet_tasks.schemas import WorkLine

COUNTED = 100_000
"""pieces of work, of a corpus and in one state, at the most: there may be millions"""

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
        found, uncounted = looking.of_corpus(connection, corpus.id, query.state, query.kind, query.limit, COUNTED)
    work = [_line(line) for line in found.work]
    seen = WorkSeenList(version=corpus.version, work=work, more=found.more, at_least=uncounted)
    return tagged.answer(seen, corpus.version)


@api.post(
    "/work/<work>/retry",
    responses={200: WorkChangedList, **problems(NotFound, WorkNotFailed)},
    operation_id="retryWork",
)
@security.requires("admin")
def retry(path: OfWork, query: Nothing) -> Answered:  # noqa: ARG001 - parameters are refused
    """Open failed work again, as new; a text is accepted again, at the end of the line."""
    deed = refusals.entry("work.retried", {"corpus": path.corpus, "work": path.work})
    changed = tenant_work.retry(context.process(), security.caller().tenant, path.corpus, path.work, deed)
    return answers.json(WorkChangedList(changed=[_line(line) for line in changed.changed]))


@api.post(
    "/work/<work>/cancel",
    responses={200: WorkChangedList, **problems(NotFound, TextStarted, WorkNotCancellable)},
    operation_id="cancelWork",
)
@security.requires("admin")
def cancel(path: OfWork, query: Nothing) -> Answered:  # noqa: ARG001 - parameters are refused
    """Cancel the text that this is or is about. Searches cannot be: without them orthos would be missing."""
    deed = refusals.entry("work.cancelled", {"corpus": path.corpus, "work": path.work})
    changed = tenant_work.cancel(context.process(), security.caller().tenant, path.corpus, path.work, deed)
    return answers.json(WorkChangedList(changed=[_line(line) for line in changed.changed]))


@api.get("/status", responses={200: StatusNow, **NOT_MODIFIED, **problems()}, operation_id="getStatus")
@security.requires("read")
def status(path: OfCorpus, query: Nothing) -> Answered:  # noqa: ARG001 - parameters are refused
    """How far a corpus is: texts, orthos, work, and how fast it grows. `closed`: every ortho is there."""
    with held.shown(path.corpus) as (connection, corpus):
        seen = reports.corpus_status(connection, corpus, COUNTED, message=statistics.for_tenants)
        spent = corpora.spent(connection, corpus.id)
    rate = held.rates().rate(corpus.id, seen.total)
    uncounted = max(seen.work["open"] + seen.work["failed"], seen.work["done"], seen.dropped) >= COUNTED
    values = {**seen.model_dump(), "rate": rate}
    now = StatusNow(**values, budget=corpus.budget, spent=spent, at_least=uncounted)
    return tagged.answer(now, corpus.version)


def _line(line: WorkLine) -> WorkSeen:
    values = line.model_dump(exclude={"corpus", "error"})
    return WorkSeen(**values, error=None if line.error is None else posting.told(line.error))
