"""The servers that tests start: they answer, keep what they should, share nothing and leave no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from kombu import Connection, Queue
from sqlalchemy import make_url

from crochet_tasks.db import schema
from crochet_tasks.db.sessions import Database
from crochet_tasks.settings import Settings
from tests.support import server as servers
from tests.support.paths import ROOT
from tests.support.server import Broken, Missing, Server
from tests.support.services import Postgres, RabbitMQ, Redis
from tests.support.waiting import SECONDS, eventually

pytestmark = pytest.mark.integration

QUORUM = Queue("kept", durable=True, queue_arguments={"x-queue-type": "quorum"})
OWNER = """
import sys
from pathlib import Path
from tests.support import services
server = getattr(services, sys.argv[1])(Path(sys.argv[2]))
server.start()
print(*(process.pid for process in server.processes()), flush=True)
sys.stdin.read()
"""


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))


def cache(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def put(url: str, message: str) -> None:
    """Return when the broker has confirmed it."""
    with Connection(url, transport_options={"confirm_publish": True}) as connection, connection.Producer() as producer:
        producer.publish(message, routing_key=QUORUM.name, declare=[QUORUM], delivery_mode="persistent")


def take(url: str) -> str | None:
    with Connection(url) as connection, connection.channel() as channel:
        queue = QUORUM(channel)
        queue.declare()
        message = queue.get(no_ack=True)
        return None if message is None else str(message.payload)


def end(server: Server, how: str) -> None:
    """Stop or kill; either way no process is left."""
    processes = server.processes()
    assert len(processes) > 1
    getattr(server, how)()
    assert not server.running
    assert server.processes() == []
    assert [process for process in processes if process.is_running()] == []


@pytest.fixture(params=["Postgres", "RabbitMQ", "Redis"])
def owned(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A process that started a server, and the server's processes."""
    fixture = {"Postgres": "postgres", "RabbitMQ": "rabbitmq", "Redis": "redis_server"}[request.param]
    request.getfixturevalue(fixture)  # skips where it is not installed
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, request.param, str(tmp_path / "server")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with owner:
        assert owner.stdout is not None
        processes = []
        for pid in owner.stdout.readline().split():
            with suppress(psutil.NoSuchProcess):  # some are short-lived
                processes.append(psutil.Process(int(pid)))
        yield owner, processes
        owner.kill()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_postgres_keeps_rows(postgres: Postgres, distributed_database: str, how: str) -> None:
    """What was committed is there after a stop and after a crash, at the same address."""
    with closing(connect(distributed_database)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 'the seas and land' AS phrase")
        connection.commit()
    url = postgres.url
    end(postgres, how)
    postgres.start()
    assert postgres.url == url
    with closing(connect(distributed_database)) as connection:
        assert connection.execute("SELECT phrase FROM kept").fetchall() == [("the seas and land",)]


def test_postgres_immediate_stop(postgres: Postgres, distributed_database: str) -> None:
    """It cuts off who is connected, and the next start recovers."""
    with closing(connect(distributed_database)) as connection:
        connection.execute("SELECT 1")
        postgres.stop(mode="immediate")
        assert not postgres.running
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    postgres.start()
    with closing(connect(distributed_database)) as connection:
        connection.execute("SELECT 1")


def test_postgres_asks_for_the_password(postgres: Postgres) -> None:
    """Other users of the machine reach the port, and nothing more."""
    postgres.start()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(make_url(postgres.url).set(password="guess").render_as_string(hide_password=False))


def test_distributed_database_is_migrated(distributed_database: str) -> None:
    """It has the schema, and it is not the template."""
    database = Database(distributed_database, Settings())
    schema.check(database)
    database.close()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_rabbitmq_keeps_messages(rabbitmq: RabbitMQ, vhost: str, how: str) -> None:
    """A confirmed message of a quorum queue is there after a stop and after a crash."""
    put(vhost, "the seas and land")
    rabbitmq.settle()
    end(rabbitmq, how)
    rabbitmq.start()
    assert eventually(lambda: take(vhost)) == "the seas and land"  # its leader may have to be elected
    assert take(vhost) is None


def test_vhosts_are_isolated(rabbitmq: RabbitMQ, vhost: str) -> None:
    """What is sent to one is not seen in another; a deleted one is gone, and who is connected is thrown out."""
    other = rabbitmq.new_vhost()
    put(vhost, "here")
    assert take(other) is None
    with Connection(other) as connection:
        connection.connect()
        rabbitmq.delete_vhost(other)
        with pytest.raises(connection.recoverable_connection_errors):
            connection.drain_events(timeout=servers.ANSWER_SECONDS)
    assert {"name": make_url(other).database} not in rabbitmq.api("GET", "/vhosts?columns=name")
    assert take(vhost) == "here"


def test_rabbitmq_refuses_and_says_why(rabbitmq: RabbitMQ) -> None:
    """An error of the API holds the answer and the end of the log."""
    rabbitmq.start()
    with pytest.raises(Broken, match=r"(?s)404 .*server\.log ends:\n.*\[info\]"):
        rabbitmq.api("DELETE", "/vhosts/none")


def test_redis_keeps_keys_when_stopped(redis_server: Redis, redis_url: str) -> None:
    """After a stop they are there; a crash takes them all, those of an earlier stop, too."""
    with cache(redis_url) as client:
        client.set("kept", "the seas")
    end(redis_server, "stop")
    redis_server.start()
    with cache(redis_url) as client:
        assert client.get("kept") == "the seas"
    end(redis_server, "kill")
    redis_server.start()
    with cache(redis_url) as client:
        assert client.dbsize() == 0


def test_a_flush_of_redis_leaves_no_key(redis_server: Redis, redis_url: str) -> None:
    """No key of any database is left."""
    for url in (redis_url, redis_url.removesuffix("0") + "5"):
        with cache(url) as client:
            client.set("gone", "soon")
    redis_server.flush()
    with cache(redis_url) as client:
        assert client.info("keyspace") == {}


def test_start_twice_is_one_server(redis_server: Redis) -> None:
    """Starting a started server changes nothing; ending an ended one neither."""
    redis_server.start()
    processes = redis_server.processes()
    redis_server.start()
    assert redis_server.processes() == processes
    for how in ("stop", "kill", "stop", "kill"):
        getattr(redis_server, how)()
    redis_server.start()


def test_servers_end_with_their_owner(owned: tuple[subprocess.Popen[str], list[psutil.Process]]) -> None:
    """Even one that is killed leaves no process."""
    owner, processes = owned
    assert len(processes) > 1
    os.kill(owner.pid, signal.SIGKILL)
    assert psutil.wait_procs(processes, timeout=SECONDS)[1] == []


def test_start_that_fails_shows_the_log(redis_server: Redis, tmp_path: Path) -> None:
    """A port that is taken is such a case."""
    redis_server.start()
    second = Redis(tmp_path)
    second.port = redis_server.port
    with pytest.raises(Broken, match=r"(?s)ended with status 1.*Address already in use"):
        second.start()
    assert second.processes() == []


def test_ports_are_given_once() -> None:
    """Also before anything listens on them."""
    ports = [servers.take_port() for _ in range(20)]
    assert len(set(ports)) == len(ports)


def test_missing_package_skips_or_fails() -> None:
    """It skips on a laptop and fails in CI; both say what to do."""
    with pytest.raises(Missing, match="hedgehog is not installed: run `make services`") as missing:
        servers.find_program("hedgehog", "usr/lib/hedgehog/*/bin/hedgehog")
    for environment in ({}, {"CI": "false"}):
        with pytest.raises(pytest.skip.Exception, match="make services"):
            servers.fail_or_skip(missing.value, environment)
    with pytest.raises(pytest.fail.Exception, match="make services"):
        servers.fail_or_skip(missing.value, {"CI": "true"})


def test_newest_program_is_found(tmp_path: Path) -> None:
    """Versions are compared as numbers."""
    for version in ("9.10", "10.2", "10.1"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "run").touch(mode=0o700)
    assert servers.find_program("any", f"{tmp_path.relative_to('/')}/*/run") == tmp_path / "10.2" / "run"
