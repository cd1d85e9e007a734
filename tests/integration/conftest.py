"""Fixtures on `database`, the private server of tests/conftest.py.

    process     what tasks find with `here()`, opened on `database` with the default settings
    api         a client of the API for each scope, on `process`: see tests/support/api.py
    guards      `api` with a route of each scope, /v1/test/{scope}
    start_of_a_window   the clock is set so that the minute of rate limits has just begun
    counted     metrics are recorded; reads the values of a counter by those of its labels
    closed      a corpus of `process` in which steps.TEXTS are played; `snapshot` a snapshot of it, `catalog` reads it

For other settings open the process yourself: `with open_process(Settings(batch_orthos=1), database) as process:`.
Celery runs eagerly because celeryconfig says so. What tests do with a process is in `tests/support/steps.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from crochet_tasks.db.process import Process, open_process
from crochet_tasks.settings import Settings
from tests.support.api import api, guards, start_of_a_window  # noqa: F401 - fixtures
from tests.support.catalog import catalog, closed, snapshot  # noqa: F401 - fixtures
from tests.support.recorded import counted  # noqa: F401 - a fixture


@pytest.fixture
def process(database: str) -> Iterator[Process]:
    with open_process(Settings(), database) as process:
        yield process
