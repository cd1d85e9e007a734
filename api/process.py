"""The settings, connection pool and indexes of this process."""

from __future__ import annotations

import ctypes
import threading
from contextlib import ExitStack

from flask import Flask, current_app

from api.asgi import THREADS
from crochet_tasks.db.guarded import GuardedDatabase
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.db.sessions import Database
from crochet_tasks.db.standby import Reads
from crochet_tasks.errors import SettingMissing
from crochet_tasks.settings import Settings

CONNECTIONS = THREADS + 3
"""one for each thread that answers, one for events, and two for threads that, once in a process' life, need another one
in the middle of a transaction"""

M_MMAP_THRESHOLD = -3
"""malloc.h"""

_opening = threading.Lock()


def settings() -> Settings:
    found = current_app.extensions["crochet.settings"]
    assert isinstance(found, Settings)
    return found


def current() -> Process:
    """Opened once per server process, on first use: so after the fork. Raises SettingMissing without a database.

    It is also what `crochet_tasks.db.process.here()` answers until `close`: what accepts texts finds it there.
    """
    opened: Process | None = current_app.extensions.get("crochet.process")
    if opened is not None:
        return opened
    with _opening:
        opened = current_app.extensions.get("crochet.process")
        if opened is None:
            url = settings().database_url
            if url is None:
                raise SettingMissing(variable="CROCHET_DATABASE_URL", needed_for="the API reads and accepts there")
            database = GuardedDatabase(url.get_secret_value(), settings(), connections=CONNECTIONS)
            stack = ExitStack()
            opened = stack.enter_context(open_process(settings(), database))
            if (standby := settings().database_read_url) is not None:
                reads = Reads(database, standby.get_secret_value(), settings(), CONNECTIONS)
                stack.callback(reads.close)
                current_app.extensions["crochet.reads"] = reads
            current_app.extensions["crochet.opened"] = stack
            current_app.extensions["crochet.process"] = opened
            _return_large_blocks()
        return opened


def reading() -> Reads | Database:
    """Where snapshots of corpora are read: the standby, if there is one and it has what the primary has."""
    database = current().database
    reads: Reads | None = current_app.extensions.get("crochet.reads")
    return reads or database


def _return_large_blocks() -> None:
    """Have glibc return arrays of a megabyte and more to the system when they are freed.

    By default it keeps up to 32 MB of each: after making the tree of 2.7 million phrases a process was 46 MB larger.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # other C libraries have none
        mallopt(M_MMAP_THRESHOLD, 1 << 20)


def close(of: Flask) -> None:
    """Stop what uses the process and close its pool, where `current` has opened it: at the end of its life."""
    with _opening:
        stack: ExitStack | None = of.extensions.pop("crochet.opened", None)
        if stack is not None:
            del of.extensions["crochet.process"]
            of.extensions.pop("crochet.reads", None)
            stack.close()
