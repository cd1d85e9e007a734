"""Each service by itself as a program, on a real RabbitMQ and Redis."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.support import services
from tests.support.cli import crochet
from tests.support.programs import refused, service, status_of
from tests.support.server import take_port

pytestmark = pytest.mark.acceptance


def test_the_api_serves_until_it_is_told_to_end(distributed_database: str, servers: dict[str, str]) -> None:
    """It says where it is when it is there, and ends with 0."""
    port = take_port()
    with service("api", "--port", port, **servers, CROCHET_DATABASE_URL=distributed_database) as api:
        api.wait_for(rf"ready_for_work.*http://127\.0\.0\.1:{port}")
        assert status_of(f"http://127.0.0.1:{port}/health/live") == 200
        assert api.end(signal.SIGTERM) == 0
    assert "Traceback" not in api.output


def test_the_api_does_not_migrate(postgres: services.Postgres, servers: dict[str, str]) -> None:
    """A database without our schema is refused, by every service but `up`."""
    url = postgres.new_database()
    for command in ("api", "relay", "worker"):
        refused(crochet(command, **servers, CROCHET_DATABASE_URL=url), 4, "schema_unknown", "crochet migrate")


def test_what_is_missing_is_named(tmp_path: Path, distributed_database: str) -> None:
    database = {"CROCHET_DATABASE_URL": distributed_database}
    none = {"CROCHET_BROKER_URL": "", "CROCHET_DATABASE_URL": ""}
    refused(crochet("up", "--state", tmp_path, **none), 2, "setting_missing", "CROCHET_BROKER_URL")
    assert not list(tmp_path.iterdir())  # it was seen before a server was made
    for command in ("worker", "relay"):
        refused(crochet(command, **none | database), 2, "setting_missing", "CROCHET_BROKER_URL")
        refused(crochet(command, **none), 2, "setting_missing", "CROCHET_DATABASE_URL")
    refused(crochet("api", **none), 2, "setting_missing", "CROCHET_DATABASE_URL")
    refused(crochet("flower", **none), 2, "setting_missing", "CROCHET_BROKER_URL")


def test_flower_without_a_login_stays_at_home(servers: dict[str, str]) -> None:
    """Not outside development, and not where others can reach it."""
    refused(crochet("flower", **servers), 2, "setting_missing", "CROCHET_FLOWER_AUTH")
    home = {**servers, "CROCHET_ENVIRONMENT": "development"}
    refused(crochet("flower", **home, CROCHET_FLOWER_HOST="0.0.0.0"), 2, "not_on_loopback", "0.0.0.0")
    with service("flower", **home) as flower:
        flower.wait_for("ready_for_work")
        address = f"http://127.0.0.1:{home['CROCHET_FLOWER_PORT']}"
        assert [status_of(address), status_of(f"{address}/api/workers")] == [200, 401]
        assert flower.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("command", [["up"], ["worker"], ["relay"]])
def test_a_broker_that_is_not_there(command: list[str], tmp_path: Path, distributed_database: str) -> None:
    """It is waited for, for as long as is set; then one line says so."""
    settings = {
        "CROCHET_BROKER_URL": f"amqp://a:secret@127.0.0.1:{take_port()}//",
        "CROCHET_DATABASE_URL": distributed_database,
        "CROCHET_STARTUP_WAIT": "3",
    }
    done = crochet(*command, **settings)
    refused(done, 4, "broker_unavailable", "CROCHET_BROKER_URL")
    assert "trying again" in done.stderr
    assert "secret" not in done.stderr


def test_a_queue_that_there_is_not(servers: dict[str, str]) -> None:
    refused(crochet("worker", "--queues", "search,serch", **servers), 2, "usage", "'serch'", "maintenance")


def test_doctor_says_what_of_the_services_is_missing(distributed_database: str, servers: dict[str, str]) -> None:
    """Nothing that runs yet is no error; a server that does not answer is."""
    settings = {**servers, "CROCHET_DATABASE_URL": distributed_database}
    fresh = crochet("doctor", **settings)
    assert fresh.returncode == 0, fresh.stdout
    assert "queue ingest: not declared yet" in fresh.stdout
    assert "worker: none takes work from maintenance" in fresh.stdout
    nowhere = f"127.0.0.1:{take_port()}"
    away = crochet("doctor", **settings | {"CROCHET_BROKER_URL": f"amqp://a:secret@{nowhere}//"})
    assert away.returncode == 4
    assert re.search(r"(?m)^WRONG  broker: .*\[broker_unavailable\]  ->  start RabbitMQ", away.stdout)
    lost = crochet("doctor", **settings | {"CROCHET_REDIS_URL": f"redis://:secret@{nowhere}/0"})
    assert lost.returncode == 4
    assert re.search(r"(?m)^WRONG  redis: .*\[redis_unavailable\]  ->  start Redis", lost.stdout)
    assert "secret" not in away.stdout + lost.stdout
