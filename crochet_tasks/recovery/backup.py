"""Make a backup while everything runs, and remove old ones."""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
from typing import TYPE_CHECKING

from crochet_tasks.db import dump, schema
from crochet_tasks.db.sessions import Database
from crochet_tasks.recovery import encryption, programs
from crochet_tasks.recovery.places import MANIFEST, Place, Writer, incomplete, read_backups
from crochet_tasks.schemas.recovery import Dump, Manifest
from crochet_tasks.settings import version

if TYPE_CHECKING:
    from pyrage.x25519 import Recipient

COPY_BYTES = 1 << 20
ARGUMENTS = "--format=custom", "--compress=1", "--no-owner", "--no-privileges", "--encoding=UTF8"
"""of pg_dump. The encoding: PGCLIENTENCODING may name one that lacks characters"""
LOCK_SECONDS = 60
"""that pg_dump waits for a table which a migration, or another client, has locked; its snapshot is open meanwhile"""
ABANDONED_HOURS = 24
"""after which a backup that is not complete is one that was interrupted"""


def backup(database: Database, place: Place, recipient: Recipient | None = None) -> Manifest:
    """Dump the whole database as it is at one moment, encrypted for `recipient`. Nothing else has to wait for it.

    Raises BackupFailed, BackupPlaceUnusable, DatabaseUnsuitable (behind a pooler), and what a database raises.
    """
    began = dt.datetime.now(dt.UTC)
    name = _name(began)
    file = "database.dump" if recipient is None else "database.dump.age"
    with database.snapshot() as connection:
        dump.check_direct(connection)
        snapshot, corpora = dump.exported(connection), dump.counted(connection)
        found, server = schema.find(connection), schema.server_version(connection)
        arguments = [f"--snapshot={snapshot}", f"--lock-wait-timeout={round(1000 * LOCK_SECONDS)}", *ARGUMENTS]
        with (
            place.writer(f"{name}/{file}") as target,
            programs.running("pg_dump", schema.server_major(connection), database.address, *arguments) as (
                _,
                source,
            ),
        ):
            summed = _Summed(target)
            if recipient is None:
                shutil.copyfileobj(source, summed, COPY_BYTES)
            else:
                encryption.encrypt(source, summed, recipient)
    manifest = Manifest(
        name=name,
        crochet=version(),
        schema_revision=found.revision or "none",
        schema_serves=found.serves,
        server=server,
        began_at=began,
        finished_at=dt.datetime.now(dt.UTC),
        dump=Dump(file=file, bytes=summed.bytes, sha256=summed.sum.hexdigest(), encrypted=recipient is not None),
        corpora=corpora,
    )
    with place.writer(f"{name}/{MANIFEST}") as target:
        target.write(manifest.model_dump_json(indent=1).encode() + b"\n")
    return manifest


def _name(moment: dt.datetime) -> str:
    """Such as 20261129T101502.125Z: in alphabetical order the oldest is first."""
    return f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03}Z"


class _Summed:
    """A file that is written, with its size and its sum."""

    def __init__(self, file: Writer) -> None:
        self._file = file
        self.bytes, self.sum = 0, hashlib.sha256()

    def write(self, value: bytes, /) -> int:
        self.bytes += len(value)
        self.sum.update(value)
        return self._file.write(value)

    def flush(self) -> None:
        self._file.flush()


def due_in(place: Place, every: float) -> float:
    """Seconds until the newest backup is so old: a service that is restarted must not fill a place with new ones."""
    newest = read_backups(place)[-1:]
    ages = [(dt.datetime.now(dt.UTC) - each.began_at).total_seconds() for each in newest]
    return max(0.0, min([every, *(every - age for age in ages)])) if ages else 0.0


def remove_old(place: Place, keep: int) -> list[str]:
    """Remove all but the newest complete backups, and those that were interrupted a day ago. Returns their names.

    One whose manifest cannot be read is left for an operator to look at, and does not count.
    """
    old = [each.name for each in read_backups(place)[:-keep]]
    oldest = _name(dt.datetime.now(dt.UTC) - dt.timedelta(hours=ABANDONED_HOURS))
    old += [name for name in incomplete(place) if name < oldest]
    for name in old:
        place.remove(name)
    return old
