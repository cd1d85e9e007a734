"""What a request works with: this process' settings, pool and indexes."""

from __future__ import annotations

import threading

from flask import current_app

from crochet_tasks.app import Process
from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import SettingMissing
from crochet_tasks.settings import Settings

_opening = threading.Lock()


def settings() -> Settings:
    found = current_app.extensions["crochet.settings"]
    assert isinstance(found, Settings)
    return found


def process() -> Process:
    """Made once per worker process, on first use: so after the fork. Raises SettingMissing without a database."""
    with _opening:
        opened: Process | None = current_app.extensions.get("crochet.process")
        if opened is None:
            url = settings().database_url
            if url is None:
                raise SettingMissing(variable="CROCHET_DATABASE_URL", needed_for="the API reads and accepts there")
            opened = Process(settings(), Database(url.get_secret_value(), settings()))
            current_app.extensions["crochet.process"] = opened
        return opened
