"""The store of commands: the private server of a state folder, or the database that is set. Celery is not loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from crochet_tasks.db import schema
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.db.sessions import Database
from crochet_tasks.embedded.folder import LOW_BYTES, free_bytes
from crochet_tasks.embedded.server import EmbeddedPostgres, running_url
from crochet_tasks.errors import DiskNearlyFull, StateInUse
from crochet_tasks.settings import Settings


def exists(settings: Settings) -> bool:
    """Whether there is a store. Creates none."""
    try:
        return settings.database_url is not None or data_folder(settings).exists()
    except OSError:  # something is there, and starting the server says what is wrong with it
        return True


def data_folder(settings: Settings) -> Path:
    return settings.state_dir / "postgres" / "data"


@contextlib.contextmanager
def connected(settings: Settings, *, threads: int = 1) -> Iterator[Process]:
    """Start the private server, unless the settings name one, and open this process' pool. The schema may be any.

    `threads`: how many use it at the same time.
    """
    with contextlib.ExitStack() as stack:
        if settings.database_url is None:
            url = stack.enter_context(EmbeddedPostgres(settings.state_dir)).url
        else:
            url = settings.database_url.get_secret_value()
        yield stack.enter_context(open_process(settings, url, threads=threads))


@contextlib.contextmanager
def opened(settings: Settings, *, threads: int = 1) -> Iterator[Process]:
    """As `connected`, on the schema this program works with: a private database is migrated, any other only checked.

    Raises SchemaUnknown, and what EmbeddedPostgres.start raises.
    """
    with connected(settings, threads=threads) as process:
        if settings.database_url is None:
            _bring_up_to_date(process.database)
        else:
            schema.check(process.database)
        yield process


@contextlib.contextmanager
def joined(settings: Settings) -> Iterator[Process]:
    """As `opened`, beside a process that runs the private server already; then nothing is migrated, only checked."""
    with contextlib.ExitStack() as stack:
        try:
            process = stack.enter_context(opened(settings))
        except StateInUse:
            process = stack.enter_context(open_process(settings, running_url(settings.state_dir)))
            schema.check(process.database)
        yield process


def check_space(settings: Settings) -> None:
    """Raise DiskNearlyFull where the private server's disk has too little room for more work."""
    if settings.database_url is None and (folder := data_folder(settings)).exists():
        free = free_bytes(folder)
        if free < LOW_BYTES:
            room, reserve = (f"{number >> 20} MB" for number in (free, LOW_BYTES))
            raise DiskNearlyFull(free=room, reserve=reserve, folder=settings.state_dir)


def _bring_up_to_date(database: Database) -> None:
    with database.transaction() as connection:
        found = schema.find(connection)
    if found.revision != schema.HEAD and not (found.newer and found.fits):  # migrating loads Alembic
        schema.migrate(database)
