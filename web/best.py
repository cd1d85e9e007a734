"""The best orthos of a corpus, proven: what is found, how far the proof is; ask for it, stop it, have it go on."""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from flask import Response, request
from pydantic import ValidationError

from api import process, resources, security
from api.best import job_spec
from api.bodies import NewBest
from crochet_tasks.db import Connection
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.engine.geometry import lines
from crochet_tasks.errors import LimitOutOfRange, NotFound, TooBusy
from crochet_tasks.operate import best_jobs
from crochet_tasks.schemas.best import BestJob, BestOrtho
from web import grids
from web.forms import LABELS, in_words, number
from web.grids import Layer
from web.pages import blueprint, show, to

MOST_SHOWN = 12
FIELDS = (*LABELS,)
WRONG = (LimitOutOfRange, TooBusy)
"""what the form shows beside its fields; other errors are pages"""


class Card(NamedTuple):
    """An ortho of a job, its grid and its lines. `stored`: it has a page, too: a proof stores none."""

    ortho: BestOrtho
    layers: list[Layer]
    rtl: bool
    lines: list[str]
    stored: bool


@blueprint.get("/corpora/<name>/best")
@blueprint.get("/corpora/<name>/best/<job>", endpoint="best_job")
@security.requires("read")
def best(name: str, job: str | None = None) -> Response:
    return _page(name, job)


def newest(connection: Connection, corpus: Corpus) -> BestJob | None:
    """The newest job of a corpus; None where nobody has asked yet."""
    try:
        return best_jobs.read(connection, corpus)
    except NotFound:
        return None


def _page(name: str, job: str | None, problem: str | None = None, code: int = HTTPStatus.OK) -> Response:
    with resources.open_corpus(name) as (connection, corpus):
        found = newest(connection, corpus) if job is None else best_jobs.read(connection, corpus, job)
        orthos = [] if found is None else found.best[:MOST_SHOWN]
        known = None if found is None else found.incumbent
        shown = orthos if known is None else [*orthos, known]
        ids = [each.id for each in shown]
        stored = [each.stored for each in resources.catalog().check(connection, corpus, ids).results] if ids else []
    cards = [_card(one, stored=there) for one, there in zip(shown, stored, strict=True)]
    limits = corpus.limits._asdict()
    given = {**limits, "top": None} if found is None else {**found.limits, "top": found.top}
    again = {each: _typed(each, given[each]) for each in FIELDS}
    if problem is not None:
        again |= {each: request.form.get(each, "").strip()[:20] for each in FIELDS}
    return show(
        "best.html",
        code,
        labels=LABELS,
        corpus=corpus,
        job=found,
        best=cards[: len(orthos)],
        known=cards[len(orthos) :],
        given=again,
        problem=problem,
    )


def _typed(field: str, value: int | None) -> str:
    """A value as one types it into the form."""
    return str(value) if value is not None else "" if field == "top" else "any"


def _card(ortho: BestOrtho, *, stored: bool) -> Card:
    sides = tuple(ortho.shape)
    said = [" ".join(ortho.words[cell] for cell in cells) for cells in lines(sides)]
    return Card(ortho, grids.layers(sides, ortho.words), grids.right_to_left(ortho.words), said, stored)


@blueprint.post("/corpora/<name>/best")
@security.requires("write")
def ask_best(name: str) -> Response:
    """Ask, or have a job go on, as the API does. A field that is empty is as the corpus has it."""
    given = {each: number(request.form.get(each, "").strip()) for each in FIELDS}
    try:
        new = NewBest.model_validate({each: value for each, value in given.items() if value is not None})
        kept, _ = best_jobs.ask(process.current(), security.caller().tenant, name, job_spec(new), None)
    except (ValidationError, *WRONG) as error:
        return _page(name, None, in_words(error), getattr(error, "status", None) or HTTPStatus.UNPROCESSABLE_ENTITY)
    return to("best_job", name=name, job=str(kept.answer["id"]))


@blueprint.post("/corpora/<name>/best/<job>/cancel")
@security.requires("write")
def cancel_best(name: str, job: str) -> Response:
    stopped = best_jobs.stop(process.current(), security.caller().tenant, name, job)
    return to("best_job", name=name, job=stopped.id)


@blueprint.get("/corpora/<name>/best/<job>/certificate")
@security.requires("read")
def best_certificate(name: str, job: str) -> Response:
    """The proof, as the API has it, for the session of a page."""
    with resources.open_corpus(name) as (connection, corpus):
        proof = best_jobs.certificate(connection, corpus, job)
    response = Response(proof, mimetype="application/json")
    response.headers["Content-Disposition"] = f'attachment; filename="{corpus.name}-{job}.json"'
    return response
