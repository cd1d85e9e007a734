"""What a request works with: this process' settings, pool and indexes."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from flask import current_app

from crochet_tasks import app
from crochet_tasks.app import Process
from crochet_tasks.db.guarded import GuardedDatabase
from crochet_tasks.errors import SettingMissing
from crochet_tasks.gateway import THREADS
from crochet_tasks.settings import Settings

_opening = threading.Lock()


def settings() -> Settings:
    found = current_app.extensions["crochet.settings"]
    assert isinstance(found, Settings)
    return found


def process() -> Process:
    """Made once per worker process, on first use: so after the fork. Raises SettingMissing without a database.

    It is also what `crochet_tasks.app.here()` answers from then on: what accepts texts finds it there.
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
            database = GuardedDatabase(url.get_secret_value(), settings(), connections=THREADS + 2)
            opened = ExitStack().enter_context(app.process(settings(), database))  # for as long as the process lives
            current_app.extensions["crochet.process"] = opened
        return opened
