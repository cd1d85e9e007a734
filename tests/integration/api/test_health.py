"""Health, and a database that is away."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from werkzeug.test import TestResponse

from api import create_app
from api import process as context
from crochet_tasks.db.guarded import GuardedDatabase
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.settings import Settings
from tests.support import services
from tests.support.api import SETTINGS, Api, guarded, made, made_again
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
