"""Rate limits, and that unknown callers do not block known ones."""

from __future__ import annotations

import contextlib
import re
import time
from typing import Any, NoReturn

import pytest
from sqlalchemy import event
from werkzeug.test import TestResponse

from api import limits, recently_valid
from crochet_tasks.access import keys
from crochet_tasks.access.keys import KeySpec
from crochet_tasks.db import access
from crochet_tasks.db.process import Process
from crochet_tasks.errors import DatabaseUnavailable
from crochet_tasks.settings import Settings
from tests.support.api import SETTINGS, Api, get, guarded, made
from tests.support.recorded import Counted
from tests.support.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("start_of_a_window")]


RATES = {**SETTINGS, "api_rate": 5, "api_rate_high": 9, "api_rate_anonymous": 3}


def left(answer: TestResponse) -> int:
    match = re.fullmatch(r'"requests";r=(\d+);t=\d+', answer.headers["RateLimit"])
    assert match is not None
    return int(match[1])


def limited(process: Process, **settings: Any) -> Api:
    api = made(process, Settings(**RATES, **settings))
    guarded(api.app)
    return api


def test_limits_are_per_key_and_tier(process: Process) -> None:
    """Each key has its own, a higher tier a higher one; the answer says what is left and when to come again."""
    api = limited(process)
    read, write = api.keys["read"], api.keys["write"]
    high = keys.create(process.database, KeySpec("high", tier="high")).key
    answers = [get(api, read) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert [left(answer) for answer in answers[:5]] == [4, 3, 2, 1, 0]
    assert answers[0].headers["RateLimit-Policy"] == '"requests";q=5;w=60'
    api.problem(answers[5], "rate_limited", 429)
    assert 1 <= int(answers[5].headers["Retry-After"]) <= 60
    assert get(api, write).status_code == 200
    assert [get(api, high).status_code for _ in range(10)] == [200] * 9 + [429]


def test_limits_of_strangers_are_per_address(process: Process) -> None:
    """Who has no good key is counted by address. Probes are not counted."""
    api = limited(process)
    bad = "crk_aaaaaaaaaa_" + "A" * 43
    assert [get(api, bad).status_code for _ in range(4)] == [401] * 3 + [429]
    other: dict[str, Any] = {"environ_base": {"REMOTE_ADDR": "10.0.0.9"}}
    assert get(api, bad, **other).status_code == 401
    hosts: list[dict[str, Any]] = [{"environ_base": {"REMOTE_ADDR": f"2001:db8::{number}"}} for number in range(4)]
    assert [get(api, bad, **host).status_code for host in hosts] == [401] * 3 + [429]  # of one network
    assert [api.anonymous.get("/health/live").status_code for _ in range(5)] == [200] * 5


def test_strangers_lock_no_client_out(process: Process) -> None:
    """From an address that is refused for them good keys and tokens get through; what is none is no SQL, a made-up
    key is one read.
    """
    api = limited(process)
    token = api.write.post("/v1/tokens", json={}).get_json()["access_token"]
    api.app.extensions["crochet.recently_valid"] = (
        recently_valid.RecentlyValid()
    )  # as in a process that has just started
    guesses = ["crk_" + letter * 10 + "_" + letter.upper() * 43 for letter in "abcdef"]
    assert [get(api, guess).status_code for guess in guesses[:4]] == [401] * 3 + [429]
    statements: list[str] = []

    def note(*given: Any) -> None:
        statements.append(given[2])

    engine = process.database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        nothing = [get(api, given) for given in ("crk_", "x.y.z", token[:-2] + "!!", None)]
        assert ([answer.status_code for answer in nothing], statements) == ([429] * 4, [])
        assert "Retry-After" in nothing[0].headers
        assert ([get(api, guess).status_code for guess in guesses], len(statements)) == ([429] * 6, 6)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert [get(api, good).status_code for good in (api.keys["read"], token)] == [200, 200]
    keys.revoke(process.database, api.keys["read"])
    assert get(api, api.keys["read"]).status_code == 429


def test_strangers_are_looked_up_a_few_at_a_time(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are; who was good here lately does not wait for them. None of them is counted for it."""
    monkeypatch.setattr(recently_valid, "LOOKUP_WAIT_SECONDS", 0.01)
    api = limited(process)
    assert get(api, api.keys["read"]).status_code == 200
    with contextlib.ExitStack() as busy:
        for number in range(recently_valid.UNKNOWN_LOOKUPS):
            busy.enter_context(api.app.extensions["crochet.recently_valid"].turn(f"client {number}"))
        for _ in range(2 * RATES["api_rate_anonymous"]):
            api.problem(get(api, api.keys["write"]), "too_busy", 503)
        assert get(api, api.keys["read"]).status_code == 200
    assert get(api, api.keys["write"]).status_code == 200


def test_while_the_database_is_away_no_client_is_a_stranger(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose request it is cannot be found out: 503 it is, each time, and nothing is counted."""
    api = limited(process)

    def away() -> NoReturn:
        raise DatabaseUnavailable(reason="it is away")

    with monkeypatch.context() as patch:
        patch.setattr(process.database, "transaction", away)
        for _ in range(2 * RATES["api_rate_anonymous"]):
            api.problem(get(api, api.keys["read"]), "database_unavailable", 503)
    assert get(api, None).status_code == 401


def test_limits_in_the_database(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Redis processes share them as well, and refuse without asking; alone only while there is no database."""
    first, second = limited(process), limited(process)
    second.keys = first.keys
    both = [get(each, first.keys["read"]).status_code for each in (first, second) * 3]
    assert both == [200] * 5 + [429]
    strangers = [get(each, None).status_code for each in (first, second) * 2]
    assert strangers == [401] * 3 + [429]
    with monkeypatch.context() as patch:

        def away(*given: object) -> NoReturn:
            raise DatabaseUnavailable(reason="it is away")

        patch.setattr(access, "count_requests", away)
        assert [get(first, first.keys["write"]).status_code for _ in range(6)] == [200] * 5 + [429]


def test_few_requests_are_counted_one_by_one(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process reserves more at once the more there were: 600 requests take a few dozen statements."""
    api = limited(process)
    with api.app.app_context():
        storage, real = limits.DatabaseStorage(), access.count_requests
        blocks: list[int] = []

        def counted(connection: Any, client: str, slot: int, block: int) -> tuple[int, int]:
            blocks.append(block)
            return real(connection, client, slot, block)

        monkeypatch.setattr(access, "count_requests", counted)
        monkeypatch.setattr(time, "time", lambda: 6_000_000.0)
        allowed = sum(storage.acquire_sliding_window_entry("client", 600, 60) for _ in range(700))
        assert allowed == 600
        assert blocks[:16] == [1] * 16
        reserved = sum(blocks)
        assert 600 <= reserved <= 640
        assert len(blocks) < 90
        monkeypatch.setattr(time, "time", lambda: 6_000_075.0)  # they count for three quarters
        assert (
            sum(storage.acquire_sliding_window_entry("client", 600, 60) for _ in range(300)) == 600 - reserved * 3 // 4
        )


def test_limits_in_redis(process: Process, redis_server: Any, redis_url: str, counted: Counted) -> None:
    """Processes share them; without Redis each counts for itself, more strictly, until it is back, and counts that."""
    first, second = limited(process, redis_url=redis_url), limited(process, redis_url=redis_url)
    second.keys = first.keys
    both = [get(each, first.keys["read"]).status_code for each in (first, second) * 3]
    assert both == [200] * 5 + [429]
    assert counted("crochet_redis_failures_total") == {}
    redis_server.kill()
    alone = [get(first, first.keys["write"]).status_code for _ in range(3)]
    assert alone == [200, 429, 429]
    assert counted("crochet_redis_failures_total")["rate_limits"] >= 3
    redis_server.start()
    eventually(lambda: get(first, first.keys["write"]).status_code == 200)
