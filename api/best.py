"""The best orthos of a corpus, proven: ask, follow, stop; the certificate."""

from __future__ import annotations

from typing import Any

from api import process, resources, responses, security
from api.bodies import NewBest
from api.corpora import address
from api.openapi import NOT_MODIFIED, errors
from api.parameters import BestPath, CorpusPath, RequestKey
from api.responses import Answered
from api.routes import Routes
from crochet_tasks.errors import IdempotencyKeyReused, LimitOutOfRange, NotFound, TooBusy
from crochet_tasks.operate import best_jobs
from crochet_tasks.operate.best_jobs import JobSpec
from crochet_tasks.schemas.best import BestJob

api = Routes("best", "/v1/corpora/<corpus>/best")


@api.post(
    "",
    responses={200: BestJob, 202: BestJob, **errors(IdempotencyKeyReused, LimitOutOfRange, TooBusy)},
    operation_id="findBest",
)
@security.requires("write")
def ask(path: CorpusPath, header: RequestKey, body: NewBest) -> Answered:
    """Have the best orthos of the corpus' version searched for, with proof: 202, and workers do it.

    The same question about the same version is one job: 200 where it is proven; one that was stopped or has failed goes
    on. It begins with the best that is known of older versions. Smaller orthos are not listed, and none is stored.
    """
    kept, again = best_jobs.ask(process.current(), security.caller().tenant, path.corpus, job_spec(body), header.key)
    job = BestJob.model_validate(kept.answer)
    return responses.accepted(job, kept.status, f"{address(path.corpus)}/best/{job.id}", again=again)


def job_spec(body: NewBest) -> JobSpec:
    given = body.model_dump(exclude_unset=True, exclude={"top"})
    return JobSpec({name: None if most == "any" else most for name, most in given.items()}, body.top)


@api.get("", responses={200: BestJob, **NOT_MODIFIED, **errors(NotFound)}, operation_id="getNewestBest")
@security.requires("read")
def newest(path: CorpusPath) -> Answered:
    """The newest search for the best orthos of the corpus: what is found, and how far the proof is."""
    with resources.open_corpus(path.corpus) as (connection, corpus):
        return responses.tagged(best_jobs.read(connection, corpus), corpus.version)


@api.get("/<job>", responses={200: BestJob, **NOT_MODIFIED, **errors(NotFound)}, operation_id="getBest")
@security.requires("read")
def one(path: BestPath) -> Answered:
    """A search for the best orthos. The time left is an estimate, and never part of the proof."""
    with resources.open_corpus(path.corpus) as (connection, corpus):
        return responses.tagged(best_jobs.read(connection, corpus, path.job), corpus.version)


_CERTIFICATE: dict[str, Any] = {
    "description": "what `crochet best --check` takes",
    "content": {"application/json": {"schema": {"type": "object"}}},
}


@api.get(
    "/<job>/certificate",
    responses={200: _CERTIFICATE, **NOT_MODIFIED, **errors(NotFound)},
    operation_id="getBestCertificate",
)
@security.requires("read")
def certificate(path: BestPath) -> Answered:
    """The proof that nothing is better."""
    with resources.open_corpus(path.corpus) as (connection, corpus):
        return responses.tagged(best_jobs.certificate(connection, corpus, path.job).encode(), corpus.version)


@api.post("/<job>/cancel", responses={200: BestJob, **errors(NotFound)}, operation_id="cancelBest")
@security.requires("write")
def cancel(path: BestPath) -> Answered:
    """Stop a search. What is proven so far stays; the same question has it go on. Idempotent."""
    return responses.json(best_jobs.stop(process.current(), security.caller().tenant, path.corpus, path.job))
