"""Health, and a database that is away."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from werkzeug.test import TestResponse

from api import create_app, recent_problems
from api import process as context
from api.recent_problems import RecentProblems
from crochet_tasks.access import signing
from crochet_tasks.db.guarded import GuardedDatabase
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.settings import Settings
from tests.support import services, steps
from tests.support.api import SETTINGS, Api, corpus_of, guarded, made, made_again
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


def health(api: Api, path: str = "ready") -> tuple[int, dict[str, Any]]:
    answer = api.anonymous.get(f"/health/{path}")
    return answer.status_code, json.loads(answer.data)


def test_servers_that_are_not_set_up_are_not_missed(api: Api) -> None:
    """With a database alone all is well: what the server is not set up for is not missed."""
    assert health(api, "live") == (200, {"status": "live"})
    assert health(api, "startup") == (200, {"status": "started"})
    status, body = health(api)
    assert (status, body["status"], body["degraded"]) == (200, "ready", [])
    assert {name: each["state"] for name, each in body["components"].items()} == {
        "database": "ok",
        "broker": "none",
        "queues": "none",
        "redis": "none",
    }
    assert {name for each in body["components"].values() for name in each} == {"state"}


def test_health_without_broker_and_redis(process: Process, caplog: pytest.LogCaptureFixture) -> None:
    """They are named, and the API is ready without them. Strangers learn no more; why is in the log."""
    nowhere: dict[str, Any] = {
        "broker_url": "amqp://user:hunter2@127.0.0.1:1//",
        "redis_url": "redis://:hunter2@127.0.0.1:1/0",
    }
    api = made_again(process, Settings(**SETTINGS, **nowhere))
    answer = api.anonymous.get("/health/ready")
    body = answer.get_json()
    assert (answer.status_code, body["status"], body["degraded"]) == (200, "degraded", ["broker", "queues", "redis"])
    assert body["components"]["redis"] == {"state": "away"}
    assert b"hunter2" not in answer.data
    eventually(lambda: {"broker", "queues", "redis"} <= {vars(line).get("service") for line in caplog.records})


def test_health_is_checked_once_a_second(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask. The second is as long here as the test wants."""
    from crochet_tasks.db import schema

    checks: list[object] = []
    monkeypatch.setattr(schema, "check", checks.append)
    monkeypatch.setattr("api.health.CACHED_SECONDS", 3600.0)
    for _ in range(5):
        health(api)
    assert len(checks) == 1
    monkeypatch.setattr("api.health.CACHED_SECONDS", 0.0)
    health(api)
    assert len(checks) == 2


# ── details, for operators ──────────────────────────────────────────────────────────────────────

GUESSED = "crk_aaaaaaaaaa_" + "A" * 43


def details(api: Api, key: str | None) -> Any:
    answer = api.with_key(key).get("/health/ready")
    assert (answer.status_code, answer.get_json()["status"]) == (200, "ready")
    return answer.get_json()["details"]


def test_only_operators_read_details(api: Api) -> None:
    """All others, also with a key that is none, get what a probe gets, and are not refused."""
    for key in (None, GUESSED, "nonsense", api.keys["read"], api.keys["write"], api.keys["stranger"]):
        assert details(api, key) is None
    assert details(api, api.keys["admin"]) is not None
    token = api.admin.post("/v1/tokens", json={}).get_json()["access_token"]
    assert details(api, token) is not None
    assert api.anonymous.get("/health/ready").get_json().keys() == {"status", "degraded", "components", "details"}


def test_details_are_signed_for_where_administrators_sign(process: Process) -> None:
    api = made(process, Settings(**SETTINGS, signed_admin=True))
    assert details(api, api.keys["admin"]) is None
    parts = signing.split(api.keys["admin"])
    assert parts is not None
    date = f"{time.time():.0f}"
    headers = {
        signing.DATE_HEADER: date,
        signing.SIGNATURE_HEADER: signing.signature(parts[1], "GET", "/health/ready", date, b""),
    }
    answers = [api.admin.get("/health/ready", headers=headers).get_json()["details"] for _ in range(2)]
    assert [answer is None for answer in answers] == [False, True]


def test_guesses_of_keys_are_limited_and_probes_are_not(process: Process, start_of_a_window: None) -> None:
    api = made(process, Settings(**{**SETTINGS, "api_rate_anonymous": 3}))
    guesses = [api.with_key(GUESSED).get("/health/ready").status_code for _ in range(5)]
    assert guesses == [200] * 3 + [429] * 2
    assert [health(api)[0] for _ in range(5)] == [200] * 5


def test_details_say_what_the_process_uses(api: Api) -> None:
    use = details(api, api.keys["admin"])["process"]
    assert use["pid"] == os.getpid()
    assert use["memory_bytes"] > 10_000_000
    assert use["cpu_seconds"] > 0
    assert use["seconds"] > 0
    assert min(use["threads"], use["open_files"]) > 1
    with api.process.database.transaction(), api.process.database.transaction():
        pool = details(api, api.keys["admin"])["process"]["connections"]
    assert pool["used"] == 2
    assert 2 <= pool["open"] <= pool["limit"]


def test_details_say_how_caches_do(api: Api) -> None:
    """Each by its name, since the process began; the same page again is found in them."""
    steps.ingest_all(corpus_of(api), steps.TEXTS)
    nothing = details(api, api.keys["admin"])["caches"]
    assert nothing.keys() == {"batches", "index", "lines", "texts"}
    assert nothing["batches"]["hit_rate"] is None
    for _ in range(2):
        page = api.read.get("/v1/corpora/genesis/orthos?fields=id,words").get_json()
    api.read.get(f"/v1/corpora/genesis/orthos/{page['orthos'][0]['id']}")
    found = details(api, api.keys["admin"])["caches"]
    assert found["index"]["misses"] == 1
    assert found["index"]["hit_rate"] == found["index"]["hits"] / (found["index"]["hits"] + 1)
    assert 0 < found["batches"]["hit_rate"] < 1
    assert 0 < found["batches"]["bytes"] <= found["batches"]["limit_bytes"]
    assert found["texts"]["misses"] > 0


def test_details_count_problems_by_code(api: Api) -> None:
    for path in ("/v1/corpora/none", "/v1/corpora/none", "/v1/nothing"):
        api.read.get(path)
    api.anonymous.get("/v1/corpora")
    found = details(api, api.keys["admin"])
    assert found["problems"] == {"corpus_unknown": 2, "route_unknown": 1, "unauthorized": 1}
    assert found["minutes"] == recent_problems.MINUTES


def test_old_problems_are_forgotten() -> None:
    now = [1000.0]
    recent = RecentProblems(lambda: now[0])
    recent.add("internal")
    now[0] += 60 * (recent_problems.MINUTES - 1)
    recent.add("internal")
    assert recent.counts() == {"internal": 2}
    now[0] += 60
    assert recent.counts() == {"internal": 1}
    for _ in range(3 * recent_problems.MINUTES):
        now[0] += 60
        recent.add("forbidden")
    assert recent.counts() == {"forbidden": recent_problems.MINUTES}


# ── without a database ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def alone(postgres: services.Postgres, distributed_database: str) -> Iterator[Api]:
    """An API whose database can be stopped."""
    settings = Settings(**SETTINGS, database_url=SecretStr(distributed_database))
    with open_process(settings, GuardedDatabase(distributed_database, settings, 4)) as process:
        api = made(process, settings)
        guarded(api.app)
        yield api
    with contextlib.suppress(Exception):
        postgres.start()


def ask(api: Api) -> TestResponse:
    return api.read.get("/v1/test/read")


def test_without_the_database(alone: Api, postgres: services.Postgres) -> None:
    """A problem as long as it stays away, and by itself all is well when it is back."""
    assert ask(alone).status_code == 200
    assert health(alone)[0] == 200
    postgres.kill()
    for _ in range(5):
        answer = ask(alone)
        alone.problem(answer, "database_unavailable", 503)
        assert answer.headers["Retry-After"] == "1"
    eventually(lambda: health(alone)[0] == 503)  # it is cached for a second
    _, body = health(alone)
    assert body["status"] == "away"
    assert body["components"]["database"] == {"state": "away"}
    assert health(alone, "live")[0] == 200
    postgres.start()
    eventually(lambda: ask(alone).status_code == 200)
    eventually(lambda: health(alone)[0] == 200)


def test_without_a_database_from_the_start() -> None:
    """The process lives, and says that it has not begun."""
    nowhere = create_app(Settings(database_url=SecretStr("postgresql://nobody@127.0.0.1:1/none")))
    client = nowhere.test_client()
    assert client.get("/health/live").status_code == 200
    assert client.get("/health/startup").status_code == client.get("/health/ready").status_code == 503
    context.close(nowhere)
