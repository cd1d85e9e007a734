"""For tests of a project that calls our tasks: in conftest.py, `pytest_plugins = ["crochet_tasks.embedded.testing"]`.

crochet     an empty store of this test's own, on a private Postgres; tasks run eagerly, whatever CROCHET_BROKER_URL
and CROCHET_DATABASE_URL say. `crochet_tasks.publish.publish_all()` does the open work.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crochet_tasks.app import app
from crochet_tasks.db.process import Process
from crochet_tasks.embedded import store
from crochet_tasks.settings import Settings


@pytest.fixture
def crochet(tmp_path: Path) -> Iterator[Process]:
    settings = Settings.load(database_url=None, broker_url=None, redis_url=None, state_dir=tmp_path / "crochet")
    before = app.conf.task_always_eager
    app.conf.task_always_eager = True
    try:
        with store.opened(settings) as process:
            yield process
    finally:
        app.conf.task_always_eager = before
