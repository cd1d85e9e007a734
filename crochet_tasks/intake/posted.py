"""Texts that were accepted, as their owners read them."""

from __future__ import annotations

from collections.abc import Mapping

from crochet_tasks.db import Connection, texts
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.texts import TextSummary
from crochet_tasks.errors import NotFound, public_message
from crochet_tasks.schemas.names import TEXT, number_in, text_name
from crochet_tasks.schemas.reports import TextError, TextLine


def number_of(name: str) -> int:
    """The number of a text called so; raises NotFound."""
    number = number_in(name, TEXT)
    if number is None:
        raise NotFound(what="text", name=name)
    return number


def text(connection: Connection, corpus: Corpus, name: str) -> TextLine:
    """A text of this corpus; raises NotFound."""
    row = texts.one(connection, corpus.id, number_of(name))
    if row is None:
        raise NotFound(what="text", name=name)
    return line(row)


def line(row: TextSummary) -> TextLine:
    values = {
        **row._asdict(),
        "id": text_name(row.id),
        "error": None if row.error is None else public_error(row.error),
    }
    return TextLine(**values)


def public_error(error: Mapping[str, object]) -> TextError:
    """An error as `db.failures.describe` stored it, as the owner of the text or work may read it."""
    code = str(error.get("code"))
    return TextError(code=code, message=public_message(code, str(error.get("message"))))
