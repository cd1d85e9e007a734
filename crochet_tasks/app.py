"""The Celery app, what a process holds while it lives, and the base of every task."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import celery
from sqlalchemy import Connection

from crochet_tasks.db import texts
from crochet_tasks.db.sessions import Database
from crochet_tasks.db.texts import TextRow
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.engine.text import sentences
from crochet_tasks.errors import CrochetError
from crochet_tasks.settings import Settings

app = celery.Celery("crochet_tasks")
app.config_from_object("celeryconfig")


@dataclass
class Process:
    """What one process holds: its settings, its pool, and an index per corpus that it works on."""

    settings: Settings
    database: Database
    indexes: dict[int, PhraseIndex] = field(default_factory=dict)
    parsed: dict[int, list[list[str]]] = field(default_factory=dict)
    pending: dict[tuple[int, int], PhraseIndex] = field(default_factory=dict)

    def index(self, connection: Connection, corpus: int, version: int) -> PhraseIndex:
        """The corpus' phrase index, brought forward to `version` at least."""
        index = self.indexes.get(corpus, PhraseIndex())
        if index.version < version:
            index = self.indexes[corpus] = texts.bring_forward(connection, corpus, index)
        return index

    def pending_index(self, connection: Connection, text: TextRow, version: int) -> PhraseIndex:
        """The index with what has come in of the text that is being ingested. The caller holds the ORDER lock.

        It is kept for the next part, under the text and how far that is: so it cannot be taken for another's.
        """
        index = self.pending.get((text.id, text.sentences))
        if index is None:
            index = self.index(connection, text.corpus, version)
            index = texts.bring_forward(connection, text.corpus, index, pending=True)
        return index

    def sentences(self, connection: Connection, text: int) -> list[list[str]]:
        """The sentences of a text; those of the last one are kept, because a big text is ingested in parts."""
        parsed = self.parsed.get(text)
        if parsed is None:
            parsed = sentences(texts.body(connection, text))
            self.parsed = {text: parsed}
        return parsed


_process: Process | None = None


@contextlib.contextmanager
def process(settings: Settings, url: str) -> Iterator[Process]:
    """Open what this process' tasks work with, for as long as the context lasts."""
    global _process  # noqa: PLW0603 - the one global: a process has one pool, made after fork
    database = Database(url, settings)
    _process = Process(settings, database)
    try:
        yield _process
    finally:
        _process = None
        database.close()


def here() -> Process:
    """What this process holds; tasks find it here."""
    if _process is None:
        raise RuntimeError("tasks run inside `app.process(...)`")
    return _process


def described(error: BaseException) -> dict[str, str]:
    """An error as it is kept with the work or text that it befell."""
    code = error.code if isinstance(error, CrochetError) else "internal"
    return {"code": code, "message": str(error) or type(error).__name__, "type": type(error).__name__}


class Step(celery.Task):
    """The base of every task: a step of the pipeline that may be run any number of times."""

    abstract = True

    def publish(self, payload: dict[str, Any]) -> None:
        """Send this task its message."""
        self.apply_async(args=[payload])
