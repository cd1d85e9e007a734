"""The API over real HTTP: one deployment, whose servers tests stop, kill and freeze."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import psutil

from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine.geometry import Limits
from tests.support import services, steps
from tests.support.cluster import Cluster, check, corpus_of, until, until_closed
from tests.support.scraping import Scraped
from tests.support.server import HOST, Server
from tests.support.waiting import SECONDS

SOON = 5.0
"""for what should take milliseconds"""
ASKING = 8


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Deployed(NamedTuple):
    """The deployment, the servers that it works on, and an administrator's key."""

    cluster: Cluster
    process: Process
    postgres: services.Postgres
    rabbitmq: services.RabbitMQ
    redis: services.Redis
    port: int
    key: str
    relay: Scraped
    """its metrics"""

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """One request on a connection of its own; raises OSError or HTTPException where no answer comes."""
        began = time.monotonic()
        with contextlib.closing(http.client.HTTPConnection(HOST, self.port, timeout=SECONDS)) as connection:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            if body is not None:
                named.setdefault("Content-Type", "application/json")
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Authorization": f"Bearer {self.key}", **named})
            answer = connection.getresponse()
            # A stream of events goes on; of that the first line is enough.
            stream = answer.getheader("Content-Type", "").startswith("text/event-stream")
            received = answer.readline() if stream else answer.read()
            return Answer(answer.status, answer.headers, received, time.monotonic() - began)

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def corpus(self, name: str) -> Corpus:
        return corpus_of(self.process, Limits(), name)

    def post(self, name: str, number: int, body: str, **headers: str) -> Answer:
        return self.ask("POST", f"/v1/corpora/{name}/texts", {"title": f"text {number}", "body": body}, **headers)

    def is_degraded(self, *away: str) -> bool:
        """Whether it is ready, says so soon, and names just these services as away or not in order."""
        try:
            ready = self.get("/health/ready")
        except OSError:
            return False
        return ready.seconds < SOON and (ready.status, ready.json["degraded"]) == (200, [*away])

    def until(self, condition: Callable[[], object]) -> None:
        until(condition, self.cluster)

    def until_everywhere(self, condition: Callable[[], object]) -> None:
        """Until it holds in each process of the API: so many ask at once that no one process answers all."""
        with ThreadPoolExecutor(ASKING) as pool:
            self.until(lambda: all(pool.map(lambda _: condition(), range(ASKING))))

    def is_closed(self, name: str, expected: list[str]) -> None:
        """Its work ends, and then it holds the closure of these texts, and each text once."""
        corpus = self.corpus(name)
        until_closed(self.process, corpus, self.cluster)
        check(self.process, corpus, steps.expected(expected))
        bodies = steps.sql(self.process, "SELECT body FROM texts WHERE corpus = :corpus", corpus=corpus.id)
        assert sorted(str(body) for (body,) in bodies) == sorted(expected)


@contextlib.contextmanager
def frozen(server: Server) -> Iterator[None]:
    """A server that takes connections, as far as its kernel does that for it, and answers nothing."""
    stopped: list[psutil.Process] = []
    try:
        while new := [process for process in server.processes()[1:] if process not in stopped]:  # forked meanwhile
            for process in new:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
                stopped.append(process)
        yield
    finally:
        for process in reversed(stopped):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
