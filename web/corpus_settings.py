"""Make a corpus, and change or delete one: the forms of what the API's routes of corpora do."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Response, request
from pydantic import ValidationError

from api import process, resources, security, security_log
from api.bodies import CorpusPatch, NewCorpus
from crochet_tasks.access import tenancy
from crochet_tasks.db import tally
from crochet_tasks.db.corpora import HIGHEST, LOWEST, RANGES, CorpusFields
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.errors import CorpusExists, NotConfirmed, PreconditionFailed, PriorityTooHigh, TooManyCorpora
from web.forms import LABELS, in_words, number
from web.pages import blueprint, show, to

WRONG = (CorpusExists, TooManyCorpora, NotConfirmed, PreconditionFailed, PriorityTooHigh)
"""what a form shows beside its fields; other errors are pages"""


@blueprint.get("/new-corpus")
@security.requires("write")
def new_corpus() -> Response:
    budget = process.settings().budget
    given = {"max_axes": "3", "max_side": "8", "max_cells": "64", "budget": "" if budget is None else str(budget)}
    return _form_of_new(given)


def _form_of_new(given: dict[str, str], problem: str | None = None) -> Response:
    status = HTTPStatus.OK if problem is None else HTTPStatus.UNPROCESSABLE_ENTITY
    return show("corpus_new.html", status, given=given, problem=problem, ranges=RANGES, labels=LABELS)


@blueprint.post("/new-corpus")
@security.requires("write")
def make_corpus() -> Response:
    given = {key: value.strip() for key, value in request.form.items() if key != "csrf_token"}
    new = None
    try:
        new = NewCorpus.model_validate(
            {
                "name": given.get("name", ""),
                "description": given.get("description", ""),
                "limits": {each: number(given.get(each)) for each in RANGES},
                "budget": number(given.get("budget")),
            }
        )
        fields = CorpusFields(new.name, new.description, new.budget)
        entry = security_log.entry("corpus.created", {"corpus": new.name})
        tenant = security.caller().tenant
        made = tenancy.create(process.current(), tenant, fields, Limits(**new.limits.model_dump()), entry)
    except (ValidationError, *WRONG) as error:
        if isinstance(error, CorpusExists) and new is not None and _just_made(new):
            return to("corpus", name=new.name)
        return _form_of_new(given, in_words(error))
    return to("corpus", name=made.name)


def _priority(given: dict[str, str]) -> dict[str, Any]:
    return {"priority": number(given["priority"])} if given.get("priority") else {}


def _just_made(new: NewCorpus) -> bool:
    """Whether the corpus of that name is what this form would make: it was sent twice. Nothing is in it yet."""
    with resources.open_corpus(new.name) as (connection, there):
        empty = not tally.texts_by_state(connection, there.id)
    found = (there.limits, there.description, there.budget)
    return empty and found == (Limits(**new.limits.model_dump()), new.description, new.budget)


@blueprint.get("/corpora/<name>/settings")
@security.requires("write")
def settings(name: str) -> Response:
    with resources.open_corpus(name) as (_, corpus):
        pass
    given = {
        "name": corpus.name,
        "description": corpus.description,
        "budget": "" if corpus.budget is None else str(corpus.budget),
        "priority": str(corpus.priority),
        "tag": tenancy.tag(corpus),
        "paused": "yes" if corpus.paused else "",
    }
    return _form_of(name, given)


@blueprint.post("/corpora/<name>/pause")
@security.requires("write")
def pause_corpus(name: str) -> Response:
    """Pause a corpus, or with `paused=no` resume it."""
    changes = {"paused": request.form.get("paused") != "no"}
    entry = security_log.entry("corpus.changed", {"corpus": name, "changed": sorted(changes)})
    tenancy.change(process.current(), security.caller().tenant, name, None, changes, entry)
    return to("settings", name=name)


def _form_of(name: str, given: dict[str, str], problem: str | None = None, about: str = "settings") -> Response:
    status = HTTPStatus.OK if problem is None else HTTPStatus.UNPROCESSABLE_ENTITY
    choices = _choices(given.get("priority", "0"))
    return show("corpus_settings.html", status, name=name, given=given, problem=problem, about=about, choices=choices)


def _choices(now: str) -> list[str]:
    """The priorities that the caller gives a corpus, and the one that it has."""
    most = max(security.highest_priority(), int(now) if now.isdecimal() else LOWEST)
    return [str(each) for each in range(min(most, HIGHEST), LOWEST - 1, -1)]


@blueprint.post("/corpora/<name>/settings")
@security.requires("write")
def change_corpus(name: str) -> Response:
    """Change what the form has, of the corpus as it showed it: not one that has changed since."""
    given = {key: value.strip() for key, value in request.form.items() if key != "csrf_token"}
    try:
        patch = CorpusPatch.model_validate(
            {
                "name": given.get("name", ""),
                "description": given.get("description", ""),
                "budget": number(given.get("budget")),
                **_priority(given),
            }
        )
        changes: dict[str, Any] = patch.model_dump(exclude_unset=True)
        entry = security_log.entry("corpus.changed", {"corpus": name, "changed": sorted(changes)})
        changed = tenancy.change(
            process.current(),
            security.caller().tenant,
            name,
            [given.get("tag", "")],
            changes,
            entry,
            highest=security.highest_priority(),
        )
    except PreconditionFailed:
        return _form_of(
            name, given, "Somebody has changed it meanwhile: load the page again, and see what is different."
        )
    except (ValidationError, *WRONG) as error:
        return _form_of(name, given, in_words(error))
    return to("corpus", name=changed.name)


@blueprint.post("/corpora/<name>/delete")
@security.requires("admin")
def delete_corpus(name: str) -> Response:
    """Delete it with all that is in it; who does that has typed its name."""
    entry = security_log.entry("corpus.deleted", {"corpus": name})
    try:
        removed = tenancy.remove(
            process.current(), security.caller().tenant, name, request.form.get("confirm", "").strip(), entry
        )
    except NotConfirmed:
        return _form_of(name, {}, f"Nothing was deleted: type {name} to confirm.", "delete")
    resources.catalog().forget(removed)
    return to("corpora")
