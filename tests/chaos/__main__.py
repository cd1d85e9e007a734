"""make chaos: a deployment of real processes on real servers, while all of it is killed, stopped and cut off.

python -m tests.chaos [--kills N] [--seed S] [--report FILE]. The seed decides what happens and in which order, not at
which moment of whose work. Corpora of several tenants get texts all the time, by HTTP. At the end the faults stop,
and each corpus must hold exactly its closure, by the oracle; nothing that a client has read may be lost or go back.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from crochet_tasks.db import corpora
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.errors import Unavailable
from crochet_tasks.query.catalog import Catalog
from tests.chaos import faults
from tests.chaos.faults import Bench
from tests.support import history, steps
from tests.support.bodies import pieces
from tests.support.catalog import SECRET, Snapshot
from tests.support.clocks import wrong_by
from tests.support.cluster import check, closed
from tests.support.everything import everything
from tests.support.faulty import faulty
from tests.support.history import Seen
from tests.support.scraping import Scraped
from tests.support.server import HOST, Broken

STILL_SECONDS = 240.0
"""when nothing more is done for so long, something is lost"""
SIZES = {
    "CROCHET_BATCH_ORTHOS": "10",
    "CROCHET_PART_WORDS": "40",
    "CROCHET_RESULT_ORTHOS": "100",
    "CROCHET_LEASE": "4",
    "CROCHET_PUBLISH_TIMEOUT": "2",
    "CROCHET_STATEMENT_TIMEOUT": "10",
    "CROCHET_LOCK_TIMEOUT": "5",
    "CROCHET_MAX_ATTEMPTS": "50",
    "CROCHET_API_RATE": "1000000",
    "CROCHET_API_TIMEOUT": "2",
}
TEXTS = {"harbour": 18, "evening": 13, "garden": 16, "market": 50}
"""by corpus of each tenant, how many there are"""
KILLS_OF_A_TENANT = 30
"""so that not all texts are posted long before the end"""
CLOCKS = (0, 3600, -3600)
"""seconds by which those of processes are wrong, one after the other"""
DISK_BYTES = 1 << 30
TEXTS_AT_ONCE = 2
"""before each fault"""
MOST_WAITING = 30
"""texts, from which on none is added: what waits at the end is worked off before all is compared"""
Place = tuple[str, str]
"""tenant and corpus"""


def all_texts(kills: int) -> dict[Place, list[str]]:
    """What is posted to each corpus in a campaign of so many kills."""
    examples = {"evening": "harbour-evening"}
    bodies = {corpus: pieces(f"{examples.get(corpus, corpus)}.txt", number) for corpus, number in TEXTS.items()}
    tenants = [f"tenant-{number}" for number in range(2 + kills // KILLS_OF_A_TENANT)]
    return {(tenant, corpus): bodies[corpus] for tenant in tenants for corpus in TEXTS}


class Clients(threading.Thread):
    """Post texts and read, one request after the other, at one API or another."""

    def __init__(self, ports: list[int], made_keys: dict[str, str], texts: dict[Place, list[str]], seed: int) -> None:
        super().__init__(daemon=True, name="clients")
        self._ports, self._keys, self._chance = ports, made_keys, random.Random(seed)
        self.seen = Seen()
        self._waiting = {place: list(bodies) for place, bodies in texts.items()}
        self.refused: Counter[str] = Counter()
        self.answered = 0
        self.problem: BaseException | None = None
        self.stopped = threading.Event()
        self.wanted = threading.Semaphore(0)
        """how many texts are to be posted"""

    def run(self) -> None:
        try:
            for place in itertools.cycle(list(self._waiting)):
                if self.stopped.wait(0.1):
                    return
                if self.wanted.acquire(blocking=False):
                    self._post(*self._chance.choice([each for each, bodies in self._waiting.items() if bodies]))
                self._read(*place)
        except BaseException as problem:
            self.problem = problem
            raise

    def make(self, tenant: str, corpus: str) -> None:
        assert self._ask(tenant, "POST", "/v1/corpora", {"name": corpus}) is not None, self.refused

    def _post(self, tenant: str, corpus: str) -> None:
        body = self._waiting[tenant, corpus].pop(0)
        while not self.stopped.is_set():
            answer = self._ask(tenant, "POST", f"/v1/corpora/{corpus}/texts", {"title": "a text", "body": body})
            if answer is not None:  # else it may have been accepted: it is posted again
                self.seen.accepted(f"{tenant}/{corpus}", answer["id"], body)
                return
            time.sleep(0.1)

    def _read(self, tenant: str, corpus: str) -> None:
        status = self._ask(tenant, "GET", f"/v1/corpora/{corpus}/status")
        if status is not None:
            self.seen.read(f"{tenant}/{corpus}", status["version"], sum(status["orthos"].values()))
        page = self._ask(tenant, "GET", f"/v1/corpora/{corpus}/orthos?limit=20")
        if page is not None:
            self.seen.found(f"{tenant}/{corpus}", (ortho["id"] for ortho in page["orthos"]))
        if known := sorted(self.seen.ids(f"{tenant}/{corpus}")):
            self._ask(tenant, "GET", f"/v1/corpora/{corpus}/orthos/{self._chance.choice(known)}")

    def _ask(self, tenant: str, method: str, path: str, body: object = None) -> Any:
        """What is answered, None where nothing is or an error. All that is asked for is there: a 404 is a fault."""
        port = self._chance.choice(self._ports)
        headers = {"Authorization": f"Bearer {self._keys[tenant]}", "Content-Type": "application/json"}
        try:
            with contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=10)) as connection:
                connection.request(method, path, None if body is None else json.dumps(body), headers)
                answer = connection.getresponse()
                content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.refused[type(error).__name__] += 1
            return None
        assert answer.status != http.client.NOT_FOUND, f"{path} of {tenant} was there, and is gone"
        if answer.status >= http.client.BAD_REQUEST:
            self.refused[str(answer.status)] += 1
            return None
        self.answered += 1
        return json.loads(content)


class Growing:
    """What a server counts from 0 after each start, added up; what it counted after it was asked last is lost."""

    def __init__(self) -> None:
        self.total = self._last = 0

    def read(self, now: int) -> None:
        self.total += now - self._last if now >= self._last else now
        self._last = now


class Campaign:
    """Faults until there were so many kills, and how long it took after each until work was done again."""

    def __init__(self, bench: Bench, process: Process, clients: Clients, scraped: Scraped) -> None:
        self._bench, self._process, self._clients, self._scraped = bench, process, clients, scraped
        self.happened: Counter[str] = Counter()
        self.recovered: dict[str, list[float]] = defaultdict(list)
        self.kills = self.changes = self.attempts = 0
        self.redelivered, self.standby_reads = Growing(), Growing()
        """messages that RabbitMQ delivered again; what the standby answered"""
        self.totals: dict[str, int] = {}
        self.last = ""

    def run(self, kills: int) -> None:
        while self.kills < kills:
            if self._waiting() < MOST_WAITING:
                self._clients.wanted.release(TEXTS_AT_ONCE)
            self._wait_for_work()
            done, began = self._done(), time.monotonic()
            self.last = name = faults.strike(self._bench)
            self.happened[name] += 1
            self.kills += faults.is_kill(name)
            self._until_done(done)
            self.recovered[name].append(time.monotonic() - began)
            self._count()
            if self.kills % 10 == 0:
                print(
                    f"{datetime.now(UTC):%H:%M:%S} {self.kills} kills, {sum(self.happened.values())} faults", flush=True
                )

    def _wait_for_work(self) -> None:
        """There is open work, so that what happens can hurt."""
        limit = time.monotonic() + STILL_SECONDS
        while time.monotonic() < limit:
            assert self._clients.problem is None, self._clients.problem
            self._bench.deployment.start_dead()
            with contextlib.suppress(Unavailable):
                if steps.sql(self._process, "SELECT FROM work WHERE state = 'open' LIMIT 1"):
                    return
            time.sleep(0.1)
        raise AssertionError("no text comes any more")

    def _waiting(self) -> int:
        """How many texts are accepted and no version yet."""
        with contextlib.suppress(Unavailable):
            [(number,)] = steps.sql(self._process, "SELECT count(*) FROM texts WHERE state <> 'current'")
            return int(str(number))
        return 0

    def _done(self) -> int:
        """How much work is done, ever."""
        while True:
            with contextlib.suppress(Unavailable):
                [(number,)] = steps.sql(self._process, "SELECT count(*) FROM work WHERE state = 'done'")
                return int(str(number))

    def _count(self) -> None:
        """RabbitMQ counts every 5 s."""
        with contextlib.suppress(OSError, http.client.HTTPException, Broken):
            self.redelivered.read(
                self._bench.rabbitmq.api("GET", "/overview").get("message_stats", {}).get("redeliver", 0)
            )
        with contextlib.suppress(httpx.HTTPError):
            self.standby_reads.read(int(self._scraped.value("crochet_api_reads_total", source="standby")))

    def _until_done(self, done: int) -> None:
        asked = time.monotonic()
        limit = asked + STILL_SECONDS
        while self._done() <= done:
            assert time.monotonic() < limit, f"nothing is done\n{self._bench.deployment.logs()}"
            assert self._clients.problem is None, self._clients.problem
            self._bench.deployment.start_dead()
            time.sleep(0.05)
            if time.monotonic() > asked + 3.0:  # what was open may have been done just before
                asked = time.monotonic()
                self._clients.wanted.release()

    def finish(self) -> None:
        """No more faults: all is done, and all is right."""
        while self._clients.wanted.acquire(blocking=False):
            pass
        for proxy in self._bench.proxies.values():
            proxy.heal()
        process, deployment = self._process, self._bench.deployment
        limit, done = time.monotonic() + STILL_SECONDS, -1
        found = _corpora(process)
        while not all(closed(process, corpus) for corpus in found.values()):
            deployment.start_dead()
            if (now := self._done()) > done:
                done, limit = now, time.monotonic() + STILL_SECONDS
            assert time.monotonic() < limit, f"nothing more is done than {done}\n{deployment.logs()}"
            time.sleep(1.0)  # counting takes CPU that the workers need
        self._clients.stopped.set()
        self._clients.join()
        assert self._clients.problem is None, self._clients.problem
        seen = self._clients.seen
        for place, corpus in found.items():
            name = "/".join(place)
            rows = steps.sql(process, "SELECT id, body FROM texts WHERE corpus = :corpus", corpus=corpus.id)
            texts = {f"text-{number}": str(body) for number, body in rows}
            check(process, corpus, steps.expected(list(texts.values())))
            seen.check(name, texts, self._stored(corpus, seen.ids(name)))
        self.changes = history.check_paths(process)
        self.totals = {"/".join(place): steps.stored(process, corpus).total() for place, corpus in found.items()}
        [(failed,)] = steps.sql(process, "SELECT count(*) FROM work WHERE state = 'failed'")
        assert failed == 0, f"{failed} pieces of work have failed"
        assert self.standby_reads.total > 0, "the standby has answered nothing"
        [(attempts,)] = steps.sql(process, "SELECT count(*) FROM attempts")
        self.attempts = int(str(attempts))

    def _stored(self, corpus: Corpus, ids: set[str]) -> set[str]:
        """Those of these orthos that are there."""
        catalog = Catalog(self._process, SECRET)
        with self._process.database.snapshot() as connection:
            return {each for each in ids if catalog.by_id(*Snapshot(connection, corpus).args, each) is not None}


def _corpora(process: Process) -> dict[tuple[str, str], Corpus]:
    """By tenant and name."""
    rows = steps.sql(process, "SELECT tenants.name, corpora.id FROM corpora JOIN tenants ON tenants.id = tenant")
    with process.database.transaction() as connection:
        every = [(str(tenant), corpora.numbered(connection, int(str(number)))) for tenant, number in rows]
    return {(tenant, corpus.name): corpus for tenant, corpus in every}


@contextlib.contextmanager
def deployed(folder: Path, kills: int, seed: int) -> Iterator[tuple[Bench, Process, Clients, Scraped]]:
    """Servers, proxies before them, all kinds of processes, clients, and metrics of the API that reads the standby."""
    texts = all_texts(kills)
    tenants = sorted({tenant for tenant, _ in texts})
    hosts = [wrong_by(seconds) if seconds else {} for seconds in CLOCKS]
    whole = everything(folder, tenants, SIZES, program=faulty("impatient"), hosts=hosts, standby=True)
    with small_disk(folder / "postgres") as small, whole as there:
        clients = Clients(there.ports, there.keys, texts, seed)
        for tenant, corpus in texts:
            clients.make(tenant, corpus)
        assert there.standby is not None
        servers = there.postgres, there.standby, there.rabbitmq, there.redis
        bench = Bench(there.deployment, *servers, there.proxies, small, random.Random(seed))
        scraped = Scraped()
        scraped.ports["api"] = there.metrics_port
        yield bench, there.process, clients, scraped


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Make the folder, on a disk of its own in memory if we may mount one; whether it has it."""
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "crochet-chaos", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def report(campaign: Campaign, seconds: float, seed: int, clients: Clients) -> str:
    """What happened and how long it took, in Markdown."""
    sentences = [
        f"`make chaos KILLS={campaign.kills} SEED={seed}`, {seconds / 60:.0f} minutes on two shared cores.",
        "Real processes: 2 relays, 4 workers, 2 APIs, one of which reads a standby; RabbitMQ, Postgres, its standby",
        "and Redis behind proxies. The clocks of five of the eight are an hour early or late (libfaketime).",
        "",
        f"**{campaign.kills} kills, {sum(campaign.happened.values())} faults in all.** Nothing was lost or doubled:",
        f"{sum(campaign.totals.values()):,} orthos of {len(campaign.totals)} corpora are exactly the",
        f"closures by the oracle, {campaign.changes:,} changes in the audit are legal, and of the",
        f"{clients.answered:,} answers that clients got none went back. {sum(clients.refused.values()):,} requests",
        f"got no answer or an error. Tries of work that failed and were made again: {campaign.attempts}.",
        f"RabbitMQ delivered {campaign.redelivered.total:,} messages again, and the standby answered",
        f"{campaign.standby_reads.total:,} reads, of those that were counted before the one who counts was killed.",
        "",
        "Recovered: seconds from the beginning of a fault, which itself takes up to 4 s or the restart of a server,",
        "until the next piece of work was done.",
    ]
    lines = [
        f"# Chaos, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "",
        *sentences,
        "",
        "| what happened | times | recovered, p50 | max |",
        "|---|---|---|---|",
    ]
    for name, times in sorted(campaign.happened.items()):
        took = campaign.recovered[name]
        lines.append(f"| {name} | {times} | {statistics.median(took):.1f} s | {max(took):.1f} s |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="crochet-chaos-"))  # it stays where something is wrong, for its logs
    with deployed(folder, options.kills, options.seed) as (bench, process, clients, scraped):
        clients.start()
        campaign = Campaign(bench, process, clients, scraped)
        try:
            campaign.run(options.kills)
            campaign.finish()
        except BaseException:
            where = f"seed {options.seed}, after {campaign.kills} kills; the last: {campaign.last}; logs: {folder}"
            print(f"{where}\n{bench.deployment.logs()}", file=sys.stderr)
            raise
        written = report(campaign, time.monotonic() - began, options.seed, clients)
    shutil.rmtree(folder)
    print(written)
    if options.report:
        options.report.write_text(written)


if __name__ == "__main__":
    main()
