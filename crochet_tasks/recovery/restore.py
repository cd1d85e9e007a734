"""Check a backup, and restore it into an empty database."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

from crochet_tasks.db import dump, schema
from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import BackupDamaged, BackupKeyWrong, CrochetError, NotEmpty, RestoreUnfinished
from crochet_tasks.recovery import encryption, programs
from crochet_tasks.recovery.backup import COPY_BYTES
from crochet_tasks.recovery.places import Place, chosen
from crochet_tasks.schemas.recovery import Manifest

if TYPE_CHECKING:
    from pyrage.x25519 import Identity


def check(place: Place, name: str | None) -> Manifest:
    """Read a whole backup, by default the newest, and compare it with its sum; raises BackupUnknown, BackupDamaged."""
    manifest = chosen(place, name)
    found = sum_of(place, manifest)
    if found != (manifest.dump.bytes, manifest.dump.sha256):
        reason = f"{manifest.dump.file} is not what was written ({found[0]} of {manifest.dump.bytes} bytes)"
        raise BackupDamaged(name=manifest.name, reason=reason)
    return manifest


def sum_of(place: Place, manifest: Manifest) -> tuple[int, str]:
    """The size and the SHA-256 of a dump, as it is stored now."""
    source, summed, size = place.reader(f"{manifest.name}/{manifest.dump.file}"), hashlib.sha256(), 0
    while part := source.read(COPY_BYTES):
        summed.update(part)
        size += len(part)
    return size, summed.hexdigest()


def restore(database: Database, place: Place, name: str | None = None, keys: list[Identity] | None = None) -> Manifest:
    """Restore a backup, by default the newest, into an empty database: all of it or nothing.

    Open work is published again. Nothing else may use the database meanwhile. Raises NotEmpty, BackupUnknown,
    BackupDamaged, BackupKeyWrong, BackupFailed, SchemaUnknown (a newer program made it), DatabaseUnsuitable (behind a
    pooler), and RestoreUnfinished where the database holds it all and still cannot be used.
    """
    with database.transaction() as connection:
        dump.check_direct(connection)
        major = schema.server_major(connection)
        if tables := dump.tables(connection):
            shown = ", ".join(tables[:3]) + (f" and {len(tables) - 3} more tables" if len(tables) > 3 else "")
            raise NotEmpty(
                where="the database", found=shown, advice="name a new one with --state or CROCHET_DATABASE_URL"
            )
    manifest = check(place, name)
    found = schema.Found(manifest.schema_revision, manifest.schema_serves)
    if found.newer and not found.fits:  # an older one is migrated afterwards
        raise found.refusal()
    if manifest.dump.encrypted and not keys:
        raise BackupKeyWrong(reason=f"backup '{manifest.name}' is encrypted: give the file of its key with --identity")
    source = place.reader(f"{manifest.name}/{manifest.dump.file}")
    # --clean: a schema that the address names (options=-csearch_path) is there already, and empty.
    arguments = "--single-transaction", "--no-owner", "--no-privileges", "--clean", "--if-exists"
    with programs.running("pg_restore", major, database.address, *arguments) as (target, _):
        if manifest.dump.encrypted:
            encryption.decrypt(source, target, keys or [])
        else:
            shutil.copyfileobj(source, target, COPY_BYTES)
    try:
        _finish(database, manifest)
        programs.run("vacuumdb", major, database.address, "--analyze-only", "--quiet")
    except RestoreUnfinished:
        raise
    except CrochetError as error:
        raise RestoreUnfinished(name=manifest.name, reason=str(error)) from error
    return manifest


def _finish(database: Database, manifest: Manifest) -> None:
    with database.transaction() as connection:
        if schema.revision(connection) != manifest.schema_revision:
            reason = "its tables are in a schema that search_path does not name; give CROCHET_DATABASE_URL the one that"
            raise RestoreUnfinished(name=manifest.name, reason=f"{reason} it was made with (options=-csearch_path)")
        dump.republish_all(connection)
        found = dump.counted(connection)
    if found != manifest.corpora:
        raise BackupDamaged(name=manifest.name, reason="what was restored is not what was counted when it was made")
