"""Owners of a private server: scripts in processes of their own, and what is seen of their server."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
from sqlalchemy.engine import make_url

OWNER = """
import os, sys
from pathlib import Path
from crochet_tasks.embedded.server import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
url = server.start()
"""
WAITING_OWNER = OWNER + "print(server.pid, url, flush=True); sys.stdin.read()"

Owner = subprocess.Popen[str]
Spawn = Callable[..., Owner]


def connect(url: str) -> psycopg.Connection:
    parts = make_url(url)
    host, port = str(parts.query["host"]), str(parts.query["port"])
    return psycopg.connect(host=host, port=port, user=parts.username, dbname=parts.database, autocommit=True)


def read_line(owner: Owner) -> list[str]:
    assert owner.stdout is not None
    return owner.stdout.readline().split()


def remember(url: str) -> None:
    with connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 'the seas and land' AS phrase")


def remembered(url: str) -> bool:
    with connect(url) as connection:
        return connection.execute("SELECT phrase FROM kept").fetchall() == [("the seas and land",)]


def data_of(state: Path) -> Path:
    return state / "postgres" / "data"


def runs(pid: int | str) -> bool:
    """Not so once it is dead, even while it is not reaped."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False
