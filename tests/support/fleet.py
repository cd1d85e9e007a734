"""A deployment whose services are replaced one after another by those of another release, under load."""

from __future__ import annotations

import contextlib
import functools
import http.client
import itertools
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from crochet_tasks.db.process import Process
from crochet_tasks.engine.geometry import Limits
from tests.support import steps
from tests.support.cluster import Cluster, check, cluster, corpus_of, until, until_closed
from tests.support.haproxy import HAProxy
from tests.support.releases import Release
from tests.support.server import HOST, take_port
from tests.support.waiting import SECONDS

log = logging.getLogger(__name__)

TEXT = "the a{0} and b{0}. a{0} c{0} and a{1}. b{0} d{0}. c{0} d{0}. a{1} d{0} too. c{0} a{1}"
"""boxes of its own, and some with the text before"""
PAUSE_SECONDS = 0.5
SETTINGS = {
    "CROCHET_API_RATE": "1000000",
    "CROCHET_JWT_SECRET": "a secret of the tests, and long enough for that",
}


class Behind(Protocol):
    """Starts a proxy before servers: the ports of each kind."""

    def __call__(self, **servers: Sequence[int]) -> HAProxy: ...


class Load:
    """Clients: one posts texts, others read, one of them on a connection that it keeps. What fails is recorded."""

    def __init__(self, port: int) -> None:
        self._port, self.key = port, ""
        self.posted: list[str] = []
        self.read = 0
        self.failures: list[str] = []
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._post, self._read, self._keep_reading)]

    @property
    def runs(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def went_on(self, posted: int, read: int) -> bool:
        """Whether a text was accepted and something was read since; or a request failed."""
        return bool(self.failures) or (len(self.posted) > posted and self.read > read)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in self._threads:
                thread.join(SECONDS)

    def _post(self) -> None:
        for number in itertools.count():
            body = TEXT.format(number, number + 1)
            if self._stopped.wait(PAUSE_SECONDS) or not self._ask("POST", "/texts", 202, {"title": "t", "body": body}):
                return
            self.posted.append(body)

    def _read(self) -> None:
        for path in itertools.cycle(("/status", "/orthos", "/texts")):
            if self._stopped.wait(PAUSE_SECONDS) or not self._ask("GET", path, 200):
                return
            self.read += 1

    def _keep_reading(self) -> None:
        with contextlib.closing(self._connection()) as connection:
            while not self._stopped.wait(PAUSE_SECONDS) and self._ask("GET", "", 200, connection=connection):
                self.read += 1

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(HOST, self._port, timeout=SECONDS)

    def _ask(
        self,
        method: str,
        path: str,
        expected: int,
        body: object = None,
        connection: http.client.HTTPConnection | None = None,
    ) -> bool:
        """One request, never repeated."""
        with contextlib.ExitStack() as opened:
            asked = connection or opened.enter_context(contextlib.closing(self._connection()))
            headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
            try:
                asked.request(method, f"/v1/corpora/main{path}", None if body is None else json.dumps(body), headers)
                answer = asked.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{method} {path}: {error!r}")
                return False
        if answer.status != expected:
            self.failures.append(f"{method} {path}: {answer.status} {content.decode(errors='replace')}")
        return answer.status == expected


class Slot(NamedTuple):
    """A service of which one process runs; an API has a port and a place in the proxy."""

    command: tuple[str, ...]
    port: int | None = None
    server: str | None = None


class Fleet:
    """The services of a deployment, each replaced by that of another release while the others go on."""

    def __init__(self, deployment: Cluster, proxy: HAProxy, slots: list[Slot], load: Load) -> None:
        self.deployment, self.proxy, self.load = deployment, proxy, load
        self._slots = dict[Slot, str | None].fromkeys(slots)

    def replace(self, release: Release, mixed: Callable[[], bool] = lambda: True) -> None:
        """All services, one after another: what does the work first, what faces clients last.

        After the first one it waits until `mixed` is true.
        """
        for number, slot in enumerate(self._slots):
            before, read = len(self.load.posted), self.load.read
            if slot.server is None:
                self._replace_worker(slot, release)
            else:
                self._replace_api(slot, release)
            if number == 0:
                until(mixed, self.deployment)
            if self.load.runs:
                until(functools.partial(self.load.went_on, before, read), self.deployment)
            assert self.load.failures == [], self.deployment.logs()

    def _replace_worker(self, slot: Slot, release: Release) -> None:
        started, old = self._start(slot, release), self._slots[slot]
        if old is not None:
            self._end(old)
        self._slots[slot] = started

    def _replace_api(self, slot: Slot, release: Release) -> None:
        assert slot.server is not None
        old, server = self._slots[slot], slot.server
        if old is not None:
            self.proxy.say(f"set server {server} state drain")
            until(lambda: self.proxy.drained(server), self.deployment)
            self._end(old)
        self._slots[slot] = self._start(slot, release)
        self.proxy.say(f"set server {server} state ready")
        until(lambda: self.proxy.is_up(server), self.deployment)

    def _start(self, slot: Slot, release: Release) -> str:
        port = {} if slot.port is None else {"CROCHET_API_PORT": str(slot.port)}
        name = release.start(self.deployment, *slot.command, **port)
        until(lambda: self.deployment.ready(name), self.deployment)
        return name

    def _end(self, name: str) -> None:
        self.deployment.terminate(name)
        assert self.deployment.ended(name) == 0, self.deployment.log(name)

    def key(self, release: Release) -> str:
        """A new administrator's key."""
        printed = self.run(release, "keys", "create", "clients", "--scope", "admin", "--json").splitlines()
        (line,) = (line for line in printed if line.startswith("{"))
        return str(json.loads(line)["key"])

    def run(self, release: Release, *command: str, **environment: str) -> str:
        """What a command of a release prints."""
        name = release.start(self.deployment, *command, **environment)
        assert self.deployment.ended(name) == 0, self.deployment.log(name)
        return self.deployment.log(name)


def update_and_roll_back(
    folder: Path,
    servers: Mapping[str, str],
    haproxy: Behind,
    releases: tuple[Release, Release],
    services: Sequence[Sequence[str]],
    errors: set[str],
) -> None:
    """Start the old release, replace all of it by the new one, then again by the old one.

    No request fails, and the closure of all texts is exact. `errors`: the codes of what work is tried again for, while
    the new relay publishes for old workers. `servers`: the settings that name an empty database and
    the other servers.
    """
    (old, new), ports = releases, [take_port(), take_port()]
    proxy = haproxy(api=ports)
    slots = [Slot(tuple(command)) for command in services]
    slots += [Slot(("api",), port, f"apis/api{number}") for number, port in enumerate(ports, 1)]
    with cluster(folder, True, **SETTINGS, **servers) as deployment, deployment.process() as process:
        load = Load(proxy.port)
        fleet = Fleet(deployment, proxy, slots, load)
        fleet.run(old, "migrate")
        load.key = fleet.key(old)
        fleet.replace(old)
        fleet.run(old, "--url", proxy.url, "corpora", "create", "main", CROCHET_KEY=load.key)
        with load.running():
            for release in (new, old):
                fleet.run(release, "migrate")
                fleet.replace(release, lambda: codes(process) == errors)
            fleet.run(old, "--url", proxy.url, "smoke", CROCHET_KEY=load.key)
        assert load.failures == []
        log.info("%d texts were posted, %d requests read", len(load.posted), load.read)
        corpus = corpus_of(process, Limits())
        until_closed(process, corpus, deployment)
        assert steps.sql(process, "SELECT version_num FROM alembic_version") == [(new.head,)]
        assert steps.sql(process, "SELECT count(*) FROM work WHERE state <> 'done'") == [(0,)]
        assert steps.sql(process, "SELECT count(*) FROM dead_letters") == [(0,)]
        assert len(steps.sql(process, "SELECT FROM texts WHERE corpus = :corpus", corpus=corpus.id)) == len(load.posted)
        check(process, corpus, steps.expected(load.posted))
        assert codes(process) == errors


def codes(process: Process) -> set[object]:
    """Of the errors of all attempts."""
    return {code for (code,) in steps.sql(process, "SELECT DISTINCT error->>'code' FROM attempts")}
