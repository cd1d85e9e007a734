"""Add texts, pasted or as files, after a look at what they would cost; then watch them become versions."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Response, request
from werkzeug.datastructures import FileStorage

from api import form, process, resources, security
from api.form import MULTIPART
from api.parameters import TEXTS_AT_ONCE as AT_ONCE
from crochet_tasks.db import tally
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.errors import (
    CrochetError,
    QuotaReached,
    TextHasNul,
    TextNotUtf8,
    TextTooLarge,
    TextWithoutWords,
    TooBusy,
)
from crochet_tasks.intake import files, posted
from crochet_tasks.intake.admission import SubmittedText
from crochet_tasks.reporting import reports, statistics
from crochet_tasks.schemas.names import title_of
from web.forms import in_words
from web.pages import blueprint, show, to
from web.session import TEXT

WRONG = (TextHasNul, TextNotUtf8, TextTooLarge, TextWithoutWords, TooBusy)
"""what the form shows beside its fields; other errors are pages"""


@blueprint.get("/corpora/<name>/add")
@security.requires("write")
def add_texts(name: str) -> Response:
    with resources.open_corpus(name) as (_, corpus):
        pass
    return _form(corpus)


@blueprint.post("/corpora/<name>/add")
@security.requires("write")
@form.accepts(form.Accepts((MULTIPART,), bytes=None))
def take(name: str) -> Response:
    """Accept the texts, or with `act=estimate` only say what they would cost. All are read before one is accepted."""
    with resources.open_corpus(name) as (connection, corpus):
        try:
            texts = _submitted()
            if not texts:
                return _form(corpus, "There is no text yet: paste one, or choose files.")
            if len(texts) > AT_ONCE:
                return _form(corpus, f"These are {len(texts)} files; add {AT_ONCE} at once at the most.")
            if request.form.get("act") == "estimate":
                bodies = [text.body for text in texts]
                found = resources.estimates().with_texts(process.current(), connection, corpus, bodies)
                return _form(corpus, estimate=found, texts=texts)
        except WRONG as error:
            return _form(corpus, in_words(error), error)
    return _accepted(corpus, texts)


def _accepted(corpus: Corpus, texts: list[SubmittedText]) -> Response:
    """Accept them in order, each in its own transaction; where there is no room for the rest, say which are in."""
    done: list[str] = []
    for text in texts:
        try:
            kept, _ = resources.admission().post(security.caller().tenant, corpus.name, text, None)
        except (QuotaReached, TooBusy) as error:
            rest = f" {len(done)} of {len(texts)} were accepted; add the others again later." if done else ""
            return _form(corpus, f"{in_words(error)}{rest}", error, accepted=done)
        done.append(str(kept.answer["id"]))
    return to("added_texts", name=corpus.name, text=done)


def _submitted() -> list[SubmittedText]:
    """The pasted text and the files, in this order. Raises what is wrong with the first that is no text."""
    limit = process.settings().max_text_bytes
    found = []
    pasted = request.form.get(TEXT, "").replace("\r\n", "\n")  # as browsers send lines
    if pasted.strip():
        body = files.decoded("the pasted text", files.encoded("the pasted text", pasted), limit)
        found.append(SubmittedText(title_of(request.form.get("title", "")), body))
    return found + [_file(each, limit) for each in request.files.getlist("files") if each.filename]


def _file(sent: FileStorage, limit: int) -> SubmittedText:
    title = title_of(sent.filename or "")
    return SubmittedText(title, files.decoded(f"'{title}'", sent.stream.read(limit + 1), limit))


def _form(corpus: Corpus, problem: str | None = None, error: CrochetError | None = None, **values: Any) -> Response:
    """The form, with what was pasted. Files cannot be given back: a browser does not let a page choose any."""
    status = HTTPStatus.OK if problem is None else HTTPStatus(getattr(error, "status", 422) or 422)
    given = {key: request.form.get(key, "") for key in ("title", TEXT)} if request.method == "POST" else {}
    had_files = request.method == "POST" and any(each.filename for each in request.files.getlist("files"))
    return show(
        "add_texts.html",
        status,
        corpus=corpus,
        given=given,
        had_files=had_files,
        problem=problem,
        limit=process.settings().max_text_bytes,
        most=AT_ONCE,
        **values,
    )


@blueprint.get("/corpora/<name>/added")
@security.requires("read")
def added_texts(name: str) -> Response:
    """What became of some texts, as far as it is now; a script reads it again with each change."""
    ids = request.args.getlist("text")[:AT_ONCE]
    with resources.open_corpus(name) as (connection, corpus):
        texts = [posted.text(connection, corpus, each) for each in ids]
        status = reports.corpus_status(connection, corpus, statistics.COUNTED, message=statistics.for_tenants)
        spent = tally.spent(connection, corpus.id)
    return show("added_texts.html", corpus=corpus, texts=texts, status=status, spent=spent)
