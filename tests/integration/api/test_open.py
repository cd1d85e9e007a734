"""A developer's API without authentication: what pages in a browser of the same machine may do with it."""

from __future__ import annotations

import pytest

from crochet_tasks.db.process import Process
from crochet_tasks.settings import Settings
from tests.support.api import Api, guarded, made_again, security_log

pytestmark = pytest.mark.integration

PAGES = "https://pages.example"
FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://[localhost"},
    {"Host": "evil.example:8080"},
    {"Host": "evil.example:8080", "Origin": "http://evil.example:8080"},
    {"Host": "127.0.0.1.evil.example"},
]
OURS = [
    {},
    {"Host": "127.0.0.1:8080"},
    {"Host": "[::1]:8080"},
    {"Host": "localhost:8080", "Origin": "http://localhost:8080"},
    {"Host": "localhost:8080", "Origin": PAGES},
]


@pytest.fixture
def off(process: Process) -> Api:
    api = made_again(process, Settings(api_auth=False, environment="development", api_origins=PAGES))
    guarded(api.app)
    return api


def test_no_page_of_another_site_may_ask(off: Api) -> None:
    """Neither one that posts plain text from its own address nor one whose name points here; it is in the log."""
    for headers in FOREIGN:
        for method in ("GET", "POST"):
            answer = off.anonymous.open("/v1/test/write", method=method, headers=headers)
            off.problem(answer, "foreign_page", 403)
    assert [line[0] for line in security_log(off)] == ["refused.foreign_page"]


def test_programs_and_own_pages_may(off: Api) -> None:
    """What has no origin is no page; the API's own, and those of CROCHET_API_ORIGINS, are allowed."""
    for headers in OURS:
        assert off.anonymous.post("/v1/test/write", headers=headers).status_code == 200, headers


def test_with_keys_any_name_does(api: Api) -> None:
    """Where a key says who asks, what a browser says of pages decides nothing."""
    guarded(api.app)
    for headers in FOREIGN[:3] + FOREIGN[4:]:
        assert api.write.post("/v1/test/write", headers=headers).status_code == 200, headers
