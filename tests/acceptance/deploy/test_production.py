"""The topology of deploy/kubernetes/production as processes: two of each service, two Postgres, three RabbitMQ.

Each is killed in turn while texts come in. What was accepted is there at the end, and the closure is exact.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from crochet_tasks.access import keys
from crochet_tasks.access.keys import KeySpec
from crochet_tasks.engine.geometry import Limits
from tests.conftest import migrate
from tests.support import steps
from tests.support.cluster import Cluster, check, cluster, corpus_of, until, until_closed
from tests.support.commands import RELAY, SEARCH, STAGES, STORE
from tests.support.replicated import Balancer, Names, Node, Standby, wait_for_standby
from tests.support.server import HOST, Server, take_port
from tests.support.services import Postgres
from tests.support.waiting import SECONDS, eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.deploy, pytest.mark.timeout(1800)]

TEXT = "the a{0} and b{0}. a{0} c{0} and a{1}. b{0} d{0}. c{0} d{0}. a{1} d{0} too. c{0} a{1}"
PAUSE_SECONDS = 0.5


class Servers:
    """All of them, running; killed at the end."""

    def __init__(self, folder: Path, opened: contextlib.ExitStack) -> None:
        def start(server: Server) -> None:
            opened.callback(server.kill)
            server.start()

        self.primary = Postgres(folder / "primary")
        start(self.primary)
        database = self.primary.new_database()
        migrate(database)
        self.standby = Standby(folder / "standby", self.primary)
        start(self.standby)
        both, name = wait_for_standby(self.primary, self.standby), make_url(database).database
        self.database = f"{both}/{name}?target_session_attrs=read-write"
        names = Names(folder / "names")
        start(names)
        self.nodes: list[Node] = []
        for number in range(3):
            node = Node(folder / f"rabbitmq{number}", names, self.nodes[:])
            start(node)
            self.nodes.append(node)
        self.broker = Balancer(folder / "balancer", self.nodes)
        start(self.broker)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with contextlib.ExitStack() as opened:
        yield Servers(tmp_path, opened)


class Client:
    """Posts texts one after another, each again and again, to one API and the other, until it is accepted."""

    def __init__(self, ports: list[int], key: str) -> None:
        self._ports, self._key = ports, key
        self.accepted: list[str] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            self._thread.join(SECONDS)

    def _run(self) -> None:
        for number in itertools.count():
            body = TEXT.format(number, number + 1)
            while not any(self._post(port, number, body) for port in self._ports):
                if self._stopped.wait(PAUSE_SECONDS):
                    return
            self.accepted.append(body)
            if self._stopped.wait(PAUSE_SECONDS):
                return

    def _post(self, port: int, number: int, body: str) -> bool:
        headers = {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/json",
            "Idempotency-Key": f"text-{number}",
        }
        with contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=SECONDS)) as connection:
            try:
                text = json.dumps({"title": f"text {number}", "body": body})
                connection.request("POST", "/v1/corpora/main/texts", text, headers)
                status = connection.getresponse().status
            except (OSError, http.client.HTTPException):
                return False
        assert status in (202, 500, 502, 503), status
        return status == 202


def more(client: Client, deployment: Cluster, number: int = 2) -> None:
    """Wait until so many more texts were accepted."""
    enough = len(client.accepted) + number
    until(lambda: len(client.accepted) >= enough, deployment)


def test_every_node_is_killed_in_turn_while_texts_come_in_and_the_closure_is_exact(
    servers: Servers, tmp_path: Path
) -> None:
    ports = [take_port(), take_port()]
    with cluster(
        tmp_path,
        True,
        CROCHET_DATABASE_URL=servers.database,
        CROCHET_BROKER_URL=servers.broker.url,
        CROCHET_API_RATE="1000000",
        CROCHET_JWT_SECRET="a secret of the tests, and long enough for that",
    ) as deployment:
        names = [deployment.start(*command) for command in (RELAY, STAGES, SEARCH, STORE) for _ in range(2)]
        names += [deployment.start("api", CROCHET_API_PORT=str(port)) for port in ports]
        until(lambda: all(deployment.ready(name) for name in names), deployment)
        eventually(servers.nodes[0].is_whole)
        with deployment.process() as process:
            corpus = corpus_of(process, Limits())
            client = Client(ports, keys.create(process.database, KeySpec("test", ("admin",))).key)
            with client.running():
                more(client, deployment)
                for name in names:
                    deployment.kill(name)
                    more(client, deployment)
                    again = deployment.start_again(name)
                    until(functools.partial(deployment.ready, again), deployment)
                for node in servers.nodes:
                    node.kill()
                    more(client, deployment, 4)
                    node.start()
                    eventually(node.is_whole)
                servers.primary.kill()
                servers.standby.promote()
                more(client, deployment, 4)
            until_closed(process, corpus, deployment)
            assert steps.sql(process, "SELECT inet_server_port(), pg_is_in_recovery()") == [
                (servers.standby.port, False)
            ]
            check(process, corpus, steps.expected(client.accepted))
            states = steps.sql(process, "SELECT state, count(*) FROM work GROUP BY state")
            assert [state for state, _ in states] == ["done"]
