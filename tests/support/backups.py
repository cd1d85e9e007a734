"""Backups in tests: the database that one is restored into, and what a database holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import inspect, text

from crochet_tasks.db.sessions import Database
from crochet_tasks.recovery import Place
from crochet_tasks.schemas.recovery import Manifest
from crochet_tasks.settings import Settings

ROWS = "SELECT md5(coalesce(string_agg(md5(each::text), '' ORDER BY md5(each::text)), '')) FROM {} AS each"


def opened(url: str) -> Iterator[Database]:
    database = Database(url, Settings())
    yield database
    database.close()


def contents(database: Database) -> dict[str, str]:
    """A sum of the rows of each table."""
    with database.transaction() as connection:
        names = inspect(connection).get_table_names()
        return {name: str(connection.execute(text(ROWS.format(name))).scalar_one()) for name in names}


def file_of(place: Place, manifest: Manifest) -> Path:
    return Path(place.address, manifest.name, manifest.dump.file)


def is_empty(database: Database) -> bool:
    with database.transaction() as connection:
        return inspect(connection).get_table_names() == []
