"""One browser, one server and one database for all tests of the page in a process; each test has its own session.

at      the site: tests/support/browser.py says how to use it
filled  corpora that tests only read: tests/support/library.py
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser

import web
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.settings import Settings
from tests.conftest import dropped
from tests.support import api as apis
from tests.support import browser as browsers
from tests.support import library
from tests.support.api import Api, listening
from tests.support.browser import Site
from tests.support.server import Missing, fail_or_skip


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    try:
        with browsers.launched() as browser:
            yield browser
    except Missing as missing:
        fail_or_skip(missing, os.environ)  # noqa: TID251 - whether this is CI is no setting of the program


@pytest.fixture(scope="package")
def store(server: str, create: Callable[[str], str], migrated: str) -> Iterator[Process]:
    for url in dropped(server, create(migrated)):
        with open_process(Settings(), url, threads=16) as process:
            yield process


@pytest.fixture(scope="package")
def served(store: Process) -> Iterator[tuple[Api, str]]:
    site = apis.made(store, Settings(**apis.SETTINGS), web.create_app)
    library.fill(store)
    with listening(site) as url:
        yield site, url


@pytest.fixture(scope="package")
def site(browser: Browser, served: tuple[Api, str]) -> Site:
    return Site(browser, *served)


@pytest.fixture
def at(site: Site) -> Iterator[Site]:
    yield site
    site.check()


@pytest.fixture
def api(served: tuple[Api, str]) -> Api:
    """Without a browser: what a test client sees."""
    return served[0]
