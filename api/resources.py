"""What a process of the API shares between requests, each made on first use; and the caller's corpus."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from flask import current_app
from sqlalchemy import Connection

from api import process, security
from api.streaming import Places
from crochet_tasks.db import corpora
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.intake.admission import Admission
from crochet_tasks.query.catalog import Catalog
from crochet_tasks.query.events import Watch
from crochet_tasks.query.warm_up import Warming

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
    held = process.current()
    return once("crochet.admission", lambda: Admission(held))


def catalog() -> Catalog:
    held, secret = process.current(), cursor_secret()
    return once("crochet.catalog", lambda: Catalog(held, secret))


def warming() -> Warming:
    held, reads = process.current(), catalog()
    return once("crochet.warming", lambda: Warming(held, reads.warm))


def watch() -> Watch:
    held, most = process.current(), process.settings().api_listeners
    return once("crochet.watch", lambda: Watch(held, most))


def exports() -> Places:
    return once("crochet.exports", Places)


def cursor_secret() -> bytes:
    """The secret that cursors are sealed with: the same in all processes of a deployment, unknown to clients."""
    settings = process.settings()
    secret = settings.database_url or settings.jwt_secret
    return hashlib.sha256(b"cursors of " + (b"" if secret is None else secret.get_secret_value().encode())).digest()


@contextlib.contextmanager
def shown(name: str) -> Iterator[tuple[Connection, Corpus]]:
    """A snapshot, and in it the caller's corpus of that name; raises CorpusUnknown."""
    with process.current().database.snapshot() as connection:
        yield connection, corpora.named(connection, name, security.caller().tenant)
