"""The API over real HTTP while its servers, its own processes and its clients misbehave.

One deployment for all of it: `crochet api` as in production, a relay and a worker, on servers that are stopped, killed,
frozen (SIGSTOP: they hold every connection and answer nothing) and there again.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from crochet_tasks.access import keys
from crochet_tasks.access.keys import KeySpec
from crochet_tasks.client import Client
from crochet_tasks.db.guarded import GuardedDatabase
from crochet_tasks.errors import DatabaseUnavailable
from crochet_tasks.schemas.answers import Progress
from crochet_tasks.settings import Settings
from tests.acceptance.api.every_route import TEXTS, all_away, answers, outcomes, recorded, routes
from tests.support import services
from tests.support.cluster import cluster, until
from tests.support.commands import EVERYTHING, RELAY
from tests.support.deployed import SOON, Deployed, frozen
from tests.support.proxy import proxied
from tests.support.scraping import Scraped
from tests.support.server import HOST, take_port
from tests.support.waiting import SECONDS

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

API_TIMEOUT = 1.0
BOUND = 5 * (API_TIMEOUT + 1)
"""for what should take a statement's time-out and a second"""
SLOW_CLIENTS = 40
GUESTS = ["ant", "bat", "bee", "cat", "cow", "deer", "dog", "dove", "fox", "goat", "hare", "mole", "owl", "pig", "rat"]


@pytest.fixture(scope="module")
def deployed(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: services.Postgres,
    rabbitmq: services.RabbitMQ,
    redis_server: services.Redis,
    distributed_template: str,
) -> Iterator[Deployed]:
    for server in (postgres, rabbitmq, redis_server):
        server.start()
    port, url, vhost = take_port(), postgres.new_database(distributed_template), rabbitmq.new_vhost()
    settings = {
        "CROCHET_DATABASE_URL": url,
        "CROCHET_BROKER_URL": vhost,
        "CROCHET_REDIS_URL": redis_server.url,
        "CROCHET_API_PORT": str(port),
        "CROCHET_API_TIMEOUT": str(API_TIMEOUT),
        "CROCHET_API_RATE": "1000000",
        "CROCHET_API_RATE_ANONYMOUS": "1000000",
        "CROCHET_API_EVENTS_SECONDS": "1",
        "CROCHET_API_LISTENERS": "100",  # each of those that ask every route has a place for that second
        "CROCHET_JWT_SECRET": "a secret of the tests, and long enough for that",
        "CROCHET_PUBLISH_TIMEOUT": "2",
    }
    with cluster(tmp_path_factory.mktemp("away"), **settings) as made, made.process() as process:
        key = keys.create(process.database, KeySpec("away", ("admin",))).key
        scraped = Scraped()
        deployment = Deployed(made, process, postgres, rabbitmq, redis_server, port, key, scraped)
        named = [made.start("api"), scraped.start(made, *RELAY), made.start(*EVERYTHING)]
        until(lambda: all(map(made.ready, named)), made)
        deployment.corpus("shown")
        assert deployment.post("shown", 0, TEXTS[0]).status == 202
        deployment.is_closed("shown", TEXTS[:1])
        deployment.ask("POST", "/v1/corpora/shown/best", {})
        deployment.until(lambda: deployment.get("/v1/corpora/shown/best").json["state"] == "proven")
        yield deployment
    for server in (postgres, rabbitmq, redis_server):
        server.start()
    postgres.drop_database(url)
    rabbitmq.delete_vhost(vhost)


@pytest.fixture(autouse=True)
def well(deployed: Deployed) -> None:
    """Each test finds everything there."""
    for server in (deployed.postgres, deployed.rabbitmq, deployed.redis):
        server.start()
    deployed.until_everywhere(deployed.is_degraded)


# ── RabbitMQ ────────────────────────────────────────────────────────────────────────────────────


def test_without_rabbitmq_texts_are_accepted_and_nothing_is_lost(deployed: Deployed) -> None:
    """Frozen or gone: reads and texts go on, readiness names what is away, and all is done when it is back."""
    deployed.corpus("broker")
    with frozen(deployed.rabbitmq):
        assert deployed.post("broker", 0, TEXTS[0]).status == 202
        deployed.until(lambda: deployed.is_degraded("broker", "queues"))
    deployed.until(deployed.is_degraded)
    deployed.is_closed("broker", TEXTS[:1])  # until then the next text's turn has not come, and nothing is published
    refused = not_published(deployed)
    deployed.rabbitmq.settle()
    deployed.rabbitmq.kill()
    for number, body in enumerate(TEXTS[1:4], 1):
        posted = deployed.post("broker", number, body)
        assert (posted.status, posted.seconds < SOON) == (202, True)
        assert deployed.get("/v1/corpora/shown/orthos/best").status == 200
    deployed.until(lambda: deployed.is_degraded("broker", "queues"))
    deployed.until(lambda: not_published(deployed) > refused)
    deployed.rabbitmq.start()
    deployed.is_closed("broker", TEXTS[:4])
    deployed.until(deployed.is_degraded)


def not_published(deployed: Deployed) -> int:
    """How many messages the relay could not send."""
    return deployed.relay.by("crochet_publish_failures_total", "code")["broker_unavailable"]


# ── Redis ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["frozen", "killed"])
def test_without_redis_everything_works(deployed: Deployed, how: str) -> None:
    """Each route answers as before, and soon."""
    asked = routes(deployed)
    before = outcomes(answers(deployed, asked))
    with contextlib.ExitStack() as away:
        if how == "frozen":
            away.enter_context(frozen(deployed.redis))
        else:
            deployed.redis.kill()
        given = answers(deployed, asked)
        assert outcomes(given) == before
        assert {name: each.seconds for name, each in given.items() if each.seconds > SOON} == {}
        deployed.until(lambda: deployed.is_degraded("redis"))
    deployed.redis.start()


# ── Postgres ────────────────────────────────────────────────────────────────────────────────────


def test_without_postgres_each_route_says_so_and_recovers(deployed: Deployed) -> None:
    """503 from every route, in bounded time and mostly within a second; when it is back all is as before."""
    asked = routes(deployed)
    before, family = outcomes(answers(deployed, asked)), api_processes(deployed)
    deployed.postgres.stop(mode="immediate")
    refused = answers(deployed, asked)
    all_away(refused, SOON)
    assert statistics.median(each.seconds for each in refused.values()) < 1
    assert deployed.get("/health/live").status == 200
    deployed.until(lambda: deployed.get("/health/ready").status == 503)
    deployed.until(lambda: deployed.relay.by("crochet_db_errors_total", "code")["database_unavailable"])
    deployed.postgres.start()
    deployed.until(lambda: deployed.get("/v1/corpora").status == 200)
    deployed.until(lambda: outcomes(answers(deployed, asked)) == before)  # the other process finds out, too
    assert api_processes(deployed) == family


def test_a_frozen_postgres_holds_no_request(deployed: Deployed) -> None:
    """Who hits it gets a 503 in bounded time, who comes later at once; when it moves again all is as before."""
    asked = routes(deployed)
    before, family = outcomes(answers(deployed, asked)), api_processes(deployed)
    with frozen(deployed.postgres):
        with ThreadPoolExecutor(len(asked)) as pool:  # more than there are threads
            given = dict(zip(asked, pool.map(lambda request: deployed.ask(*request), asked.values()), strict=True))
        all_away(recorded(given), BOUND)
        assert deployed.get("/health/live").seconds < SOON
        ready = deployed.get("/health/ready")
        assert (ready.status, ready.seconds < SOON) == (503, True)
        seconds = sorted(deployed.get("/v1/corpora").seconds for _ in range(9))
        assert seconds[4] < 1, seconds  # at once, but for the one in a second that tries
    deployed.until_everywhere(lambda: deployed.get("/v1/corpora").status == 200)
    deployed.until(lambda: outcomes(answers(deployed, asked)) == before)
    for _ in range(3):
        assert outcomes(answers(deployed, asked)) == before
    assert api_processes(deployed) == family


def test_a_statement_is_not_waited_for_longer_than_its_time_out(deployed: Deployed) -> None:
    """Where the server freezes in the middle of a transaction; whatever the pool held is replaced afterwards."""
    url = deployed.cluster.settings.database_url
    assert url is not None
    with contextlib.closing(GuardedDatabase(url.get_secret_value(), Settings(api_timeout=0.5), 2)) as database:

        def works() -> bool:
            with contextlib.suppress(DatabaseUnavailable), database.transaction() as one, database.transaction() as two:
                return all(each.exec_driver_sql("SELECT 1").scalar_one() == 1 for each in (one, two))
            return False

        assert works()
        began = time.monotonic()
        wrong = pytest.raises(DatabaseUnavailable, match="no answer in")
        with wrong, database.transaction() as connection, frozen(deployed.postgres):
            connection.exec_driver_sql("SELECT 1")
        assert time.monotonic() - began < BOUND
        deployed.until(works)


def api_name(deployed: Deployed) -> str:
    [name] = [name for name in deployed.cluster.processes if name.endswith("-api")]
    return name


def api_processes(deployed: Deployed) -> list[int]:
    return deployed.cluster.children(api_name(deployed))


# ── the API itself ──────────────────────────────────────────────────────────────────────────────


def test_texts_are_there_once_whatever_is_killed(deployed: Deployed) -> None:
    """Clients that post with a key, and again until they are answered, while processes of the API are killed."""
    deployed.corpus("kills")
    bodies = [f"{TEXTS[4]} And the {word} sleeps." for word in GUESTS]

    def acknowledged(number: int) -> str:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(OSError, http.client.HTTPException):
                answer = deployed.post("kills", number, bodies[number], Idempotency_Key=f"kill-{number:04}")
                if answer.status == 202:
                    return str(answer.json["id"])
                assert answer.status == 503, answer
            time.sleep(0.02)  # as a client would: the API is away for a moment
        raise AssertionError(deployed.cluster.logs())

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(acknowledged, number) for number in range(len(bodies))]

        def done(number: int) -> None:
            deployed.until(lambda: sum(each.done() for each in waiting) >= number)

        for number, process in zip((2, 5), api_processes(deployed), strict=True):
            done(number)
            os.kill(process, signal.SIGKILL)
        done(8)
        name = api_name(deployed)
        deployed.cluster.kill(name)
        deployed.cluster.start_again(name)
        ids = [each.result() for each in waiting]
    assert len(set(ids)) == len(bodies)
    deployed.is_closed("kills", bodies)


# ── clients ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_exports_and_events_go_on_after_a_restart(deployed: Deployed, how: signal.Signals) -> None:
    """Where they were, also behind an API that is stopped while they run: nothing is missing or comes twice."""
    name = f"after-{how.name}"
    deployed.corpus(name)
    assert deployed.post(name, 0, TEXTS[0]).status == 202
    deployed.is_closed(name, TEXTS[:1])
    with proxied(deployed.port) as proxy, Client(f"http://{HOST}:{proxy.port}", deployed.key) as client:
        whole = list(client.export_lines(name))
        events = client.events(name)
        seen = [next(events)]
        proxy.slow(1000)
        lines = client.export_lines(name)
        begun = [next(lines)]
        proxy.stall()
        (api,) = [each for each in deployed.cluster.processes if each.endswith("-api")]
        deployed.cluster.terminate(api, how)
        deployed.cluster.ended(api)
        again = deployed.cluster.start_again(api)
        deployed.until(lambda: deployed.cluster.ready(again))
        assert proxy.cut()
        proxy.heal()
        assert begun + list(lines) == whole
        assert deployed.post(name, 1, TEXTS[1]).status == 202
        while not (isinstance(seen[-1], Progress) and seen[-1].version == 2 and not seen[-1].open_work):
            seen.append(next(events))
    assert len(set(map(str, seen))) == len(seen)
    deployed.is_closed(name, TEXTS[:2])


def test_slow_clients_do_not_keep_others_waiting(deployed: Deployed) -> None:
    """Some say nothing, some send their head or their body byte by byte, with a key and without, some take no answer
    and some never end: who asks is answered; and so are they, once they have asked.
    """
    head = b"GET /v1/corpora HTTP/1.1\r\nHost: "
    form = b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n%s\r\n"
    refreshing = form % (b"/v1/tokens/refresh", b"Content-Length: 99\r\n")
    key = f"Authorization: Bearer {deployed.key}\r\n".encode()
    making = form % (b"/v1/corpora", key + b"Content-Length: 99\r\n")
    pieces = form % (b"/v1/corpora", key + b"Transfer-Encoding: chunked\r\n")
    long = form % (b"/v1/corpora/shown/texts", key + b"Content-Length: 1000000\r\n")
    taking = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20
    ending = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with contextlib.ExitStack() as opened:

        def clients(number: int, content: bytes) -> list[socket.socket]:
            made = [
                opened.enter_context(socket.create_connection((HOST, deployed.port), SECONDS)) for _ in range(number)
            ]
            for client in made:
                client.sendall(content)
            return made

        kinds = [b"", head, taking, ending, refreshing, making, long]
        slow = [clients(SLOW_CLIENTS, each) for each in kinds]
        [chunked] = clients(1, pieces)
        for byte in (b" ", b"{", b"}"):
            for client in (*slow[4], *slow[5], *slow[6]):
                client.sendall(byte)
            chunked.sendall(b"1\r\n" + byte + b"\r\n")
            answer = deployed.get("/v1/corpora")
            assert (answer.status, answer.seconds < SOON) == (200, True)
            assert deployed.post("shown", 0, TEXTS[0]).status == 200  # it is there already
        for client in (*slow[4], *slow[5]):
            client.sendall(b" " * 96)
        chunked.sendall(b"0\r\n\r\n")
        content = [whole(client)[:12] for client in (slow[3][0], *slow[4], *slow[5], chunked)]
        assert content == [b"HTTP/1.1 200", *[b"HTTP/1.1 422"] * (2 * SLOW_CLIENTS + 1)]


def test_requests_may_come_in_pieces_or_together(deployed: Deployed) -> None:
    """On one connection: one behind another, one in two pieces, one after an empty line. One too large is refused."""
    ask = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection((HOST, deployed.port), SECONDS) as client, client.makefile("rb") as answers:

        def live() -> bool:
            head = b"".join(iter(answers.readline, b"\r\n"))
            [length] = re.findall(rb"(?i)content-length: (\d+)", head)
            return head.startswith(b"HTTP/1.1 200") and json.loads(answers.read(int(length))) == {"status": "live"}

        client.sendall(ask + ask + ask[:20])
        assert live()
        assert live()
        client.sendall(ask[20:])
        assert live()
        client.sendall(b"\r\n" + ask)
        assert live()
        client.sendall(b"GET /health/live HTTP/1.1\r\nX: " + b"x" * 100_000)
        assert answers.readline().startswith(b"HTTP/1.1 431")


def whole(client: socket.socket) -> bytes:
    """All bytes that a client receives until its connection ends."""
    content = b""
    while part := client.recv(4096):
        content += part
    return content
