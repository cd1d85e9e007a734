"""What a process of the API shares between requests, each made on first use; and the caller's corpus."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from flask import current_app

from api import process, security
from api.streaming import ExportSlots
from crochet_tasks.db import Connection, corpora
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.intake.admission import Admission
from crochet_tasks.query.catalog import Catalog
from crochet_tasks.query.estimates import Estimates
from crochet_tasks.query.events import Watch

T = TypeVar("T")

_making = threading.Lock()


def once(name: str, make: Callable[[], T]) -> T:
    """The one object of that name in this process, made on first use, so after any fork."""
    found: T | None = current_app.extensions.get(name)
    if found is None:
        with _making:
            found = current_app.extensions.get(name)
            if found is None:
                found = current_app.extensions[name] = make()
    return found


def admission() -> Admission:
    current = process.current()
    return once("crochet.admission", lambda: Admission(current))


def catalog() -> Catalog:
    current, secret = process.current(), cursor_secret()
    return once("crochet.catalog", lambda: Catalog(current, secret))


def estimates() -> Estimates:
    return once("crochet.estimates", Estimates)


def watch() -> Watch:
    current, most = process.current(), process.settings().api_listeners
    return once("crochet.watch", lambda: Watch(current, most))


def exports() -> ExportSlots:
    return once("crochet.exports", ExportSlots)


def cursor_secret() -> bytes:
    """The secret that cursors are sealed with: the same in all processes of a deployment, unknown to clients."""
    settings = process.settings()
    secret = settings.database_url or settings.jwt_secret
    return hashlib.sha256(b"cursors of " + (b"" if secret is None else secret.get_secret_value().encode())).digest()


@contextlib.contextmanager
def open_corpus(name: str) -> Iterator[tuple[Connection, Corpus]]:
    """Open a snapshot and read the caller's corpus of that name in it; raises CorpusUnknown."""
    with process.reading().snapshot() as connection:
        tenant, only = security.reach()
        yield connection, corpora.named(connection, name, tenant, only=only)
