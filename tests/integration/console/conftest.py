"""The console without a browser, each test with a database of its own: lists of everything are compared.

Not beside the tests of tests/integration/web: those share one open process, and there is one at a time.
"""

from __future__ import annotations

import pytest

import web
from crochet_tasks.db.process import Process
from crochet_tasks.settings import Settings
from tests.support import api as apis
from tests.support.api import Api


@pytest.fixture
def api(process: Process) -> Api:
    return apis.made(process, Settings(**apis.SETTINGS), web.create_app)
