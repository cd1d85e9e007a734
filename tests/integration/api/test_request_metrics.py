"""What requests are counted by."""

from __future__ import annotations

import pytest

from crochet_tasks.db.process import Process
from tests.support.api import get, guarded, made
from tests.support.recorded import Counted

pytestmark = pytest.mark.integration


def test_checks_of_keys_and_tokens_are_counted(counted: Counted, process: Process) -> None:
    """By what was shown and what came of it; requests that need no caller are none."""
    api = made(process)
    guarded(api.app)
    token = api.read.post("/v1/tokens", json={}).get_json()["access_token"]
    for key in (api.keys["read"], token, token[:-2], "crk_aaaaaaaaaa_" + "A" * 43, None):
        get(api, key)
    get(api, api.keys["read"], "admin")
    api.anonymous.get("/health/live")
    api.anonymous.get("/v1/nothing")
    assert counted("crochet_api_credentials_total") == {
        "key good": 2,
        "token good": 1,
        "token unauthorized": 1,
        "key unauthorized": 1,
        "none unauthorized": 1,
        "key forbidden": 1,
    }
